"""Shrinking a leak that takes several visits: they commit, so every trial starts from rows of its own in a database apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psycopg
from psycopg import sql

from rlsaudit.probe.ground.leak import Leak
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.ground.statement_text import name
from rlsaudit.probe.replay.script import SeedRow, Stage, put
from rlsaudit.probe.replay.shrink import minimal

Connection = psycopg.Connection[tuple[object, ...]]
_TRIALS = 40


def shrink_visits(
    connection: Connection, session: Session, stage: Stage, leak: Leak, rows: Sequence[SeedRow]
) -> tuple[SeedRow, ...]:
    """The fewest rows with which the leak still shows, as far as a bounded number of trials gets.

    ``connection`` is a superuser's and ``session`` the application role's, both in a database that may be written to.
    """
    trials = 0

    def fails(subset: Sequence[SeedRow]) -> bool:
        nonlocal trials
        trials += 1
        if trials > _TRIALS:
            return False
        session.close()  # its open transaction would keep the next rows waiting
        try:
            _reseed(connection, stage, rows, subset)
        except psycopg.Error:
            return False  # rows that cannot stand without those that were left out
        return shows(session, leak)

    try:
        return minimal(rows, fails) if fails(rows) else tuple(rows)
    finally:
        session.close()


def _reseed(connection: Connection, stage: Stage, rows: Sequence[SeedRow], subset: Sequence[SeedRow]) -> None:
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        for relation in {one.relation.oid: one.relation for one in rows}.values():
            connection.execute(sql.SQL("DELETE FROM {}").format(name(relation)))
        put(connection, stage, subset)


def shows(session: Session, leak: Leak) -> bool:
    """Whether the visits, one after another on one new connection, end in the leak's mark."""
    heard: list[str] = []
    for visit in leak.visits[:-1]:
        sent = session.run(["ROLLBACK", "BEGIN", *visit.statements, "COMMIT" if visit.commit else "ROLLBACK"])
        heard += [payload for _, payload in sent.heard]
        for after in visit.after:
            session.run([after])
    if leak.channel == "heard":
        return any(leak.mark in payload for payload in heard)
    last = (*leak.context, *leak.visits[-1].statements)
    transcript = session.transaction(last)
    if len(transcript.replies) < len(last):
        return False
    cells = (cell for row in transcript.replies[-1].rows for cell in row if cell is not None)
    matches: Callable[[str], bool] = (
        (lambda cell: cell == leak.mark) if leak.key_column else (lambda cell: leak.mark in cell)
    )
    return any(map(matches, cells))
