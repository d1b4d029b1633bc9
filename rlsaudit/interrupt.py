"""Ctrl-C and SIGTERM, remembered: an exception that a signal raises inside a callback of a C library is lost there."""

from __future__ import annotations

import signal
from types import FrameType

_pending = 0


def watch() -> None:
    """Handle SIGINT, SIGTERM and SIGHUP from now on: KeyboardInterrupt and SystemExit, as soon as may be."""
    signal.signal(signal.SIGINT, _arrived)
    signal.signal(signal.SIGTERM, _arrived)
    if hasattr(signal, "SIGHUP"):  # a terminal that is closed must not leave the scratch directory behind
        signal.signal(signal.SIGHUP, _arrived)


def check() -> None:
    """Raise again what was lost; long work calls this between its steps."""
    if _pending == signal.SIGINT:
        raise KeyboardInterrupt
    if _pending:
        raise SystemExit(128 + _pending)


def exit_code() -> int:
    """128 and the number of the signal that came, as shells have it; 0 when none did."""
    return 128 + _pending if _pending else 0


def _arrived(number: int, frame: FrameType | None) -> None:
    global _pending  # noqa: PLW0603 - signals belong to the process
    _pending = number
    check()
