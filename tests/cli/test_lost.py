"""The server goes away in the middle of a scan: it goes on where it can, and ends with what was found where it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlsaudit.source.server import ScratchServer
from tests.cli.conftest import processes_under

MORE = "".join(
    f"""
CREATE TABLE more_{n} (tenant_id integer NOT NULL, id integer, a text, b text, PRIMARY KEY (tenant_id, id));
ALTER TABLE more_{n} ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON more_{n} USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::integer));
GRANT SELECT, INSERT, UPDATE, DELETE ON more_{n} TO c_app;
"""
    for n in range(9)
)
REPLAYING, SEEDING = "shrinking and replaying", "seeding tenants"  # are soon over
WORKLOADS, LONG = "random workloads", "13"  # from ten seconds on they go from neighbourhood to neighbourhood
IMPATIENT = """
from rlsaudit.cli.main import main
from rlsaudit.source import on_target
on_target._AWAY = 2.0
main()
"""


@contextmanager
def scanning(
    phase: str, directory: Path, environment: dict[str, str], *arguments: str, script: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """A scan that has just said ``phase``."""
    way = ["-c", script] if script else ["-m", "rlsaudit"]
    with subprocess.Popen(
        [sys.executable, *way, "scan", *arguments], cwd=directory, env=environment, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        while phase not in (line := process.stderr.readline()):
            assert line, f"it never said {phase}"
        time.sleep(0 if phase in (REPLAYING, SEEDING) else 0.2)
        assert process.poll() is None
        yield process


def ended(process: subprocess.Popen[str]) -> str:
    """What it still said."""
    _, errors = process.communicate(timeout=200)
    assert "Traceback" not in errors
    assert "defect" not in errors
    return errors


def evidence(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "rlsaudit-report" / "evidence.json").read_text())
    return found


def partly(found: dict[str, Any], *, leaks: bool = True) -> None:
    """What was found stands there, and nothing that reads like a pass."""
    assert (found["verdict"], found["exit_code"]) == ("not trustworthy", 3)
    assert "the server was lost" in found["reasons"][0]
    assert {cell["state"] for cell in found["cells"]} <= {"leak", "not covered", "no privilege"}
    shown = [finding for finding in found["findings"] if finding["source"] == "probe"]
    assert bool(shown) >= leaks
    assert not any(finding["confirmed"] for finding in shown)


def restart(live: ScratchServer, mode: str = "immediate") -> None:
    data = live.directory / "data"
    command = [live.binary("pg_ctl"), "restart", "-m", mode, "-w", "-D", data, "-l", live.directory / "again.log"]
    code, output, _ = live.run(command, timeout=60, merge=True)
    assert code == 0, output


def postmaster(data: Path) -> int:
    return int((data / "postmaster.pid").read_text().split()[0])


def databases(live: ScratchServer) -> list[str]:
    with live.connect() as connection:
        return [
            str(name) for (name,) in connection.execute("SELECT datname FROM pg_database WHERE datname ~ 'rlsaudit'")
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "budget", "how"),
    [
        (SEEDING, "0", "killed"),
        ("attacking as", "0", "killed"),
        ("comparing worlds", "0", "killed"),
        pytest.param(WORKLOADS, LONG, "killed", marks=pytest.mark.nightly),
        pytest.param(WORKLOADS, LONG, "restarted", marks=pytest.mark.nightly),
        pytest.param("attacking as", "0", "restarted", marks=pytest.mark.nightly),
        pytest.param("checking that the probe", "0", "killed", marks=pytest.mark.nightly),
        pytest.param(REPLAYING, "0", "killed", marks=pytest.mark.nightly),
    ],
)
def test_our_own_server_is_gone(phase, budget, how, tmp_path, environment, leaky) -> None:
    leaky.write_text(leaky.read_text() + MORE)
    temporary = Path(tempfile.mkdtemp(prefix="rl-", dir="/tmp"))  # short, for the socket's sake
    temporary.chmod(0o711)
    try:
        given = {**environment, "TMPDIR": str(temporary)}
        with scanning(phase, tmp_path, given, str(leaky), "--budget", budget) as process:
            data = next(temporary.glob("rlsaudit-*")) / "data"
            first = postmaster(data)
            if how == "killed":
                os.kill(first, signal.SIGKILL)
            else:
                program = Path((data / "postmaster.opts").read_text().split()[0]).with_name("pg_ctl")
                owner = data.stat()
                as_owner = (
                    {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
                )
                again = [program, "restart", "-m", "immediate", "-w", "-D", data, "-l", data.parent / "again.log"]
                subprocess.run(again, check=False, cwd="/", capture_output=True, timeout=60, **as_owner)
            errors = ended(process)
        assert process.returncode == 3, errors
        # Seeding is soon over: where the attack had begun there is a report, which says that it is none of the whole.
        if phase != SEEDING or (tmp_path / "rlsaudit-report").exists():
            assert "the run ended early; the reports say what was found until then" in errors
            partly(evidence(tmp_path), leaks=phase != SEEDING and not phase.startswith("attacking"))
        deadline = time.monotonic() + 10
        while (left := processes_under(temporary)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, "processes of the scratch server are still there"
        assert list(temporary.iterdir()) == [], "the scratch server's directory is still there"
    finally:
        temporary.rmdir()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["immediate", pytest.param("fast", marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    ("phase", "budget"), [("attacking as", "0"), pytest.param(WORKLOADS, LONG, marks=pytest.mark.nightly)]
)
def test_a_target_that_is_restarted_under_the_attack_is_waited_for(
    phase, budget, mode, target, tmp_path, environment, leaky
) -> None:
    with target.connect("target") as connection:
        connection.execute((leaky.read_text() + MORE).encode())
    source = target.conninfo("target")
    first = postmaster(target.directory / "data")
    with scanning(phase, tmp_path, environment, source, "--scratch-on-target", "--budget", budget) as process:
        assert databases(target)
        restart(target, mode)
        assert "comparing worlds" in (errors := ended(process))
    assert postmaster(target.directory / "data") != first
    assert process.returncode == 1, errors
    found = evidence(tmp_path)
    assert found["verdict"] == "exceptions"
    assert [(f["object"], f["confirmed"]) for f in found["findings"] if f["check"] == "PROBE-READ"] == [
        ("public.notes", True)
    ]
    assert {cell["state"] for cell in found["cells"] if cell["relation"] != "public.notes"} <= {"held", "proven"}
    assert databases(target) == []


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["comparing worlds", pytest.param(REPLAYING, marks=pytest.mark.nightly)])
def test_a_target_that_is_restarted_later_ends_the_run_with_what_was_found(
    phase, target, tmp_path, environment, leaky
) -> None:
    with target.connect("target") as connection:
        connection.execute((leaky.read_text() + MORE).encode())
    source = target.conninfo("target")
    with scanning(phase, tmp_path, environment, source, "--scratch-on-target", "--budget", "0") as process:
        restart(target)
        errors = ended(process)
    found = evidence(tmp_path)
    if found["verdict"] == "exceptions":  # nothing was under way but a replay of psql's, which did its work again
        assert process.returncode == 1, errors
        assert any(f["confirmed"] for f in found["findings"] if f["check"] == "PROBE-READ")
        assert {c["state"] for c in found["cells"] if c["relation"] != "public.notes"} <= {"held", "proven"}
    else:
        assert process.returncode == 3, errors
        partly(found)
    assert databases(target) == []


@pytest.mark.slow
def test_a_crash_that_empties_tables_is_no_leak(target, tmp_path, environment, sound) -> None:
    """Unlogged tables are empty after a crash: what is missing was not taken by the attack."""
    with target.connect("target") as connection:
        connection.execute((sound.read_text() + MORE).replace("CREATE TABLE", "CREATE UNLOGGED TABLE").encode())
    source = target.conninfo("target")
    with scanning("attacking as", tmp_path, environment, source, "--scratch-on-target", "--budget", "0") as process:
        restart(target)
        assert ended(process)
    found = evidence(tmp_path)
    assert process.returncode == 3
    partly(found, leaks=False)
    assert [f["object"] for f in found["findings"] if f["source"] == "probe"] == []
    assert databases(target) == []


@pytest.mark.slow
def test_a_target_that_is_restarted_in_place_leaves_what_was_found(target, tmp_path, environment, leaky) -> None:
    rows = "SELECT count(*) FROM notes"
    with target.connect("target") as connection:
        connection.execute((leaky.read_text() + MORE).encode())
        connection.execute("INSERT INTO notes VALUES (1, 1, 'kept')")
    source = target.conninfo("target")
    with scanning("attacking as", tmp_path, environment, source, "--in-place", "--yes") as process:
        restart(target)
        assert "the run ended early" in ended(process)
    assert process.returncode == 3
    found = evidence(tmp_path)
    partly(found, leaks=False)
    assert "lost: )" not in found["reasons"][0]
    with target.connect("target") as connection:
        assert connection.execute(rows).fetchone() == (1,)


@pytest.mark.nightly
def test_a_target_that_stays_away_leaves_a_report_that_names_what_is_left(target, tmp_path, environment, leaky) -> None:
    with target.connect("target") as connection:
        connection.execute((leaky.read_text() + MORE).encode())
    source, data = target.conninfo("target"), target.directory / "data"
    with scanning(
        "comparing worlds", tmp_path, environment, source, "--scratch-on-target", "--budget", "0", script=IMPATIENT
    ) as process:
        target.run([target.binary("pg_ctl"), "stop", "-m", "immediate", "-w", "-D", data], timeout=60)
        assert ended(process)
    assert process.returncode == 3
    found = evidence(tmp_path)
    partly(found)
    assert "drop those named rlsaudit_scratch_" in found["reasons"][-1]
