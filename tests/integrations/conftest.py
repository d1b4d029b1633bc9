"""What the tests of integration files share: their linters, and a place where their scripts run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
Done = subprocess.CompletedProcess[str]


def tool(name: str) -> str:
    """A program of the virtual environment or of the system; the test is skipped without it."""
    found = shutil.which(name, path=f"{BIN}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"no {name} here")
    return found


def ran(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str = "") -> Done:
    """Exit code, output and errors of a program."""
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, input=stdin, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip


def complaints(*command: str | Path) -> str:
    """What a linter says; empty when it has nothing to say."""
    done = ran(*command)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"


def broken(tmp_path: Path, name: str, old: str, new: str) -> Path:
    """A copy of a file of the repository, of the same name, with one thing in it changed."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert old in text, f"{name}: {old}"
    copy = tmp_path / Path(name).name
    copy.write_text(text.replace(old, new, 1), encoding="utf-8")
    return copy


def documents(name: str) -> list[Any]:
    """The YAML documents of a file of the repository."""
    return list(yaml.safe_load_all((ROOT / name).read_text(encoding="utf-8")))


def environment(**variables: str | Path) -> dict[str, str]:
    """What a script on a build machine sees."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "CI": "true", **{name: str(value) for name, value in variables.items()}}


def install(directory: Path) -> None:
    """A virtual environment whose ``rlsaudit`` is the one under test, as an installing step leaves it."""
    program = directory / "bin" / "rlsaudit"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rlsaudit "$@"\n')
    program.chmod(0o755)


def git(directory: Path, *arguments: str) -> str:
    """Run git as somebody; its output."""
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    done = ran("git", *who, *arguments, cwd=directory)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
