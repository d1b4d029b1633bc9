"""CHECK constraints and domains, solved by the server: it filters candidates with the constraint's own expression."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import hypothesis
import psycopg
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from psycopg import sql

from rlsaudit.catalog.model import Column
from rlsaudit.probe import values
from rlsaudit.probe.statement_text import literal

_COMBINATIONS = 4000
_PATTERN = re.compile(r"~\s*'((?:[^']|'')+)'")

Connection = psycopg.Connection[tuple[object, ...]]


def satisfying(
    connection: Connection,
    linked: Sequence[Column],
    pools: Mapping[str, tuple[str | None, ...]],
    expressions: Iterable[str],
) -> dict[str, str | None]:
    """One combination of candidates for which every expression is not false, or an empty mapping.

    The expressions are the server's own text (``pg_get_expr``) with the columns' bare names.
    """
    if not linked:
        return {}
    width = max(2, int(_COMBINATIONS ** (1 / len(linked))))
    expressions = tuple(expressions)
    extra = tuple(v for e in expressions for v in (*from_patterns(e), *values.mine(e)))
    tables = []
    for column in linked:
        pool = pools[column.name]
        if len(pool) > 1:
            pool = tuple(dict.fromkeys((*extra, *pool)))
        accepted = _accepted(connection, column, pool[: width * 3])[:width]
        if not accepted:
            return {}
        listed = sql.SQL(", ").join(sql.SQL("({})").format(_typed(value, column)) for value in accepted)
        tables.append(
            sql.SQL("(VALUES {}) AS {}({})").format(listed, sql.Identifier(f"v{column.number}"), sql.Identifier(column.name))
        )
    passed = sql.SQL(" AND ").join(sql.SQL("COALESCE(({}), true)").format(sql.SQL(e)) for e in expressions)
    query = sql.SQL("SELECT {} FROM {} WHERE {} LIMIT 1").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column.name)) for column in linked),
        sql.SQL(" CROSS JOIN ").join(tables),
        passed,
    )
    try:
        with connection.transaction():
            record = connection.execute(query).fetchone()
    except psycopg.Error:
        return {}
    if record is None:
        return {}
    return {c.name: None if cell is None else str(cell) for c, cell in zip(linked, record, strict=True)}


def domain_values(connection: Connection, column: Column, tenant: int, serial: int) -> tuple[str, ...]:
    """Values that the domain accepts, from its constraints' patterns and constants and from the base type's candidates."""
    definitions = connection.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contypid = %s AND contype = 'c'", (column.type_oid,)
    ).fetchall()
    texts = [str(definition) for (definition,) in definitions]
    proposed = (
        *(v for text in texts for v in from_patterns(text)),
        *(v for text in texts for v in values.mine(text)),
        *values.candidates(column, tenant, serial),
    )
    return tuple(v for v in _accepted(connection, column, dict.fromkeys(proposed)) if v is not None)


def from_patterns(expression: str, count: int = 3) -> tuple[str, ...]:
    """Strings that match the regular expressions in ``expression``, by Hypothesis; nothing for a dialect it cannot read."""
    found: list[str] = []
    for pattern in _PATTERN.findall(expression):
        text = pattern.replace("''", "'")
        for length in range(1, 1 + 3 * count, 3):
            try:
                found.append(_example(text, length))
            except (HypothesisException, re.error):
                break
    return tuple(dict.fromkeys(found))


def _example(pattern: str, length: int) -> str:
    """The simplest printable match of at least ``length`` characters."""
    settings = hypothesis.settings(database=None, deadline=None, max_examples=50)
    return hypothesis.find(st.from_regex(pattern), lambda s: len(s) >= length and s.isprintable(), settings=settings)


def _accepted(connection: Connection, column: Column, pool: Iterable[str | None]) -> tuple[str | None, ...]:
    """Those of ``pool`` that the column's type takes as input."""
    accepted = []
    for value in pool:
        try:
            with connection.transaction():
                connection.execute(sql.SQL("SELECT {}").format(_typed(value, column)))
        except psycopg.Error:
            continue
        accepted.append(value)
    return tuple(accepted)


def _typed(value: str | None, column: Column) -> sql.Composed:
    # The type's name is the server's own format_type text, read under an empty search_path: qualified and quoted.
    return sql.SQL("{}::{}").format(literal(value), sql.SQL(column.type))
