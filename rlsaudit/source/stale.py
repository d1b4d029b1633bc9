"""Directories of scratch servers whose owner was killed: told by a lock that only a living process holds."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import stat
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

PREFIX = "rlsaudit-"
LOCK = "lock"
_NAME = re.compile(re.escape(PREFIX) + r"[0-9a-f]{10}\Z")


def claim(directory: Path) -> int:
    """Lock ``directory`` for as long as this process lives; returns the descriptor to close.  Raises OSError."""
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    with suppress(OSError):  # a file system without locks: nobody else gets one there either
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def remove_stale(base: Path, owners: Set[int]) -> None:
    """Remove the directories in ``base`` that a killed run left behind, if one of ``owners`` (user ids) has them.

    What cannot be looked into, or has no lock yet because it is just being made, stays.
    """
    with suppress(OSError):
        for path in base.iterdir():
            if _NAME.match(path.name) and _abandoned(path, owners):
                shutil.rmtree(path, ignore_errors=True)


def _abandoned(path: Path, owners: Set[int]) -> bool:
    try:
        known = path.lstat()
        if not stat.S_ISDIR(known.st_mode) or known.st_uid not in owners or _answers(path):
            return False
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _answers(path: Path) -> bool:
    """Whether a server still listens there, as it may where it does not end with its owner."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(path / ".s.PGSQL.5432"))
        return True
    return False
