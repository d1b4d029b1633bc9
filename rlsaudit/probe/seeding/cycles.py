"""Foreign keys in a circle that no NULL opens: all rows in one statement, which checks them at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.ground.statement_text import insert, text
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.probe.seeding.dictate import Filled
from rlsaudit.probe.seeding.lessons import Lessons, learn
from rlsaudit.probe.seeding.propose import Proposer
from rlsaudit.probe.seeding.writer import Refusal, Writer

_ATTEMPTS = 24


def insert_cycle(
    writer: Writer,
    proposer: Proposer,
    lessons: Mapping[int, Lessons],
    catalog: Catalog,
    group: tuple[Relation, ...],
    tenant: Tenant,
    serial: Callable[[], int],
) -> dict[int, Filled] | str:
    """Relation OID → its new row, or the server's last word."""
    error = ""
    for attempt in range(_ATTEMPTS if not any(lessons[one.oid].failed for one in group) else 2):
        rows = _propose(proposer, lessons, group, tenant, serial(), attempt)
        if isinstance(rows, str):
            return rows
        outcome = writer.run(_statement(group, rows), tenant, keep=True, way=lessons[group[0].oid].way)
        if not isinstance(outcome, Refusal):
            return _split(group, outcome[0]) if outcome else "a trigger or rule made nothing of the rows"
        error = outcome.message
        for relation in group:
            if not outcome.table or outcome.table == relation.name:
                learn(lessons[relation.oid], catalog, relation, set(), outcome, attempt)
    for relation in group:
        lessons[relation.oid].failed += 1
    return error


def _propose(
    proposer: Proposer,
    lessons: Mapping[int, Lessons],
    group: tuple[Relation, ...],
    tenant: Tenant,
    serial: int,
    attempt: int,
) -> dict[int, Filled] | str:
    """Rows that refer to each other: the first round promises nothing but NULLs, the next what the first proposed."""
    rows: dict[int, Filled] = {relation.oid: {} for relation in group}
    for _ in range(len(group) + 1):
        promised = {oid: dict(row) for oid, row in rows.items()}
        for relation in group:
            others = {oid: row for oid, row in promised.items() if oid != relation.oid}
            proposal = proposer.row(relation, tenant, serial, lessons[relation.oid], attempt, (), others)
            if proposal.missing:
                return proposal.missing
            rows[relation.oid] = proposal.row
    return rows


def _statement(group: tuple[Relation, ...], rows: Mapping[int, Filled]) -> str:
    parts, shown = [], []
    for number, relation in enumerate(group):
        label = sql.Identifier(f"rlsaudit {number}")
        returned = sql.SQL(", ").join(
            sql.SQL("{}::text AS {}").format(sql.Identifier(column.name), sql.Identifier(f"{number} {column.number}"))
            for column in relation.columns
        )
        parts.append(sql.SQL("{} AS ({} RETURNING {})").format(label, insert(relation, rows[relation.oid]), returned))
        shown.append(label)
    return text(sql.SQL("WITH {} SELECT * FROM {}").format(sql.SQL(", ").join(parts), sql.SQL(", ").join(shown)))


def _split(group: tuple[Relation, ...], record: tuple[object, ...]) -> dict[int, Filled]:
    found: dict[int, Filled] = {}
    at = 0
    for relation in group:
        cells = record[at : at + len(relation.columns)]
        at += len(relation.columns)
        names = (column.name for column in relation.columns)
        found[relation.oid] = {
            named: None if cell is None else str(cell) for named, cell in zip(names, cells, strict=True)
        }
    return found
