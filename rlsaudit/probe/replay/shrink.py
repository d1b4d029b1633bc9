"""Shrinking a leak's world: which of the seeded rows does it take?  Delta debugging, judged by the server itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Self, TypeVar

import psycopg
from psycopg import sql

from rlsaudit.probe.attacks.sweep import PEEK
from rlsaudit.probe.ground.leak import Leak
from rlsaudit.probe.ground.statement_text import Copy, text
from rlsaudit.probe.ground.world import SHARED
from rlsaudit.probe.replay.script import SeedRow, Stage, fingerprint_query, gone_query, put
from rlsaudit.probe.replay.worlds import Outcome, as_found, outcomes

T = TypeVar("T")
Connection = psycopg.Connection[tuple[object, ...]]


def minimal(items: Sequence[T], still_fails: Callable[[Sequence[T]], bool]) -> tuple[T, ...]:
    """A subset that still fails and of which no single chunk can go (ddmin, Zeller 1999).  ``items`` itself must fail."""
    kept, chunk = list(items), max(1, len(items) // 2)
    while kept:
        start, removed = 0, False
        while start < len(kept):
            rest = kept[:start] + kept[start + chunk :]
            if still_fails(rest):
                kept, removed = rest, True
            else:
                start += chunk
        if chunk == 1 and not removed:
            break
        chunk = max(1, chunk // 2)
    return tuple(kept)


def still_leaks(connection: Connection, stage: Stage, leak: Leak, rows: Sequence[SeedRow]) -> bool:
    """Run the leak's last visit over ``rows`` in an unseeded copy, in one transaction that is rolled back."""
    with connection.transaction(force_rollback=True):
        put(connection, stage, rows, leak.found)
        return _attacked(connection, stage, leak)


class Trying:
    """Programs tried one after another over rows that are put in once for all that need the same."""

    def __init__(self, connection: Connection, stage: Stage, rows: Sequence[SeedRow]) -> None:
        self._connection, self._stage, self._rows = connection, stage, rows
        self._without: tuple[frozenset[int], frozenset[int], str] | None = None
        self._stands = False
        self._standing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._standing.close()

    def shows(self, leak: Leak) -> bool:
        """As ``shows``, over all rows but those of relations that the leak goes without."""
        if (leak.without, leak.vacated, leak.actor) != self._without:
            self._stand(leak)
        try:
            with self._connection.transaction(force_rollback=True):
                if self._stands and leak.found:
                    put(self._connection, self._stage, (), leak.found)
                return self._stands and _attacked(self._connection, self._stage, leak)
        except psycopg.Error:
            return False

    def _stand(self, leak: Leak) -> None:
        self._standing.close()
        self._without = (leak.without, leak.vacated, leak.actor)
        try:
            self._standing.enter_context(self._connection.transaction(force_rollback=True))
            put(
                self._connection,
                self._stage,
                [one for one in self._rows if not leak.goes_without(one.relation.oid, one.owner)],
            )
            self._stands = True
        except psycopg.Error:
            self._standing.close()
            self._stands = False


def _attacked(connection: Connection, stage: Stage, leak: Leak) -> bool:
    if "pg_stat" in leak.statement:
        connection.execute("ANALYZE")
    fingerprint = fingerprint_query(stage, leak) if leak.channel == "digest" else ""
    before = connection.execute(fingerprint).fetchone() if fingerprint else None
    role = text(sql.SQL("SET LOCAL SESSION AUTHORIZATION {}").format(sql.Identifier(leak.role)))
    prepare = (PEEK,) if "rlsaudit_peek" in leak.statement else ()
    try:
        for statement in (role, *prepare, *leak.context, *leak.leading):
            connection.execute(statement)
        seen = _run(connection, leak)
        if leak.channel == "gone":
            return connection.execute(gone_query(stage, leak)).fetchone() == (True,)
        if leak.escalates:
            connection.execute("SET LOCAL ROLE NONE")
        connection.execute("SET LOCAL SESSION AUTHORIZATION DEFAULT")
    except psycopg.Error as error:
        detail = "\n".join(
            filter(
                None,
                (
                    error.diag.message_primary,
                    error.diag.message_detail,
                    error.diag.message_hint,
                    error.diag.context,
                ),
            )
        )
        return leak.channel == "error" and leak.mark in detail
    if fingerprint:
        return connection.execute(fingerprint).fetchone() != before
    return any(cell == leak.mark if leak.key_column else leak.mark in cell for cell in seen)


