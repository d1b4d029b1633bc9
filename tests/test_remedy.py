"""A leak carries the fix of the check that tells its cause, and of no other on the same table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlsaudit.finding import Cell, Finding, attacks, concerns
from rlsaudit.remedy import with_fix

LEAK = Finding(
    "PROBE-READ", "probe", "t", "critical", "public.t", "m", property="read", relation="public.t", command="SELECT",
    attack="SELECT * FROM t;",
)  # fmt: skip
POLICY = Finding(
    "RLS102",
    "check",
    "t",
    "critical",
    "policy p on public.t",
    "m",
    relation="public.t",
    command="SELECT and DELETE",
    fix="p",
)
RIGHTS = Finding(
    "RLS203", "check", "t", "high", "public.t", "m", relation="public.t", command="TRUNCATE and TRIGGER", fix="r"
)
KEY = Finding("RLS503", "check", "t", "low", "public.t", "t_x_fkey (x) may refer", relation="public.t", fix="k")
CONTEXT = Finding("RLS403", "check", "t", "critical", "public.set_tenant(text)", "m", fix="c")
OPEN = replace(POLICY, check="RLS103", object="policy q on public.t", fix="o")
OTHERS = replace(POLICY, object="policy r on public.t", role="reporting and batch", fix="x")
FUNCTION = replace(POLICY, check="RLS302", object="public.f()", command="", fix="f")
HITS = replace(POLICY, check="RLS313", object="public.hit()", relation="public.counters", command="", fix="h")
ALL = (HITS, RIGHTS, KEY, CONTEXT, POLICY, OPEN, OTHERS, FUNCTION)


@pytest.mark.parametrize(
    ("leak", "fix"),
    [
        (LEAK, "p\nx"),
        (replace(LEAK, role="app"), "p"),
        (replace(LEAK, role="batch"), "p\nx"),
        (replace(LEAK, property="closed", role="app"), "p\no"),
        (replace(LEAK, object="public.f()", command="EXECUTE"), "f"),
        (replace(LEAK, command="INSERT", property="forge"), ""),
        (replace(LEAK, object="public.u", relation="public.u"), ""),
        (replace(LEAK, attack="CREATE TRIGGER x;", command="INSERT"), "r"),
        (replace(LEAK, property="carryover", object="public.u"), "c"),
        (replace(LEAK, property="interference", message="tells through t_x_fkey of other tenants' rows"), "k"),
        (replace(LEAK, property="interference", message="tells through t_y_fkey of other tenants' rows"), ""),
        (replace(LEAK, property="alive"), ""),
        (replace(LEAK, property="write", relation="public.counters"), "h"),
        (replace(LEAK, fix="own"), "own"),
    ],
)
def test_the_cause_and_no_other(leak: Finding, fix: str) -> None:
    assert with_fix(leak, ALL).fix == fix
    assert with_fix(leak, ()).fix == leak.fix


def test_a_leak_that_was_carried_on_is_about_one_relation_and_attacked_through_another() -> None:
    """To waive it says nothing of what else may be reached through the relation that was attacked."""
    carried = replace(LEAK, property="write", command="INSERT", relation="public.counters")
    attacked = Cell("public.t", "app", "INSERT", "leak")
    assert attacks(carried, attacked) and not concerns(carried, attacked)
    at_stake = replace(attacked, relation="public.counters")
    assert attacks(carried, at_stake) and concerns(carried, at_stake)
