"""The work on one target: a process of its own that writes its report, with a time limit and another try.

Everything here can be pickled, so that any ``concurrent.futures.Executor`` may run it, on this machine or another.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from rlsaudit.fleet.targets import Target
from rlsaudit.source.dsn import apart, redact

_GRACE = 30.0
"""Seconds that a run has to write what it found, once it is told to end."""
_SAID = 2000
_NO_VERDICT = 3
_running: set[subprocess.Popen[bytes]] = set()
"""The runs that are under way in this process."""
_ending = Event()
"""Set once they are told to end: nothing is begun or tried again."""


@dataclass(frozen=True, slots=True)
class Job:
    target: Target
    options: tuple[str, ...] = ()
    """More arguments for every target: ``--format …``."""
    stands: str = ""
    """Fingerprint of the catalog that an earlier, finished run saw; where it still stands, nothing is run again."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of one target."""

    name: str
    exit_code: int
    said: str
    """The last of what it wrote on standard error; passwords hidden."""
    seconds: float
    tries: int
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Relative name → content of its report directory."""
    unchanged: bool = False
    """The earlier run of the same catalog stands."""


def work(job: Job) -> Done:
    """Run the target, again after a run without a verdict, and gather its files."""
    begun = time.monotonic()
    target, done = job.target, None
    if job.stands and _fingerprint(target) == job.stands:
        return Done(target.name, 0, "", time.monotonic() - begun, 0, unchanged=True)
    for tried in range(1, target.retries + 2):
        with tempfile.TemporaryDirectory(prefix="rlsaudit-fleet-") as directory:
            arguments = [*target.arguments(), "--quiet", "--output-dir", f"{directory}/out", *job.options]
            code, said = _run(arguments, target)
            done = Done(
                target.name, code, said, time.monotonic() - begun, tried, directory_files(Path(directory) / "out")
            )
        if code in (0, 1, 2) or _ending.is_set():
            break
    assert done is not None
    return done


def _run(arguments: list[str], target: Target) -> tuple[int, str]:
    """(exit code, what it said); 3 when it was ended by the time limit or a signal."""
    source, secret = apart(target.source)
    command = [sys.executable, "-m", "rlsaudit", *(source if one == target.source else one for one in arguments)]
    environment = {**os.environ, "NO_COLOR": "1", "CI": "1"}
    environment |= {"PGPASSWORD": secret} if secret else {}
    environment |= {"PGSERVICEFILE": target.service_file} if target.service_file else {}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment,
        start_new_session=True,
    )  # fmt: skip
    _running.add(process)
    if _ending.is_set():  # told between two of them
        process.terminate()
    try:
        _, errors = process.communicate(timeout=target.time_limit)
    except subprocess.TimeoutExpired:
        return _NO_VERDICT, f"ended after its time limit of {target.time_limit:.0f} s; {_ended(process)}".rstrip("; ")
    finally:
        _running.discard(process)
    said = redact(errors.decode("utf-8", "replace"))[-_SAID:].strip()
    if process.returncode < 0:
        return _NO_VERDICT, f"ended by {signal.Signals(-process.returncode).name}; {said}"
    return process.returncode, said


def end_all() -> None:
    """Tell every run of this process to end; each then writes what it found, and no other one begins."""
    _ending.set()
    for process in tuple(_running):
        process.terminate()


def _ended(process: subprocess.Popen[bytes]) -> str:
    """End the process, first as Ctrl-C would, so that it writes what it found and takes its servers away."""
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        process.send_signal(number)
        try:
            _, errors = process.communicate(timeout=patience)
            return redact(errors.decode("utf-8", "replace"))[-_SAID:].strip()
        except subprocess.TimeoutExpired:
            continue
    return ""


def directory_files(directory: Path) -> dict[str, bytes]:
    """Relative name → content of every file below."""
    files = sorted(file for file in directory.rglob("*") if file.is_file())
    return {str(file.relative_to(directory)): file.read_bytes() for file in files}


def _fingerprint(target: Target) -> str:
    """sha256 of the catalog as it stands, or '' when it cannot be had."""
    from rlsaudit.catalog import snapshot  # noqa: PLC0415 - only who resumes needs it
    from rlsaudit.errors import RlsauditError  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="rlsaudit-fleet-") as directory:
        preset = ["--preset", target.preset] if target.preset else []
        arguments = ["snapshot", target.source, "--quiet", *preset, "--output", f"{directory}/snapshot.json"]
        code, _ = _run(arguments, target)
        if code:
            return ""
        try:
            return snapshot.fingerprint(snapshot.parse(Path(directory, "snapshot.json").read_text(encoding="utf-8")))
        except RlsauditError:
            return ""
