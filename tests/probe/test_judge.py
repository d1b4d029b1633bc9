"""The state of a cell: nothing that tested nothing may pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsaudit.catalog.cluster import Role, Schema, Server
from rlsaudit.catalog.grants import Grant
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS, Policy, Relation
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.finding import Cell
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak, Tried, Visit
from rlsaudit.probe.ground.world import Tenant, World
from rlsaudit.probe.judging import judge
from rlsaudit.tenancy.model import ApplicationRole, Classified, Tenancy

OWNER, APP, TABLE = 10, 20, 100
DENIED = 'new row violates row-level security policy for table "t"'
NO_GRANT = "permission denied for table u"


def arena(*, kind="tenant", policies=("ALL",), granted=COMMANDS, relation="table", failures=None) -> Arena:
    roles = tuple(
        Role(oid, name, False, True, False, False, True, False, False) for oid, name in ((OWNER, "o"), (APP, "app"))
    )
    catalog = Catalog(
        Server("18", 180000, "1", "d", "postgres", True, True, False, ""),
        roles=roles,
        schemas=(Schema(1, "s", OWNER),),
        relations=(Relation(TABLE, "s", "t", relation, OWNER, rls_enabled=True),),
        policies=tuple(Policy(n, f"p{n}", TABLE, command, True, (0,), "true", None, None, None) for n, command in enumerate(policies)),
        grants=(
            Grant("schema", 1, 0, APP, "USAGE", False),
            *(Grant("relation", TABLE, 0, APP, command, False) for command in granted),
        ),
    )  # fmt: skip
    tenancy = Tenancy({TABLE: Classified(TABLE, kind, "why", "tenant_id" if kind == "tenant" else None)})
    world = World((Tenant("A", "1", "u"), Tenant("B", "11", "v")), {}, {}, failures=failures or {})
    return Arena(catalog, tenancy, visibility_of(catalog), world)


def judged(command: str, tried: Tried | None, *, sensitive: bool = False, leak: bool = False, **given_: object) -> Cell:
    place = arena(**given_)  # type: ignore[arg-type]
    key = (TABLE, "app", command)
    leaks = (Leak("read", TABLE, command, "app", "1", "11", "rows", (Visit(("x",)),), ()),) if leak else ()
    found = judge.cells(
        place,
        (ApplicationRole(APP, "app", ""),),
        {key: tried} if tried else {},  # type: ignore[dict-item]
        {key} if sensitive else set(),  # type: ignore[arg-type]
        leaks,
    )
    return next(cell for cell in found if cell.command == command)


ROWS = {("SELECT", "A"): (("x",),)}
CASES = [
    ("SELECT", None, {"granted": ()}, "no privilege", ""),
    ("SELECT", None, {"granted": ("INSERT",)}, "no privilege", ""),
    ("SELECT", Tried(3, alive=True), {"leak": True, "sensitive": True}, "leak", "read"),
    ("SELECT", None, {}, "not covered", "nothing could be tried"),
    ("UPDATE", None, {"failures": {TABLE: "no row fits"}}, "not covered", "no row fits"),
    ("SELECT", Tried(3, alive=True), {"sensitive": True}, "held", "own rows reached"),
    ("UPDATE", Tried(3, alive=True), {"sensitive": True}, "held", "own rows reached"),
    ("SELECT", Tried(3, alive=True), {}, "not covered", "prove nothing"),
    ("SELECT", Tried(3, alive=True, seen_by={"A"}), {}, "not covered", "prove nothing"),
    ("SELECT", Tried(3, alive=True, seen_by={"A", "B"}), {}, "held", "each tenant sees its own"),
    ("UPDATE", Tried(3, alive=True), {}, "not covered", "prove nothing"),
    ("DELETE", Tried(3, alive=True), {}, "not covered", "prove nothing"),
    ("INSERT", Tried(3, alive=True), {}, "held", "forged ones refused"),
    ("SELECT", Tried(3, empty=True), {"sensitive": True}, "not covered", "no persona saw its own rows"),
    ("SELECT", Tried(3, empty=True), {}, "not covered", "context"),
    ("SELECT", Tried(3, outputs=ROWS), {"sensitive": True}, "held", ""),
    (
        "SELECT",
        Tried(3, error="infinite recursion detected in policy"),
        {"sensitive": True},
        "not covered",
        "recursion",
    ),
    ("SELECT", Tried(3, denied=NO_GRANT), {"sensitive": True}, "not covered", "permission denied"),
    (
        "UPDATE",
        Tried(3, error="infinite recursion detected in policy"),
        {"sensitive": True},
        "not covered",
        "recursion",
    ),
    ("UPDATE", Tried(3, denied=NO_GRANT), {"sensitive": True}, "not covered", "permission denied"),
    ("INSERT", Tried(3, denied=DENIED), {}, "held", "refused for own rows too"),
    ("INSERT", Tried(3, refused="a trigger says no"), {}, "not covered", "prove nothing"),
    ("INSERT", Tried(3, refused="a trigger says no"), {"sensitive": True}, "held", "a trigger says no"),
    ("UPDATE", Tried(3, empty=True), {"sensitive": True}, "held", "admit none"),
    ("UPDATE", Tried(3, empty=True), {}, "not covered", "no statement reached an own row"),
    ("DELETE", Tried(3, impossible="cannot delete from view"), {"relation": "view"}, "held", "not possible"),
    ("UPDATE", Tried(3, impossible="generated", error="infinite recursion"), {}, "not covered", "recursion"),
    ("UPDATE", Tried(3, impossible="generated", denied=NO_GRANT), {}, "not covered", "permission denied"),
    ("DELETE", Tried(3, empty=True), {"policies": ("SELECT",), "sensitive": True}, "held", "default deny"),
    ("DELETE", Tried(3, empty=True), {"policies": ("SELECT",)}, "not covered", "prove nothing"),
    ("SELECT", Tried(3, alive=True), {"kind": "unclassified", "sensitive": True}, "not covered", "unclassified"),
    ("SELECT", Tried(3), {"kind": "global"}, "not covered", "no row was there to be read"),
    ("SELECT", Tried(3), {"kind": "global", "failures": {TABLE: "no row fits"}}, "not covered", "no row fits"),
    ("SELECT", Tried(3, outputs=ROWS), {"kind": "global"}, "held", "no tenant's value came out"),
    ("SELECT", Tried(3), {"kind": "global", "policies": ()}, "held", "default deny"),
    ("UPDATE", Tried(3, empty=True), {"kind": "global"}, "not covered", "no row could be written"),
    ("UPDATE", Tried(3, alive=True), {"kind": "global"}, "held", "no tenant's row changed"),
    ("INSERT", Tried(3, denied=DENIED), {"kind": "infrastructure"}, "held", "refused"),
    ("INSERT", None, {"relation": "materialized view"}, "held", "takes no rows"),
]


@pytest.mark.parametrize(("command", "tried", "given_", "state", "word"), CASES, ids=range(len(CASES)))
def test_states(command, tried, given_, state, word) -> None:
    cell = judged(command, tried, **given_)
    assert (cell.state, word in cell.reason) == (state, True), cell


TEXTS = st.sampled_from(["", "some error"])
TRIED = st.builds(
    Tried,
    trials=st.integers(0, 3),
    alive=st.booleans(),
    denied=st.sampled_from(["", NO_GRANT, DENIED]),
    refused=TEXTS,
    error=TEXTS,
    impossible=TEXTS,
    empty=st.booleans(),
    outputs=st.sampled_from([{}, ROWS]),
    seen_by=st.sampled_from([set(), {"A"}, {"A", "B"}]),
)


@given(st.sampled_from(COMMANDS), TRIED, st.booleans())
def test_nothing_vacuous_is_held(command, tried, sensitive) -> None:
    cell = judged(command, tried, sensitive=sensitive)
    if cell.state != "held":
        assert cell.state == "not covered"
        assert cell.reason
        return
    assert tried.trials, "held without a single statement"
    refused_by_policy = tried.denied == DENIED and not tried.alive
    spoke = tried.alive or any(tried.outputs.values()) or refused_by_policy
    other = (
        not tried.alive and command != "SELECT" and (tried.impossible or (sensitive and (tried.refused or tried.empty)))
    )
    assert spoke or other
    if tried.alive and not sensitive and command in ("UPDATE", "DELETE"):
        pytest.fail("held although the same statements cross nowhere without row security")
    if command == "SELECT" and not tried.alive:
        assert sensitive


@given(st.sampled_from(COMMANDS), TRIED, st.booleans())
def test_a_leak_is_never_hidden(command, tried, sensitive) -> None:
    assert judged(command, tried, sensitive=sensitive, leak=True).state == "leak"
