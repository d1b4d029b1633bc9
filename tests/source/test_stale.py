"""What a killed run leaves in the temporary directory is gone at the next start, and nothing else is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlsaudit.source import stale
from rlsaudit.source.server import ScratchServer

PROGRAM = """
import time
from rlsaudit.source.server import ScratchServer
with ScratchServer() as server:
    print(server.directory, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
    path.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def started(base: Path) -> tuple[subprocess.Popen[str], Path]:
    environment = {**os.environ, "TMPDIR": str(base)}
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a server outlives a killed owner")
def test_the_directory_of_a_killed_run_is_removed_and_that_of_a_running_one_is_not(base: Path) -> None:
    killed, left = started(base)
    running, kept = started(base)
    killed.send_signal(signal.SIGKILL)
    with killed:
        killed.wait(10)
    try:
        deadline = time.monotonic() + 10
        while stale._answers(left) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left.is_dir(), "there is nothing to clean, so this test shows nothing"
        with ScratchServer() as server:
            assert not left.exists()
            assert kept.is_dir()
            assert server.directory.is_dir()
    finally:
        running.terminate()
        with running:
            running.wait(10)


def test_directories_of_others_stay(base: Path) -> None:
    for name in ("rlsaudit-report", "rlsaudit-0123456789", "rlsaudit-0123456789ab", "other-0123456789"):
        (base / name).mkdir()
    (base / "rlsaudit-0123456789ab" / stale.LOCK).touch()
    elsewhere = base / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / stale.LOCK).touch()
    (base / "rlsaudit-aaaaaaaaaa").symlink_to(elsewhere)
    before = sorted(base.iterdir())
    stale.remove_stale(base, {os.geteuid()})
    assert sorted(base.iterdir()) == before
    (base / "rlsaudit-0123456789" / stale.LOCK).touch()
    stale.remove_stale(base, {os.geteuid() + 1})
    assert sorted(base.iterdir()) == before
    stale.remove_stale(base, {os.geteuid()})
    assert not (base / "rlsaudit-0123456789").exists()
