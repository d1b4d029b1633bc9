"""Nights: directories as runs write them, made of reports that nobody had to scan for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rlsaudit.bundle import manifest, ssh
from rlsaudit.cli import cli
from rlsaudit.errors import RlsauditError
from rlsaudit.output import encoded, write_all
from rlsaudit.report import Report, Timing, chosen

SAMPLE = Path(__file__).parents[1] / "reports" / "sample.py"


@pytest.fixture(scope="session")
def clean() -> Report:
    """A run that found nothing."""
    spec = importlib.util.spec_from_file_location("rlsaudit_test_bundle_sample", SAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    report: Report = module.clean()
    return replace(
        report, provenance=replace(report.provenance, source="db.sql", command=("rlsaudit", "scan", "db.sql"))
    )


def at(report: Report, started: str, **changes: object) -> Report:
    return replace(report, timing=Timing(started, 1.0, ()), **changes)  # type: ignore[arg-type]


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, clean: Report) -> Write:
    """Write a run into a directory of ``tmp_path``, as the command line does."""

    def written(
        name: str, started: str, previous: Path | None = None, report: Report = clean, key: Path | None = None,
        **more: str,
    ) -> Path:  # fmt: skip
        directory = tmp_path / name
        told = at(report, started)
        files = {one.filename: one.write(told) for one in chosen(["json", "junit"])} | more
        files |= manifest.sealed(files, told, manifest.before(directory, previous))
        if key:
            files[manifest.SSH_SIGNATURE] = ssh.signature(key, encoded(files[manifest.SUMS]))
        write_all(directory, files)
        return directory

    return written


@pytest.fixture
def nights(write: Write) -> list[Path]:
    """Four runs in four nights, each chained to the one before."""
    made: list[Path] = []
    for day in range(1, 5):
        made.append(write(f"night-{day}", f"2026-11-0{day}T02:00:00+00:00", made[-1] if made else None))
    return made


@dataclass(frozen=True)
class Said:
    code: int
    lines: tuple[str, ...]
    """What was printed, and the error."""

    @property
    def failures(self) -> list[str]:
        return [line for line in self.lines if line.startswith("FAIL")]


@pytest.fixture
def rlsaudit() -> Callable[..., Said]:
    """Run ``rlsaudit ARGUMENTS`` in this process."""

    def run(*arguments: str | Path) -> Said:
        try:
            done = CliRunner().invoke(
                cli, [str(one) for one in arguments], standalone_mode=False, catch_exceptions=False
            )
        except (RlsauditError, click.ClickException) as error:
            return Said(error.exit_code, (str(error),))
        return Said(done.return_value, tuple(done.output.splitlines()))

    return run


@pytest.fixture
def ssh_key(tmp_path: Path) -> Callable[..., Path]:
    """Make a key pair; gives the private half."""

    def made(name: str = "key", passphrase: str = "") -> Path:
        path = tmp_path / name
        try:
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path], check=True)
        except FileNotFoundError:
            pytest.skip("ssh-keygen is not installed, so no SSH signature was made")
        return path

    return made
