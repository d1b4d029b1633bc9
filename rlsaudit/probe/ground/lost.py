"""Whether an error says that the server went away, rather than that it refused something."""

from __future__ import annotations

import psycopg

from rlsaudit.errors import ServerLost

_ENDED = frozenset({"57P01", "57P02", "57P03", "57P05"})
"""Shut down by an administrator or by a crash, not up yet, idle for too long."""


def lost(error: BaseException) -> str:
    """What was said when the connection was lost, in one line; empty when ``error`` is about something else."""
    one: BaseException | None = error
    while one is not None:
        if isinstance(one, ServerLost) or (isinstance(one, psycopg.OperationalError) and _ends(one.sqlstate)):
            return " ".join(str(one).split())
        one = one.__cause__ or one.__context__
    return ""


def _ends(sqlstate: str | None) -> bool:
    return sqlstate is None or sqlstate[:2] == "08" or sqlstate in _ENDED
