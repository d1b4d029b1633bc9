"""Questions to the scratch server, asked for many values in one round trip: does a type take them, do CHECKs pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from rlsaudit.catalog.relations import Column

Connection = psycopg.Connection[tuple[object, ...]]

_HELPERS = """
CREATE OR REPLACE FUNCTION pg_temp.rlsaudit_accepted(kind text, given text[]) RETURNS TABLE (place integer, value text)
LANGUAGE plpgsql AS $helper$
BEGIN
  FOR number IN 1 .. pg_catalog.cardinality(given) LOOP
    BEGIN
      EXECUTE pg_catalog.format('SELECT (%L::%s)::text', given[number], kind) INTO value;
      place := number;
      RETURN NEXT;
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
END $helper$;
CREATE OR REPLACE FUNCTION pg_temp.rlsaudit_passing(rows text, test text, enough integer) RETURNS SETOF text[]
LANGUAGE plpgsql AS $helper$
DECLARE one text[]; passed boolean; found integer := 0;
BEGIN
  FOR one IN EXECUTE rows LOOP
    BEGIN
      EXECUTE test INTO passed USING one;
      IF passed THEN
        RETURN NEXT one;
        found := found + 1;
        EXIT WHEN found >= enough;
      END IF;
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
END $helper$
"""


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """What ``pg_type`` says of one type; OIDs are 0 where they do not apply."""

    oid: int
    name: str
    """As ``format_type`` prints it."""
    kind: str
    """``typtype``: b base, c composite, d domain, e enum, r range, m multirange."""
    category: str
    base: int
    """Of a domain: the type under it."""
    base_name: str
    """The same with its modifiers."""
    element: int
    """Of an array: the type of its elements."""
    subtype: int
    """Of a range: the type of its bounds; of a multirange: the range."""
    attributes: tuple[int, ...]
    """Of a composite type: the types of its columns."""
    attribute_names: tuple[str, ...]
    """The same as ``format_type`` prints them, with modifiers."""
    labels: tuple[str, ...]
    checks: tuple[str, ...]


_TYPES = """
SELECT t.oid::bigint, format_type(t.oid, NULL), t.typtype::text, t.typcategory::text,
  t.typbasetype::bigint, format_type(t.typbasetype, t.typtypmod),
  CASE WHEN t.typcategory = 'A' THEN t.typelem::bigint ELSE 0 END,
  COALESCE((SELECT r.rngsubtype::bigint FROM pg_range r WHERE r.rngtypid = t.oid),
           (SELECT r.rngtypid::bigint FROM pg_range r WHERE r.rngmultitypid = t.oid), 0),
  ARRAY(SELECT a.atttypid::bigint FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid
        AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  ARRAY(SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid
        AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
  ARRAY(SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c WHERE c.contypid = t.oid AND c.contype = 'c' ORDER BY c.oid)
FROM pg_type t WHERE t.oid = ANY (%s)
"""


def install(connection: Connection) -> None:
    """Create the helper functions, in the session's temporary schema."""
    connection.execute(_HELPERS.encode())


def accepted(connection: Connection, kind: str, given: Iterable[str]) -> dict[str, str]:
    """Those of ``given`` that the type takes as input → what it makes of them (a cast cuts what is too long).

    ``kind`` is the server's own ``format_type`` text, read under an empty search_path: qualified and quoted.
    """
    asked = list(dict.fromkeys(given))
    if not asked:
        return {}
    query = "SELECT place, value FROM pg_temp.rlsaudit_accepted(%s, %s)"
    found = connection.execute(query, (kind, asked)).fetchall()
    return {asked[int(str(place)) - 1]: str(value) for place, value in found}


def type_facts(connection: Connection, wanted: Iterable[int]) -> dict[int, TypeFacts]:
    """Facts of the types and of everything they are made of."""
    found: dict[int, TypeFacts] = {}
    queue = set(wanted)
    while queue:
        for row in connection.execute(_TYPES, (sorted(queue),)).fetchall():
            facts = TypeFacts(*(tuple(cell) if isinstance(cell, list) else cell for cell in row))  # type: ignore[arg-type]
            found[facts.oid] = facts
        below = {
            oid for facts in found.values() for oid in (facts.base, facts.element, facts.subtype, *facts.attributes)
        }
        queue = below - found.keys() - {0}
    return found


@dataclass(frozen=True, slots=True)
class Problem:
    """Which combinations of candidates make every expression other than false."""

    linked: Sequence[Column]
    """Columns to find values for."""
    pools: Mapping[str, tuple[str | None, ...]]
    """Their candidates, all of which the types take, the best first."""
    expressions: Sequence[str]
    """The server's own text, with the columns' bare names."""
    computed: Sequence[Column] = ()
    """Generated columns that the expressions name."""
    equals: Mapping[str, str] | None = None
    """Column → an expression over the others that it may have to equal."""


def solve(connection: Connection, problem: Problem, enough: int = 60) -> list[dict[str, str | None]]:
    """Combinations that pass, those made of the best candidates first."""
    names = [column.name for column in problem.linked]
    message = (
        f"SAVEPOINT rlsaudit_solve; {_query(problem, enough).as_string(connection)}; RELEASE SAVEPOINT rlsaudit_solve"
    )
    try:
        cursor = connection.execute(message.encode())
        cursor.nextset()
        records = cursor.fetchall()
    except psycopg.Error:
        if connection.closed:
            raise
        connection.execute(b"ROLLBACK TO SAVEPOINT rlsaudit_solve; RELEASE SAVEPOINT rlsaudit_solve")
        records = _one_by_one(connection, problem, enough)
    return [{n: None if cell is None else str(cell) for n, cell in zip(names, row, strict=True)} for row in records]


def _query(problem: Problem, enough: int) -> sql.Composed:
    columns = [sql.SQL("{}::text").format(sql.Identifier(column.name)) for column in problem.linked]
    rank = sql.SQL(" + ").join(sql.Identifier(f"rlsaudit rank {column.number}") for column in problem.linked)
    return sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT {}").format(
        sql.SQL(", ").join(columns), _tables(problem), _test(problem), rank, sql.Literal(enough)
    )


def _test(problem: Problem) -> sql.Composed:
    tests = (sql.SQL("COALESCE(({}), true)").format(sql.SQL(e)) for e in problem.expressions)
    return sql.SQL(" AND ").join(tests)


def _tables(problem: Problem) -> sql.Composed:
    """The cross join of the candidates, and beside them what has to be computed from a row."""
    equals = problem.equals or {}
    ordered = sorted(problem.linked, key=lambda column: column.name in equals)
    tables: list[sql.Composable] = []
    for column in ordered:
        listed = sql.Literal(list(problem.pools[column.name]))
        rows: sql.Composable = sql.SQL(
            "SELECT value::{}, rank FROM unnest({}::text[]) WITH ORDINALITY AS given (value, rank)"
        ).format(sql.SQL(column.type), listed)
        if column.name in equals:
            given = sql.SQL("SELECT ({})::{}, 0").format(sql.SQL(equals[column.name]), sql.SQL(column.type))
            rows = sql.SQL("{} UNION ALL {}").format(rows, given)
        tables.append(
            sql.SQL("LATERAL ({}) AS {} ({}, {})").format(
                rows,
                sql.Identifier(f"rlsaudit {column.number}"),
                sql.Identifier(column.name),
                sql.Identifier(f"rlsaudit rank {column.number}"),
            )
        )
    for column in problem.computed:
        tables.append(
            sql.SQL("LATERAL (SELECT {}) AS {} ({})").format(
                sql.SQL(column.default or "NULL"),
                sql.Identifier(f"rlsaudit {column.number}"),
                sql.Identifier(column.name),
            )
        )
    return sql.SQL(", ").join(tables)


def _one_by_one(connection: Connection, problem: Problem, enough: int) -> list[tuple[object, ...]]:
    """An expression raises for some combination: ask for each by itself."""
    plain = Problem(problem.linked, problem.pools, (), ())
    texts = [sql.SQL("{}::text").format(sql.Identifier(column.name)) for column in problem.linked]
    rank = sql.SQL(" + ").join(sql.Identifier(f"rlsaudit rank {column.number}") for column in problem.linked)
    rows = sql.SQL("SELECT ARRAY[{}] FROM {} ORDER BY {} LIMIT 1500").format(
        sql.SQL(", ").join(texts), _tables(plain), rank
    )
    given = sql.SQL(", ").join(
        sql.SQL("($1[{}])::{} AS {}").format(sql.Literal(number), sql.SQL(column.type), sql.Identifier(column.name))
        for number, column in enumerate(problem.linked, start=1)
    )
    source: sql.Composable = sql.SQL("(SELECT {}) AS rlsaudit_row").format(given)
    for column in problem.computed:
        source = sql.SQL("{}, LATERAL (SELECT {}) AS {} ({})").format(
            source,
            sql.SQL(column.default or "NULL"),
            sql.Identifier(f"rlsaudit {column.number}"),
            sql.Identifier(column.name),
        )
    test = sql.SQL("SELECT {} FROM {}").format(_test(problem), source)
    try:
        with connection.transaction():
            found = connection.execute(
                "SELECT * FROM pg_temp.rlsaudit_passing(%s, %s, %s)",
                (rows.as_string(connection), test.as_string(connection), enough),
            ).fetchall()
    except psycopg.Error:
        return []
    return [tuple(row) for (row,) in found if isinstance(row, list)]