def shows(connection: Connection, stage: Stage, leak: Leak, rows: Sequence[SeedRow]) -> bool:
    """The same, and False for rows that cannot stand by themselves."""
    try:
        return still_leaks(connection, stage, leak, rows)
    except psycopg.Error:
        return False


def _run(connection: Connection, leak: Leak) -> list[str]:
    """The last statement; what it shows."""
    if isinstance(leak.statement, Copy):
        with connection.cursor() as cursor, cursor.copy(leak.statement.encode()) as copying:
            copying.write(leak.statement.data)
        return []
    return _cells(connection.execute(leak.shown), leak)


def _cells(shown: psycopg.Cursor[tuple[object, ...]], leak: Leak) -> list[str]:
    """Cells of the result as text; only the key column's, when the leak shows in it."""
    names = [column.name for column in shown.description or ()]
    wanted = [n for n, name in enumerate(names) if leak.key_column in ("", name)]
    return [str(row[n]) for row in shown.fetchall() for n in wanted] if names else []


def shrink_worlds(
    connection: Connection, stage: Stage, leak: Leak, rows: Sequence[SeedRow], replaced: Sequence[SeedRow]
) -> tuple[tuple[SeedRow, ...], tuple[SeedRow, ...], tuple[SeedRow, ...]]:
    """Of an interference: the fewest rows for both worlds, for the first only, for the second only."""
    for some, others in ((stage.near(leak, rows), stage.near(leak, replaced)), (rows, replaced)):
        common, first, second = of_worlds(leak, some, others)
        whole = _seen(connection, stage, leak, common, first, second)
        if whole is not None and whole[0] != whole[1] and (some is rows or as_found(leak, *whole)):
            break
    else:
        return common, first, second
    ended = [one.sqlstate for one in whole]

    def fails(kept: Sequence[SeedRow], one: Sequence[SeedRow], other: Sequence[SeedRow]) -> bool:
        """Differs in the same way: which of two errors comes first hangs on the order in which constraints were made."""
        seen = _seen(connection, stage, leak, kept, one, other)
        return seen is not None and seen[0] != seen[1] and [each.sqlstate for each in seen] == ended

    if first and len(first) == len(second):  # the same rows in both worlds, in the same order, with other values
        pairs = minimal(
            tuple(zip(first, second, strict=True)),
            lambda subset: fails(common, [one for one, _ in subset], [other for _, other in subset]),
        )
        first, second = tuple(one for one, _ in pairs), tuple(other for _, other in pairs)
    elif not first:
        second = minimal(second, lambda subset: fails(common, first, subset))
    common = minimal(common, lambda subset: fails(subset, first, second))
    return common, first, second


def of_worlds(
    leak: Leak, rows: Sequence[SeedRow], replaced: Sequence[SeedRow]
) -> tuple[tuple[SeedRow, ...], tuple[SeedRow, ...], tuple[SeedRow, ...]]:
    """Rows for both worlds, for the first only, for the second only."""
    common = tuple(one for one in rows if one.owner in (leak.actor, SHARED))
    second = tuple(one for one in rows if one.owner not in (leak.actor, SHARED))
    first = tuple(one for one in replaced if one.owner not in (leak.actor, SHARED)) if leak.world == "replaced" else ()
    return common, first, second


def _seen(
    connection: Connection, stage: Stage, leak: Leak, common: Sequence[SeedRow], first: Sequence[SeedRow],
    second: Sequence[SeedRow],
) -> tuple[Outcome, Outcome] | None:  # fmt: skip
    """None where rows cannot stand without those that were left out."""
    try:
        return outcomes(connection, stage, leak, common, first, second)
    except psycopg.Error:
        return None


def shrink_rows(connection: Connection, stage: Stage, leak: Leak, rows: Sequence[SeedRow]) -> tuple[SeedRow, ...]:
    """The fewest rows with which ``leak`` still shows.

    A leak of several visits needs commits: its rows are those of the tenants that take part.  One without a context
    needs a connection that never had any, and keeps its rows where the schema insists on a context to store them.
    """
    candidates = tuple(one for one in rows if not leak.goes_without(one.relation.oid, one.owner))
    if len(leak.visits) > 1:
        return tuple(one for one in candidates if one.owner in (leak.owner, leak.actor, SHARED))
    if leak.channel == "notice" or (stage.guarded and not leak.actor):
        return candidates

    def fails(subset: Sequence[SeedRow]) -> bool:
        return shows(connection, stage, leak, subset)

    begun = next((some for some in (stage.near(leak, candidates), candidates) if fails(some)), None)
    return candidates if begun is None else minimal(begun, fails)
