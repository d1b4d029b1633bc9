"""Running the SQL of a fix on a scratch copy, one statement at a time, all of it or nothing."""

from __future__ import annotations

from collections.abc import Collection

import psycopg

from rlsaudit.source.script import Session, Statement
from rlsaudit.source.splitter import split


def statements(script: str) -> tuple[str, ...]:
    """The statements of a fix, each ending in a semicolon; remarks that stand alone are left out."""
    found = (item.text for item in split(script, "fix", Session()) if isinstance(item, Statement))
    return tuple(f"{text.rstrip().rstrip(';')};" for text in found if text.strip().strip(";"))


def apply_fix(
    connection: psycopg.Connection[tuple[object, ...]], script: str, done: Collection[str]
) -> tuple[tuple[str, ...], str]:
    """Run what ``done`` does not hold yet, in one transaction; gives what was run and the server's error, or ''."""
    run = tuple(one for one in statements(script) if one not in done)
    try:
        with connection.transaction():
            for one in run:
                connection.execute(one.encode())
    except psycopg.Error as error:
        return (), " ".join(str(error).split())
    return run, ""
