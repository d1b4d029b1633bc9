"""Ctrl-C and SIGTERM in the middle of a scan: the exit code says so, and nothing stays behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from rlsaudit.demo import demos, path
from tests.cli.conftest import processes_under

CASES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize("phase", ["loading the schema", "attacking", "shrinking"])
@pytest.mark.parametrize(
    ("number", "code"), [CASES[0], pytest.param(*CASES[1], marks=pytest.mark.nightly)], ids=["SIGINT", "SIGTERM"]
)
def test_interrupted_scan(number, code, phase, tmp_path, environment) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="ri-", dir="/tmp"))  # short, for the socket's sake
    temporary.chmod(0o711)
    try:
        _interrupt(number, code, phase, tmp_path, {**environment, "TMPDIR": str(temporary)}, temporary)
    finally:
        temporary.rmdir()


@pytest.mark.parametrize(("number", "code"), CASES, ids=["SIGINT", "SIGTERM"])
def test_signal_that_a_library_threw_away_is_raised_again(number, code) -> None:
    """What a signal raises inside a notice handler is lost in the library that called it."""
    script = f"""
import os
from rlsaudit import interrupt
interrupt.watch()
try:
    os.kill(os.getpid(), {int(number)})
except BaseException:
    pass
try:
    interrupt.check()
except KeyboardInterrupt:
    raise SystemExit(interrupt.exit_code())
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == code


@pytest.mark.parametrize(("number", "code"), CASES, ids=["SIGINT", "SIGTERM"])
def test_a_signal_in_the_midst_of_a_library_waits_for_the_next_step(number, code) -> None:
    """Raised anywhere inside Hypothesis it may come out as a failed assertion of its own."""
    script = f"""
import os
from rlsaudit import interrupt
interrupt.watch()
reached = False
try:
    with interrupt.between_steps():
        os.kill(os.getpid(), {int(number)})
        reached = True
        interrupt.check()
        reached = False
except KeyboardInterrupt:
    raise SystemExit(interrupt.exit_code() if reached else 1)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == code


@pytest.mark.parametrize(("number", "code"), CASES, ids=["SIGINT", "SIGTERM"])
def test_interrupted_random_workloads(number, code, tmp_path, environment) -> None:
    """Hypothesis takes some exceptions for failures of the test that it runs; a signal is none."""
    (tmp_path / "schema.sql").write_text(
        "CREATE ROLE i_app LOGIN; CREATE TABLE notes (id int PRIMARY KEY, tenant_id int NOT NULL, body text);"
        "ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
        "CREATE POLICY own ON notes USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);"
        "GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO i_app;"
    )
    arguments = _command("scan", "schema.sql", "--budget", "60")
    with subprocess.Popen(
        arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "attacking" in line:
                break
        time.sleep(5)
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert "defect" not in errors
    assert json.loads((tmp_path / "rlsaudit-report" / "evidence.json").read_text())["verdict"] == "not trustworthy"
    assert "interrupted" in output


def _interrupt(
    number: int, code: int, phase: str, directory: Path, environment: dict[str, str], temporary: Path
) -> None:
    arguments = _command("scan", path(demos()[0]), "--budget", "30")
    with subprocess.Popen(
        arguments, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if phase in line:
                break
        else:
            pytest.fail(f"the scan never said {phase!r}")
        assert processes_under(temporary), "no scratch server was running"
        time.sleep(2 if phase == "attacking" else 0)
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert "interrupted" in errors, errors
    if phase == "loading the schema":
        assert output == ""
        assert list(directory.iterdir()) == [], "a report was begun"
    else:
        _partial_report(output, directory / "rlsaudit-report")
    deadline = time.monotonic() + 5
    while (left := processes_under(temporary)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, "processes of the scratch server are still there"
    assert list(temporary.iterdir()) == [], "the scratch server's directory is still there"


def _partial_report(output: str, report: Path) -> None:
    """What was found until then, and nothing that reads like a pass."""
    evidence = json.loads((report / "evidence.json").read_text())
    assert "interrupted" in output
    assert evidence["verdict"] == "not trustworthy"
    assert evidence["exit_code"] == 3
    assert {cell["state"] for cell in evidence["cells"]} <= {"leak", "not covered", "no privilege"}
    leaks = [finding for finding in evidence["findings"] if finding["source"] == "probe"]
    assert leaks, "the first leaks are found within a second"
    assert not any(finding["confirmed"] for finding in leaks)
    assert (report / "replay" / f"{leaks[0]['id']}.sql").is_file()


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rlsaudit", *map(str, arguments)]
