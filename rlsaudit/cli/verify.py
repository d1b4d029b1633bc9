"""``rlsaudit verify DIR…``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from rlsaudit.bundle import chain
from rlsaudit.bundle.verify import Part, Trust, Verified, directories
from rlsaudit.bundle.verify import verify as looked_at
from rlsaudit.errors import UsageError
from rlsaudit.evidence import escaped

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def trust_options(command: F) -> F:
    """Options that name the keys to trust."""
    for decorate in reversed(
        (
            click.option(
                "--allowed-signers", type=_FILE, help="File of allowed signers, as for ssh-keygen; with --identity."
            ),
            click.option(
                "--identity", metavar="NAME", default="", help="Who has to have signed, of the allowed signers."
            ),
            click.option("--ssh-public-key", type=_FILE, help="SSH public key that has to have signed."),
            click.option("--ed25519-public-key", type=_FILE, help="Ed25519 public key (PEM) of the attestation."),
        )
    ):
        command = decorate(command)
    return command


def trust_of(
    allowed_signers: Path | None, identity: str, ssh_public_key: Path | None, ed25519_public_key: Path | None
) -> Trust:
    """The keys given.  Raises UsageError for half of a pair."""
    if bool(allowed_signers) != bool(identity):
        raise UsageError("--allowed-signers and --identity belong together: who of them has to have signed?")
    return Trust(allowed_signers, identity, ssh_public_key, ed25519_public_key)


@click.command()
@click.argument("directory", nargs=-1, required=True, type=click.Path(path_type=Path))
@trust_options
@click.option("-q", "--quiet", is_flag=True, help="Print what fails, and the last line.")
def verify(directory: tuple[Path, ...], quiet: bool, **keys: Any) -> int:
    """Check that the files of runs are as the runs wrote them: hashes, manifest, signature, waivers, and the chain.

    DIRECTORY is the output directory of a run, or one that holds several.  Several runs must follow one another without a gap.
    Exit codes: 0 everything fits; 1 something does not, and a line says what; 2 usage.
    """
    verified = [looked_at(one, trust_of(**keys)) for one in directories(directory)]
    parts = [part for one in verified for part in one.parts]
    links = list(chain.links(one.run for one in verified if one.run))
    failed = [part for part in (*parts, *links) if part.state == "FAIL"]
    for part in failed if quiet else (*parts, *links):
        click.echo(escaped(f"{part.state:<4}  {part.place}: {part.text}"))
    click.echo(_verdict(verified, failed, trust_of(**keys)))
    return 1 if failed else 0


def _verdict(verified: Iterable[Verified], failed: list[Part], trust: Trust) -> str:
    runs = sum(1 for _ in verified)
    said = f"{runs} run{'' if runs == 1 else 's'}"
    if failed:
        return f"{said}: {len(failed)} failure{'' if len(failed) == 1 else 's'}"
    return f"{said}: no failure" + ("" if trust.given else "; no signature was checked, as no public key was given")
