"""UPDATE of a column that must be unique, without reading any: another value for every row.  Pure."""

from __future__ import annotations

from psycopg import sql

from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.ground.statement_text import name

_FRESH = {
    "text": "pg_catalog.md5(pg_catalog.random()::text)",
    "character varying": "pg_catalog.md5(pg_catalog.random()::text)",
    "citext": "pg_catalog.md5(pg_catalog.random()::text)",
    "uuid": "pg_catalog.gen_random_uuid()",
    "smallint": "(pg_catalog.random() * 30000)::pg_catalog.int2",
    "integer": "(pg_catalog.random() * 2000000000)::pg_catalog.int4",
    "bigint": "(pg_catalog.random() * 2000000000)::pg_catalog.int8",
    "numeric": "pg_catalog.random()::pg_catalog.numeric",
}


def with_fresh_values(relation: Relation, column: str) -> sql.Composed | None:
    """A constant would break the unique key for the second row, and reading the column asks the SELECT policies too."""
    found = relation.column(column)
    fresh = _FRESH.get(found.base_type.partition("(")[0].strip()) if found else None
    if fresh is None:
        return None
    return sql.SQL("UPDATE {} SET {} = {}").format(name(relation), sql.Identifier(column), sql.SQL(fresh))
