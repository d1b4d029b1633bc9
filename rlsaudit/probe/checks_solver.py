"""CHECK constraints and domains, solved by the server: it filters candidates with the constraint's own expression."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

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
_POSIX_CLASS = re.compile(r"\[:(\w+):\]")
_POSIX = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "xdigit": "0-9a-fA-F",
    "word": "a-zA-Z0-9_",
    "space": " ",
    "blank": " ",
    "punct": "!-/:-@",
}

Connection = psycopg.Connection[tuple[object, ...]]


def satisfying(
    connection: Connection,
    linked: Sequence[Column],
    pools: Mapping[str, tuple[str | None, ...]],
    expressions: Iterable[str],
) -> list[dict[str, str | None]]:
    """Combinations of candidates for which no expression is false.

    The expressions are the server's own text (``pg_get_expr``) with the columns' bare names.
    """
    if not linked:
        return []
    width = max(2, int(_COMBINATIONS ** (1 / len(linked))))
    expressions = tuple(expressions)
    extra = tuple(v for e in expressions for v in (*from_patterns(e), *values.mine(e)))
    tables = []
    for column in linked:
        pool = pools[column.name]
        if len(pool) > 1:
            pool = tuple(dict.fromkeys((*pool[:8], *extra, *pool[8:])))
        accepted = _accepted(connection, column, pool[: width * 3])[:width]
        if not accepted:
            return []
        listed = sql.SQL(", ").join(sql.SQL("({})").format(_typed(value, column)) for value in accepted)
        tables.append(
            sql.SQL("(VALUES {}) AS {}({})").format(
                listed, sql.Identifier(f"v{column.number}"), sql.Identifier(column.name)
            )
        )
    passed = sql.SQL(" AND ").join(sql.SQL("COALESCE(({}), true)").format(sql.SQL(e)) for e in expressions)
    query = sql.SQL("SELECT {} FROM {} WHERE {} LIMIT 60").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column.name)) for column in linked),
        sql.SQL(" CROSS JOIN ").join(tables),
        passed,
    )
    try:
        with connection.transaction():
            records = connection.execute(query).fetchall()
    except psycopg.Error:
        return []
    return [
        {c.name: None if cell is None else str(cell) for c, cell in zip(linked, record, strict=True)}
        for record in records
    ]


def domain_values(connection: Connection, column: Column, tenant: int, serial: int) -> tuple[str, ...]:
    """Values that the domain accepts, from its constraints' patterns and constants and from the base type's candidates."""
    definitions = connection.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contypid = %s AND contype = 'c'",
        (column.type_oid,),
    ).fetchall()
    texts = [str(definition) for (definition,) in definitions]
    proposed = (
        *(v for text in texts for v in from_patterns(text)),
        *(v for text in texts for v in values.mine(text)),
        *values.candidates(column, tenant, serial),
    )
    return tuple(v for v in _accepted(connection, column, dict.fromkeys(proposed)) if v is not None)


def from_patterns(expression: str) -> tuple[str, ...]:
    """Strings that match the regular expressions in ``expression``; nothing for a dialect that Python cannot read."""
    return tuple(dict.fromkeys(v for found in _PATTERN.findall(expression) for v in _matches(found.replace("''", "'"))))


def _as_python(pattern: str) -> str:
    """Character classes such as ``[:alpha:]`` written out; Python does not know them."""
    return _POSIX_CLASS.sub(lambda found: _POSIX.get(found[1], found[0]), pattern)


@cache
def _matches(pattern: str) -> tuple[str, ...]:
    """Some printable matches, of different lengths, always the same ones."""
    found: list[str] = []

    @hypothesis.seed(0)
    @hypothesis.settings(
        max_examples=60,
        deadline=None,
        database=None,
        phases=(hypothesis.Phase.generate,),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.from_regex(_as_python(pattern)))
    def collect(text: str) -> None:
        # Python lets $ stand before a final newline, PostgreSQL does not.
        if text.isprintable() and text not in found:
            found.append(text)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", FutureWarning
            )  # what Python may read otherwise one day, it reads wrongly now
            collect()
    except (HypothesisException, re.error, FutureWarning):
        return ()
    plain = [text for text in found if text.isascii()] or found
    return tuple(plain[:12])


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
