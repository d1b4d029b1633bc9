"""Candidate values: the server takes them, and they tell tenants apart."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.relations import Column
from rlsaudit.probe.seeding import values
from rlsaudit.probe.seeding.shapes import from_patterns

TYPES = sorted(values._BY_TYPE)
SIZED = [
    "varchar(3)", "char(1)", "char(2)", "varchar(8)", "varchar(20)", "numeric(5,2)", "numeric(3,3)", "numeric(1,0)", "numeric(12)",
    "bit(4)", "varbit(2)", "time(0)", "timestamptz(3)", "text[]", "int[]", "uuid[]", "numeric(6,2)[]", "date[]", "jsonb[]",
]  # fmt: skip
FEW_VALUES = {
    "boolean",
    "bit",
    "bit varying",
    "regclass",
    "regrole",
    "time without time zone",
    "time with time zone",
    "money",
}
SERIALS = (1, 2, 27, 60, 251, 999, 5000, 70_000)


def _column(connection, type_name: str) -> Column | None:
    try:
        connection.execute(sql.SQL("CREATE TABLE v (c {})").format(sql.SQL(type_name)))
    except psycopg.errors.UndefinedObject:
        return None
    try:
        return load_catalog(connection).relations[0].columns[0]
    finally:
        connection.execute("DROP TABLE v")


def _accepted(connection, column: Column, value: str) -> bool:
    try:
        connection.execute(sql.SQL("SELECT {}::{}").format(sql.Literal(value), sql.SQL(column.type)))
    except psycopg.Error as error:
        assert error.sqlstate != "0A000" or "xml" in column.type, (column.type, error)
        return error.sqlstate == "0A000"  # a server that was built without XML
    return True


@pytest.mark.parametrize("type_name", [*TYPES, *SIZED])
def test_first_candidate_is_accepted(schema, type_name) -> None:
    loaded = schema("")
    with loaded.connect() as connection:
        column = _column(connection, type_name)
        if column is None:
            pytest.skip(f"no type {type_name} here")
        for tenant in range(4):
            for serial in SERIALS:
                proposed = values.candidates(column, tenant, serial)
                assert proposed, "no candidate at all"
                assert _accepted(connection, column, proposed[0]), proposed[0]


@pytest.mark.parametrize("type_name", [t for t in TYPES if t not in FEW_VALUES])
def test_tenants_get_values_of_their_own(type_name) -> None:
    column = Column(1, "c", type_name, 0, type_name, "S" if type_name == "citext" else "", True, None)
    first = [values.candidates(column, tenant, serial)[0] for tenant in range(3) for serial in (1, 2, 3)]
    assert len({*first}) > len(first) // 2
    assert not {*first[:3]} & {*first[3:6]}


def test_enum(schema) -> None:
    loaded = schema("CREATE TYPE e AS ENUM ('it''s', 'b'); CREATE TABLE t (e e);")
    (enum,) = loaded.catalog.relations[0].columns
    assert set(values.candidates(enum, 0, 1)) == {"it's", "b"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("((status)::text = ANY (ARRAY['open'::text, 'it''s'::text]))", {"open", "it's"}),
        ("((a >= 5) AND (a < 10.5))", {"5", "6", "4", "10.5"}),
        ("(x > '-3'::integer)", {"-3"}),
        ("(a1 = b2)", set()),
    ],
)
def test_constants_are_mined(expression, expected) -> None:
    assert set(values.mine(expression)) == expected


@given(st.text(max_size=60))
def test_mining_never_fails(text) -> None:
    assert all(isinstance(value, str) for value in values.mine(text))
    assert all(isinstance(value, str) for value in from_patterns(text))


@pytest.mark.parametrize(
    "pattern",
    ["^[A-Z]{2}-[0-9]{4}$", "^\\d{3}$", "^(a|b)+c?$", "^[[:alpha:]]{2}[[:digit:]_-]+$", "^[^@]+@[^@]+\\.[a-z]{2,}$"],
)
def test_matches_of_patterns_are_matches_on_the_server(schema, pattern) -> None:
    found = from_patterns(f"(x ~ '{pattern}'::text)")
    assert found
    with schema("").connect() as connection:
        for value in found:
            assert connection.execute("SELECT %s ~ %s", (value, pattern)).fetchone() == (True,), value


def test_pattern_that_python_cannot_read() -> None:
    assert from_patterns("(x ~ '[[:alpha:'::text)") == ()


def test_constants_that_a_column_cannot_hold_do_not_fit() -> None:
    stage = Column(1, "stage", "stage", 0, "stage", "E", True, None, enum_labels=("draft", "posted"))
    code = Column(2, "code", "character varying(3)", 0, "character varying", "S", True, None)
    assert values.fits(stage, "draft") and not values.fits(stage, "closed")
    assert values.fits(code, "PHP") and not values.fits(code, "before")
    assert values.fits(Column(3, "note", "text", 0, "text", "S", True, None), "x" * 500)
