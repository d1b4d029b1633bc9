from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from rlsaudit.errors import NotTrustworthy
from rlsaudit.source import binaries
from rlsaudit.source.server import ScratchServer

PROGRAM = """
import time
from rlsaudit import interrupt
from rlsaudit.source.server import ScratchServer
interrupt.watch()  # as the command line does: Python loses what a signal raises inside a callback of a C library
print("begin", flush=True)
with ScratchServer() as server:
    print("up", flush=True)
    for _ in range(600):
        time.sleep(0.1)
        interrupt.check()
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """A temporary directory that the server's account may enter."""
    path = Path(tempfile.mkdtemp(prefix="rt-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def processes(base: Path) -> list[str]:
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = cmdline.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(base) in text:
            found.append(text)
    return found


def orphans() -> set[str]:
    """Shared memory of servers that no process has in use."""
    found, used = {path.name for path in Path("/dev/shm").glob("PostgreSQL.*")}, ""
    for maps in Path("/proc").glob("[0-9]*/maps") if found else ():
        with contextlib.suppress(OSError):
            used += maps.read_text(errors="replace")
    return {name for name in found if name not in used}


def run_until(base: Path, word: str, delay: float, number: signal.Signals) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(base)},
    )
    assert child.stdout is not None
    while child.stdout.readline().strip() != word:
        assert child.poll() is None
    time.sleep(delay)
    child.send_signal(number)
    with child:
        child.wait(30)
    return child


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("word", "delay"), [("begin", 0.0), ("begin", 0.02), ("begin", 0.15), ("begin", 0.3), ("up", 0.0)]
)
def test_a_signal_leaves_no_process_and_no_directory(
    base: Path, word: str, delay: float, number: signal.Signals
) -> None:
    before = orphans()
    child = run_until(base, word, delay, number)
    assert child.returncode != 0
    assert processes(base) == []
    assert list(base.iterdir()) == []
    if "/15/" not in os.environ.get("RLSAUDIT_PG_BIN", ""):  # whose initdb cannot be told where to have it
        assert orphans() <= before


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_the_server_dies_with_a_killed_parent(base: Path) -> None:
    run_until(base, "up", 0.0, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while processes(base) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(base) == []


def test_only_the_private_socket_leads_in(server: ScratchServer) -> None:
    with server.connect() as connection:
        row = connection.execute("SELECT current_setting('listen_addresses'), current_setting('wal_level')").fetchone()
    assert row == ("", "logical")
    assert server.directory.stat().st_mode & 0o777 == 0o700


def test_no_variable_of_the_environment_leads_elsewhere(server: ScratchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = {
        "PGHOST": "192.0.2.1",
        "PGHOSTADDR": "192.0.2.1",
        "PGPORT": "1",
        "PGSSLMODE": "verify-full",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGCHANNELBINDING": "require",
        "PGGSSENCMODE": "require",
        "PGSSLNEGOTIATION": "direct",
        "PGTARGETSESSIONATTRS": "standby",
        "PGOPTIONS": "-c default_transaction_read_only=on",
        "PGUSER": "nobody_here",
        "PGDATABASE": "none",
    }
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    with server.connect() as connection:
        assert connection.execute("SHOW default_transaction_read_only").fetchone() == ("off",)
        assert connection.info.user == "postgres"
    assert server.run_psql("postgres", "SELECT 'here';", timeout=10)[1].count("here") == 1
    assert "PostgreSQL database dump" in server.dump_schema("postgres", data=False)


def test_psql_goes_on_after_an_error_and_has_a_timeout(server: ScratchServer) -> None:
    code, output = server.run_psql("postgres", "SELECT 1/0;\nSELECT 'after';", timeout=10)
    assert code == 0
    assert output.index("division by zero") < output.index("after")
    with pytest.raises(NotTrustworthy, match=r"psql did not end within 0\.2 seconds"):
        server.run_psql("postgres", "SELECT pg_sleep(20);", timeout=0.2)


def test_databases_with_hostile_names(server: ScratchServer) -> None:
    name = "a \"b' c=\\d"
    server.create_database(name)
    server.create_database("copy_of_it", template=name)
    with server.connect(name) as connection:
        assert connection.info.dbname == name
    server.drop_database(name)
    server.drop_database("copy_of_it")
    with pytest.raises(psycopg.OperationalError):
        server.connect(name)


def test_directory_without_programs() -> None:
    with pytest.raises(NotTrustworthy, match="no program 'postgres' there; --pg-bin wants") as caught:
        ScratchServer(Path("/nonexistent")).start()
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_start_says_why(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlsaudit.source.server._SETTINGS", {"shared_buffers": "many"})
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    with pytest.raises(NotTrustworthy, match=r"did not start: .*shared_buffers"):
        ScratchServer().start()
    assert list(base.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its account")
def test_root_with_programs_that_nobody_can_reach() -> None:
    closed = Path(tempfile.mkdtemp(prefix="rt-closed-"))  # mode 0700, root's
    try:
        found = binaries.embedded_directory()
        package = found.parent.parent
        shutil.copytree(package, closed / package.name, symlinks=True)
        for libraries in package.parent.glob(f"{package.name}.libs"):
            shutil.copytree(libraries, closed / libraries.name, symlinks=True)
        with ScratchServer(closed / package.name / "pginstall" / "bin") as server:
            assert server.binary("postgres").is_relative_to(server.directory)
            assert server.run_psql("postgres", "SELECT 'here';", timeout=10)[1].count("here") == 1
    finally:
        shutil.rmtree(closed)


def test_a_forked_child_leaves_the_server_alone(server: ScratchServer) -> None:
    directory = server.directory
    server._owner -= 1
    try:
        server.stop()
    finally:
        server._owner += 1
    assert directory.is_dir()
    with server.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
