"""Ctrl-C and SIGTERM, remembered: an exception that a signal raises inside a callback of a C library is lost there.

While a run attacks, a signal ends it.  Once there is something to tell, a signal is only remembered: what was found is
written and what was made is taken away first.  One that comes again a second later, or after it, ends that too.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN = 1.0
"""Seconds within which a terminal and a parent process may both send what is one signal."""
_pending = 0
_since = 0.0
_closing = False
_within = False


def watch() -> None:
    """Handle SIGINT, SIGTERM and SIGHUP from now on: KeyboardInterrupt, as soon as may be."""
    signal.signal(signal.SIGINT, _arrived)
    signal.signal(signal.SIGTERM, _arrived)
    if hasattr(signal, "SIGHUP"):  # a terminal that is closed must not leave the scratch directory behind
        signal.signal(signal.SIGHUP, _arrived)


def check() -> None:
    """Raise again what was lost; long work calls this between its steps."""
    if _pending and not _closing:
        _raise()


def obey() -> None:
    """From now on a signal ends what is being done; one that has come already does so at once."""
    global _closing  # noqa: PLW0603 - signals belong to the process
    _closing = False
    check()


def remember() -> None:
    """From now on a signal is only remembered: there is something to write and to take away."""
    global _closing  # noqa: PLW0603 - signals belong to the process
    _closing = True


@contextmanager
def between_steps() -> Iterator[None]:
    """Within the block a signal is raised by the next ``check`` only, not in the midst of a library that may not bear it."""
    global _within  # noqa: PLW0603 - signals belong to the process
    before, _within = _within, True
    try:
        yield
    finally:
        _within = before
    check()


def ends(error: BaseException) -> bool:
    """Whether a signal ends the run: ``error`` is how it was told, or what failed because a statement was cut off."""
    return isinstance(error, KeyboardInterrupt) or bool(_pending)


def exit_code() -> int:
    """128 and the number of the signal that came, as shells have it; 0 when none did."""
    return 128 + _pending if _pending else 0


def _arrived(number: int, frame: FrameType | None) -> None:
    global _pending, _since  # noqa: PLW0603 - signals belong to the process
    again = bool(_pending) and time.monotonic() - _since >= _AGAIN
    _since = _since if _pending else time.monotonic()
    _pending = number
    if again or not (_closing or _within):
        _raise()


def _raise() -> None:
    # For SIGTERM as well: Hypothesis takes a SystemExit for a failure of the test, and runs it again.
    raise KeyboardInterrupt
