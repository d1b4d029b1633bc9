"""``rlsaudit doctor`` says what is there, and what is missing for what."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlsaudit.cli import doctor as subject
from tests.cli.conftest import Run


def test_what_is_there(rlsaudit: Run) -> None:
    done = rlsaudit("doctor")
    assert done.code == 0, done.errors
    for said in (
        "scratch server: PostgreSQL",
        "solver: works",
        "temporary files: ",
        "psql: /",
        "extensions there: ",
        "GB free",
    ):
        assert said in done.output, said
    assert "plpgsql" in done.output
    assert "rlsaudit-report can be written" in done.output


def test_what_is_missing(rlsaudit: Run, tmp_path: Path) -> None:
    (tmp_path / "rlsaudit-report").write_text("a file")
    done = rlsaudit("doctor", extra={"PATH": str(tmp_path)})
    assert done.code == 0, done.errors
    assert "git: not found; wanted by rlsaudit diff" in done.output
    assert "ssh-keygen: not found; wanted by --sign-ssh" in done.output
    assert "name another place with --output-dir" in done.output


def test_a_scan_cannot_work(rlsaudit: Run, tmp_path: Path) -> None:
    assert rlsaudit("doctor", "--pg-bin", tmp_path).code == 3


def test_a_solver_that_is_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert subject._solves()
    monkeypatch.setattr(subject.solver, "solve", lambda terms, clock: subject.solver.Solved(True))
    assert not subject._solves()
