"""Other statements that read and write the same rows: each takes a path of its own through the server.

MERGE, COPY, TABLESAMPLE, row locks, whole rows, system columns and ``RETURNING old`` and ``new`` are bound by the same
policies as plain commands, as long as the server has no defect and no rule or trigger stands in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.ground.statement_text import columns, literal, matching, name
from rlsaudit.probe.ground.world import Row

Shape = tuple[Literal["foreign", "blind"], sql.Composed]
_STORED = ("table", "partitioned table")
_SOURCE = sql.SQL("USING (VALUES (1)) AS given (x)")


def reads(relation: Relation, readable: tuple[str, ...], *, lockable: bool) -> Iterator[Shape]:
    """SELECTs that are no plain SELECT."""
    listed, from_ = columns(readable), name(relation)
    if len(readable) == len(relation.columns):
        yield "blind", sql.SQL("SELECT whole FROM {} AS whole").format(from_)
    if relation.kind in _STORED:
        yield "blind", sql.SQL("SELECT {}, ctid, xmin, tableoid FROM {}").format(listed, from_)
        yield "blind", sql.SQL("COPY {} ({}) TO STDOUT").format(from_, listed)
    if relation.kind in (*_STORED, "materialized view"):
        yield "blind", sql.SQL("SELECT {} FROM {} TABLESAMPLE BERNOULLI (100)").format(listed, from_)
    for lock in ("UPDATE", "KEY SHARE") if lockable else ():
        yield "blind", sql.SQL("SELECT {} FROM {} FOR {}").format(listed, from_, sql.SQL(lock))


def inserts(catalog: Catalog, relation: Relation, row: Row, readable: tuple[str, ...]) -> Iterator[Shape]:
    """A row of another tenant by MERGE and by INSERT … SELECT."""
    if not row:
        return
    values = sql.SQL(", ").join(literal(value) for value in row.values())
    if _merges(catalog, relation):
        yield (
            "foreign",
            sql.SQL("MERGE INTO {} AS t {} ON false WHEN NOT MATCHED THEN INSERT ({}) VALUES ({})").format(
                name(relation), _SOURCE, columns(row), values
            ),
        )
    if readable and catalog.server.version_num >= 180000:
        yield (
            "foreign",
            sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING new.{}").format(
                name(relation), columns(row), values, sql.Identifier(readable[0])
            ),
        )


def updates(
    catalog: Catalog, relation: Relation, column: str, value: str | None, readable: tuple[str, ...]
) -> Iterator[Shape]:
    """Every row changed by MERGE, by ONLY, and shown as it was."""
    change = sql.SQL("SET {} = {}").format(sql.Identifier(column), literal(value))
    if _merges(catalog, relation):
        yield (
            "blind",
            sql.SQL("MERGE INTO {} AS t {} ON true WHEN MATCHED THEN UPDATE {}").format(
                name(relation), _SOURCE, change
            ),
        )
    if catalog.children_of(relation.oid) and relation.kind == "table":
        yield "blind", sql.SQL("UPDATE ONLY {} {}").format(name(relation), change)
    if readable and catalog.server.version_num >= 180000:
        yield (
            "blind",
            sql.SQL("UPDATE {} {} RETURNING {}").format(name(relation), change, _both(readable)),
        )


def deletes(
    catalog: Catalog, relation: Relation, row: Row, key: tuple[str, ...], readable: tuple[str, ...]
) -> Iterator[Shape]:
    """Every row deleted by MERGE and by ONLY, and one row of another tenant shown as it was."""
    if _merges(catalog, relation):
        yield "blind", sql.SQL("MERGE INTO {} AS t {} ON true WHEN MATCHED THEN DELETE").format(name(relation), _SOURCE)
    if catalog.children_of(relation.oid) and relation.kind == "table":
        yield "blind", sql.SQL("DELETE FROM ONLY {}").format(name(relation))
    if readable and row and key and catalog.server.version_num >= 180000:
        here = matching(relation, row, key)
        yield (
            "foreign",
            sql.SQL("DELETE FROM {} WHERE {} RETURNING {}").format(name(relation), here, _both(readable[:4])),
        )


def _both(readable: tuple[str, ...]) -> sql.Composed:
    shown = [sql.Identifier(version, column) for version in ("old", "new") for column in readable]
    return sql.SQL(", ").join(shown)


def _merges(catalog: Catalog, relation: Relation) -> bool:
    """MERGE takes tables, since 17 also views; nothing that has rules."""
    views = ("view",) if catalog.server.version_num >= 170000 else ()
    return relation.kind in (*_STORED, *views) and not any(rule.relation == relation.oid for rule in catalog.rules)
