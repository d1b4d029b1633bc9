"""Child processes that never outlive us, and the signals that must not come between."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from rlsaudit.source.binaries import Account

_ORDERLY = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_PR_SET_PDEATHSIG = 1
_SPAWNING = threading.Lock()
"""What is set about warnings is the whole process's."""


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Hold SIGINT, SIGTERM and SIGHUP back until the block has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ORDERLY)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end(process: subprocess.Popen[bytes], *, grace: float) -> None:
    """Ask a child for immediate shutdown (SIGQUIT); after ``grace`` seconds kill it with all it started.

    Its group is signalled only while it has not been waited for, so the number cannot be another's by then.
    """
    if process.poll() is not None:
        return
    if grace:
        process.send_signal(signal.SIGQUIT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
            return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_other(data: Path) -> None:
    """End a server that somebody else has started in that data directory."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int((data / "postmaster.pid").read_text().split()[0])
        if Path(f"/proc/{pid}/cwd").readlink() == data.resolve():
            os.kill(pid, signal.SIGQUIT)


def last_line(text: str) -> str:
    """The last line of a program's output that says anything, for a one-line error."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")


def clean_environment(**extra: str) -> dict[str, str]:
    """An environment without PG* variables, locale or personal files; times are UTC."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": "/usr/bin:/bin", **kept, "LC_ALL": "C", "TZ": "UTC", "HOME": "/nonexistent", **extra}


def spawn(
    command: Sequence[str | Path],
    *,
    account: Account | None,
    environment: Mapping[str, str],
    cwd: Path,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = subprocess.STDOUT,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own that ends with us; standard error joins the output.

    Its own session keeps Ctrl-C of the terminal away from it.  Raises OSError.
    """
    with _SPAWNING, warnings.catch_warnings():
        # Python 3.12 warns of preexec_fn beside threads; ours makes one system call and touches no lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=_die_with_parent(),  # noqa: PLW1509
        )


def _die_with_parent() -> Callable[[], None]:
    """What the child runs before exec: unblock signals, and ask Linux for SIGQUIT when our thread ends.

    It must be asked for after the change of user, which clears it; Popen runs this last.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
    parent = os.getpid()

    def prepare() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(signal.SIGQUIT), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ORDERLY)

    return prepare
