"""A saved Catalog comes back equal, and anything else is refused in one line."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.snapshot import fingerprint, parse, save
from rlsaudit.errors import UsageError


@pytest.fixture(scope="module")
def catalog(nasty: psycopg.Connection[Any]) -> Catalog:
    return load_catalog(nasty)


def test_the_round_trip_is_exact(catalog: Catalog) -> None:
    text = save(catalog)
    again = parse(text)
    for field in fields(Catalog):
        assert getattr(again, field.name) == getattr(catalog, field.name), field.name
    assert again == catalog
    assert save(again) == text
    assert fingerprint(again) == fingerprint(catalog)


def test_every_field_of_the_catalog_is_in_the_test(catalog: Catalog) -> None:
    assert [field.name for field in fields(Catalog) if not getattr(catalog, field.name)] == []


def test_no_secret_is_saved(catalog: Catalog) -> None:
    assert "hunter2" not in save(catalog)


def test_two_loads_are_saved_alike_but_for_the_clock(nasty: psycopg.Connection[Any], catalog: Catalog) -> None:
    again = load_catalog(nasty)
    assert save(replace(again, server=catalog.server)) == save(catalog)
    assert fingerprint(again) == fingerprint(catalog)


SCHEMA = """
CREATE SCHEMA s;
CREATE TABLE s.t (id int PRIMARY KEY, tenant int NOT NULL, UNIQUE (tenant, id));
CREATE TYPE s.mood AS ENUM ('calm');
CREATE TABLE s.u (id int, mood s.mood, t int REFERENCES s.t ON DELETE CASCADE);
CREATE VIEW s.v AS SELECT * FROM s.t;
ALTER TABLE s.t ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON s.t USING (tenant = 1);
CREATE FUNCTION s.f(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT a + count(*)::int FROM s.t; END;
GRANT SELECT ON s.t TO PUBLIC;
"""


def test_the_fingerprint_is_of_the_schema_not_of_its_oids(database: Any) -> None:
    first = database(SCHEMA)
    second = database("CREATE TABLE other (a int); DROP TABLE other;" + SCHEMA)
    assert fingerprint(load_catalog(first)) == fingerprint(load_catalog(second))
    second.execute("INSERT INTO s.t VALUES (1, 1)")
    second.execute("ANALYZE")
    assert fingerprint(load_catalog(first)) == fingerprint(load_catalog(second))


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE s.t FORCE ROW LEVEL SECURITY",
        "ALTER POLICY p ON s.t USING (tenant = 2)",
        "ALTER POLICY p ON s.t RENAME TO q",
        "ALTER POLICY p ON s.t TO postgres",
        "REVOKE SELECT ON s.t FROM PUBLIC",
        "GRANT UPDATE (tenant) ON s.t TO PUBLIC",
        "ALTER TABLE s.t OWNER TO pg_monitor",
        "ALTER TABLE s.u ADD extra int",
        "ALTER VIEW s.v SET (security_invoker = on)",
        "ALTER FUNCTION s.f SECURITY DEFINER",
        "ALTER FUNCTION s.f RESET ALL; CREATE INDEX ON s.u (t)",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO PUBLIC",
        "ALTER TABLE s.u ALTER CONSTRAINT u_t_fkey DEFERRABLE",
        "CREATE RULE r AS ON INSERT TO s.u DO INSTEAD NOTHING",
    ],
)
def test_a_change_changes_the_fingerprint(database: Any, change: str) -> None:
    connection = database(SCHEMA)
    before = fingerprint(load_catalog(connection))
    connection.execute(change)
    assert fingerprint(load_catalog(connection)) != before


def document(**changes: Any) -> str:
    return json.dumps({"format": "rlsaudit-catalog", "version": 1, "catalog": {}} | changes)


SERVER = {
    "version": "18.0", "version_num": 180000, "system_identifier": "", "database": "d", "session_role": "r",
    "session_superuser": True, "session_bypassrls": True, "in_recovery": False, "clock": "",
}  # fmt: skip


def with_server(**changes: Any) -> str:
    return document(catalog={"server": SERVER} | changes)


DEPENDENCY = {"source_kind": "moon", "source": 1, "target_kind": "relation", "target": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 200_000, "not JSON"),
        ("[]", "not a catalog snapshot"),
        ('{"format": "other"}', "not a catalog snapshot"),
        (document(version=99), "format version 99"),
        (document(version=None), "format version None"),
        (document(), "at catalog: server is missing"),
        (document(catalog=None), "at catalog: an object expected, found null"),
        (with_server(server=SERVER | {"version_num": "18"}), r"catalog.server.version_num: int expected"),
        (with_server(server=SERVER | {"version_num": True}), r"version_num: int expected, found true"),
        (with_server(server=SERVER | {"extra": 1}), r"catalog.server: unknown field 'extra'"),
        (with_server(roles={}), r"catalog.roles: a list expected"),
        (with_server(schemas=[{"oid": 1}]), r"catalog.schemas\[0\]: name is missing"),
        (with_server(grants=[{"target": "moon"}]), r"catalog.grants\[0\]: column is missing"),
        (
            with_server(dependencies=[DEPENDENCY]),
            r"catalog.dependencies\[0\].source_kind: one of .* expected, found \"moon\"",
        ),
        (with_server(symbol_types={"x": {}}), r"symbol_types: a number as key expected"),
    ],
)
def test_anything_else_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_damaged_snapshot_never_raises_anything_but_usage_error(catalog: Catalog, data: st.DataObject) -> None:
    few = {f.name: getattr(catalog, f.name)[:2] for f in fields(Catalog) if isinstance(getattr(catalog, f.name), tuple)}
    small = replace(catalog, **few, symbol_functions={}, symbol_operators={})
    text = save(small)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    damaged = text[:start] + data.draw(st.text(max_size=5)) + text[end:]
    try:
        parse(damaged)
    except UsageError as error:
        assert "\n" not in str(error)


def test_a_snapshot_survives_a_file(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    path.write_text(save(catalog), encoding="utf-8")
    assert parse(path.read_text(encoding="utf-8")) == catalog
