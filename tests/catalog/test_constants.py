"""Array constants in expression trees, decoded as the server prints them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.policies import policy_predicate

Database = Callable[..., Any]


@pytest.mark.parametrize(
    ("type_name", "written", "values"),
    [("text", '{a,"b c",NULL,"NULL",ü}', ["a", "b c", None, "NULL", "ü"]), ("text", '{"",x}', ["", "x"]),
     ("text", f"{{{'x' * 200},y}}", ["x" * 200, "y"]), ("varchar", "{a,b}", ["a", "b"]), ("name", "{ab,c}", ["ab", "c"]),
     ("smallint", "{3,-4,5}", ["3", "-4", "5"]), ("int", "{NULL,-2}", [None, "-2"]), ("bigint", "{1,-9000000000}", ["1", "-9000000000"]),
     ("boolean", "{t,f,NULL}", ["true", "false", None]),
     ("uuid", "{00000000-0000-0000-0000-00000000000a,NULL}", ["00000000-0000-0000-0000-00000000000a", None]),
     ("int", "{1,2,3,4,5,6,7,8,NULL,10}", ["1", "2", "3", "4", "5", "6", "7", "8", None, "10"])],
)  # fmt: skip
@pytest.mark.parametrize(("operator", "any_of"), [("= ANY", True), ("<> ALL", False)])
def test_elements(
    database: Database, type_name: str, written: str, values: list[str | None], operator: str, any_of: bool
) -> None:
    connection = database(f"CREATE TABLE t (k {type_name}); CREATE POLICY p ON t USING (k {operator} ('{written}'));")
    found = _predicate(connection)
    assert isinstance(found, e.InList)
    assert [one.value for one in found.items if isinstance(one, e.Constant)] == values
    assert found.any is any_of


@pytest.mark.parametrize("condition", ["k = ANY ('{}')", "k = ANY ('{{a},{b}}')", "k = ANY ('[2:3]={a,b}')"])
def test_what_is_no_plain_list_stays_a_whole(database: Database, condition: str) -> None:
    found = _predicate(database(f"CREATE TABLE t (k text); CREATE POLICY p ON t USING ({condition});"))
    assert isinstance(found, e.AnyArray)


def test_a_list_of_varchar_is_a_list(database: Database) -> None:
    found = _predicate(database("CREATE TABLE t (k varchar(5)); CREATE POLICY p ON t USING (k IN ('a', 'b'));"))
    assert isinstance(found, e.InList)
    assert [type(one) for one in found.items] == [e.Cast, e.Cast]


def _predicate(connection: Any) -> e.Expression | None:
    catalog = load_catalog(connection)
    return policy_predicate(catalog, catalog.policies[0], "using")
