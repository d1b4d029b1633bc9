"""What makes the files of a run evidence: manifest, hashes, signatures, and nothing of an earlier run beside them."""

from __future__ import annotations

from collections.abc import Mapping

import click

from rlsaudit.bundle import attestation, manifest, ssh
from rlsaudit.cli.common import Common
from rlsaudit.errors import UsageError
from rlsaudit.evidence import escaped
from rlsaudit.output import encoded
from rlsaudit.report import Report

_NAMED = 3


def check(common: Common) -> None:
    """Raise UsageError now for keys that cannot sign, no run before, and files that a manifest would replace."""
    manifest.before(common.output_dir, common.previous)
    if common.sign_ssh:
        ssh.signature(common.sign_ssh, b"")
    if common.sign_ed25519:
        attestation.check_private(common.sign_ed25519)


def seals(common: Common, files: Mapping[str, str], report: Report) -> tuple[dict[str, str], str]:
    """Manifest, hashes and signatures for the texts of a run; and why they are not signed although they should be."""
    made = manifest.sealed(files, report, manifest.before(common.output_dir, common.previous))
    sums = made[manifest.SUMS]
    try:
        if common.sign_ssh:
            made[manifest.SSH_SIGNATURE] = ssh.signature(common.sign_ssh, encoded(sums))
        if common.sign_ed25519:
            made[manifest.ATTESTATION] = attestation.made(common.sign_ed25519, sums, report)
    except UsageError as error:  # what has been found is worth more than its signature
        return made, str(error)
    return made, ""


def clear(common: Common, earlier: manifest.Run | None, written: Mapping[str, str]) -> None:
    """Remove what an earlier run left, and tell of files that no run wrote."""
    if kept := manifest.clear(common.output_dir, earlier, written):
        more = f" and {len(kept) - _NAMED:,} more" if len(kept) > _NAMED else ""
        names = f"{', '.join(kept[:_NAMED])}{more}"
        line = f"rlsaudit: {common.output_dir} also holds what this run did not write: {names}; verify will name it"
        click.echo(escaped(line), err=True)
