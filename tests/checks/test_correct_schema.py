"""A correct schema of 17 relations gets no finding that anybody must act on, and a defect in it is not drowned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlsaudit.finding import at_least

CORRECT = (Path(__file__).parent.parent / "zoo" / "correct.sql").read_text()
ROLES = ("shop_app", "shop_report")


def loud(made: Any) -> list[tuple[str, str, str]]:
    return [(f.check, f.object, f.message) for f in made.findings() if at_least(f.severity, "medium")]


def test_nothing_to_act_on(schema: Callable[..., Any]) -> None:
    made = schema(CORRECT, ROLES)
    assert loud(made) == []


@pytest.mark.parametrize(
    ("defect", "check", "object_"),
    [
        ("ALTER TABLE shop.outbox DISABLE ROW LEVEL SECURITY", "RLS002", "shop.outbox"),
        ("DROP POLICY tenant ON shop.outbox;"
         "ALTER TABLE shop.outbox NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY", "RLS001", "shop.outbox"),
        ("ALTER POLICY tenant ON shop.users USING (tenant_id = shop.current_tenant() OR active)", "RLS102", "shop.users"),
        ("ALTER VIEW shop.sales RESET (security_invoker); ALTER VIEW shop.sales OWNER TO CURRENT_USER", "RLS301", "shop.sales"),
        ("GRANT TRUNCATE ON shop.orders TO shop_app", "RLS203", "shop.orders"),
    ],
)  # fmt: skip
def test_a_defect_in_it_stands_out(schema: Callable[..., Any], defect: str, check: str, object_: str) -> None:
    made = schema(CORRECT + defect, ROLES)
    found = loud(made)
    assert found and {name for name, _, _ in found} == {check}, found
    assert all(object_ in where or object_ in message for _, where, message in found)
