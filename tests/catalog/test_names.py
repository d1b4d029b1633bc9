"""What a name without a schema may stand for in a function's body."""

from __future__ import annotations

import pytest

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.names import MANY, meant, schemas_of
from rlsaudit.catalog.policies import settings_read
from tests.catalog.conftest import Database

COPY = """
CREATE SCHEMA s{at};
CREATE TABLE s{at}.members (id int);
CREATE FUNCTION s{at}.tenant() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN current_setting('app.s{at}'); END $$;
"""
ASKING = (
    "CREATE FUNCTION {name}() RETURNS text LANGUAGE plpgsql {setting} AS $$ BEGIN {before} RETURN {called}(); END $$;"
)


def asking(
    database: Database, copies: int, name: str, *, setting: str = "", before: str = "", called: str, more: str = ""
) -> set[str]:
    """The settings that a function reads through those that it may call."""
    script = "".join(COPY.format(at=at) for at in range(copies)) + more
    with database(script + ASKING.format(name=name, setting=setting, before=before, called=called)) as connection:
        catalog = load_catalog(connection)
    function = next(one for one in catalog.functions if one.qualified == name)
    return set(settings_read(catalog, function.oid))


def every(copies: int) -> set[str]:
    return {f"app.s{at}" for at in range(copies)}


def test_any_of_a_few(database: Database) -> None:
    assert asking(database, 3, "s0.asking", called="tenant") == every(3)


def test_of_many_those_beside_a_function_that_was_copied_too(database: Database) -> None:
    others = "".join(ASKING.format(name=f"s{at}.asking", setting="", before="", called="now") for at in range(MANY + 1))
    others = others.replace("s4.asking", "s4.other")
    assert asking(database, MANY + 1, "s4.asking", called="tenant", more=others) == {"app.s4"}


def test_any_of_many_for_a_function_that_stands_alone(database: Database) -> None:
    assert asking(database, MANY + 1, "s4.asking", called="tenant") == every(MANY + 1)


def test_any_of_many_where_none_is_beside_it(database: Database) -> None:
    assert asking(database, MANY + 1, "public.asking", called="tenant") == every(MANY + 1)


@pytest.mark.parametrize(
    ("setting", "before", "called", "read"),
    [
        ("SET search_path = s1, s2", "", "tenant", {"app.s1", "app.s2"}),
        ("SET search_path = ''", "", "s1.tenant", {"app.s1"}),
        ("SET search_path = ''", "", '"s1" . "tenant"', {"app.s1"}),
        ("SET search_path = ''", "", "S1.Tenant", {"app.s1"}),
        ("SET search_path = ''", "", "tenant", every(MANY + 1)),
        ('SET search_path = "$user", s1', "", "tenant", every(MANY + 1)),
        ("SET search_path = s1", "PERFORM set_config('search_path', 's2', true);", "tenant", every(MANY + 1)),
        ("SET search_path = ''", "EXECUTE format('SELECT %I.tenant()', 's1');", "now", every(MANY + 1)),
    ],
)
def test_of_many_a_fixed_path_says_which(
    database: Database, setting: str, before: str, called: str, read: set[str]
) -> None:
    assert asking(database, MANY + 1, "public.asking", setting=setting, before=before, called=called) == read


def test_of_a_few_a_fixed_path_may_be_changed_by_what_is_called(database: Database) -> None:
    assert asking(database, 3, "public.asking", setting="SET search_path = s1", called="tenant") == every(3)


def test_relations_of_a_name(database: Database) -> None:
    script = "".join(COPY.format(at=at) for at in range(MANY + 1))
    with database(script) as connection:
        catalog: Catalog = load_catalog(connection)
    found = catalog.relations_named("members")
    assert {schema: [one.schema for one in same] for schema, same in found.items()} == {
        f"s{at}": [f"s{at}"] for at in range(MANY + 1)
    }
    function = next(one for one in catalog.functions if one.schema == "s7")
    assert [one.schema for one in meant(catalog, function, found)] == ["s7"]
    assert [one.schema for one in meant(catalog, function, found, "s1")] == ["s1"]
    assert not catalog.relations_named("nothing")


@pytest.mark.parametrize(
    ("value", "schemas"),
    [
        ("", ()),
        ('""', ()),
        ("public, PG_temp", ("public", "pg_temp")),
        ('"$user", "Odd ""one"""', ("$user", 'Odd "one"')),
    ],
)
def test_a_path_as_the_catalog_has_it(value: str, schemas: tuple[str, ...]) -> None:
    assert schemas_of(value) == schemas
