"""Whether one set of policies admits rows that another, in another database, does not."""

from __future__ import annotations

import pytest

from rlsaudit.diff.compare import Looked, differences
from rlsaudit.diff.objects import Side, changes
from rlsaudit.diff.policies import Compared, Comparison
from rlsaudit.tenancy.infer import Declared, infer
from tests.prove.conftest import Load

TENANT = "NULLIF(current_setting('app.tenant', true), '')::integer"
TABLE = """
CREATE TABLE orgs (id integer PRIMARY KEY);
CREATE TABLE {name} (tenant_id integer NOT NULL REFERENCES orgs, id integer, open boolean, owner integer, note text,
    PRIMARY KEY (tenant_id, id));
ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;
DO $$BEGIN CREATE ROLE wider_app LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$;
GRANT SELECT, INSERT ON {name} TO wider_app;
GRANT SELECT ON orgs TO wider_app;
"""


def _side(load: Load, policies: str, before: str = "") -> Side:
    catalog = load(before + TABLE.format(name="docs") + policies)
    return Side(catalog, infer(catalog, Declared(keys=("tenant_id",), roles=("wider_app",))))


def _compared(base: Side, head: Side, command: str = "SELECT") -> Compared:
    found = Comparison(base, head, changes(base, head)).cells()
    return next(one for one in found if one.command == command and one.relation.startswith("public.d"))


def _policy(using: str, extra: str = "") -> str:
    return f"CREATE POLICY own ON docs USING ({using}) {extra};"


OWN = f"tenant_id = {TENANT}"
WIDER = [
    (OWN, f"{OWN} OR open"),
    (f"{OWN} AND owner = current_setting('app.user', true)::integer", OWN),
    (OWN, "true"),
    ("tenant_id IN (SELECT id FROM orgs WHERE false)", OWN),
    (OWN, f"CASE WHEN note = 'shared' THEN true ELSE {OWN} END"),
]
EQUAL = [
    (OWN, f"{TENANT} = tenant_id"),
    (OWN, f"{OWN} AND tenant_id IS NOT NULL"),
    (OWN, f"tenant_id = (SELECT {TENANT})"),
    (OWN, f"{OWN} OR (open AND {OWN})"),
    (OWN, f"CASE WHEN {TENANT} IS NULL THEN false ELSE {OWN} END"),
    (
        f"EXISTS (SELECT FROM orgs o WHERE o.id = docs.tenant_id AND o.id = {TENANT})",
        f"EXISTS (SELECT FROM orgs p WHERE p.id = {TENANT} AND p.id = docs.tenant_id)",
    ),
]


@pytest.mark.parametrize(("before", "after"), WIDER)
def test_a_wider_policy_is_found_with_a_row(load: Load, before: str, after: str) -> None:
    base, head = _side(load, _policy(before)), _side(load, _policy(after))
    found = _compared(base, head)
    assert (found.way, "row 1" in found.why) == ("wider", True)
    assert _compared(head, base).way == "narrower"


@pytest.mark.parametrize(("before", "after"), EQUAL)
def test_a_policy_that_is_only_written_otherwise_is_the_same(load: Load, before: str, after: str) -> None:
    base, head = _side(load, _policy(before)), _side(load, _policy(after))
    assert (_compared(base, head).way, _compared(head, base).way) == ("same", "same")


def test_columns_count_by_name(load: Load) -> None:
    """The same policy in two databases in which the numbers of the columns are not the same."""
    moved = "ALTER TABLE docs DROP COLUMN open; ALTER TABLE docs ADD COLUMN open boolean;"
    base, head = _side(load, _policy(f"{OWN} AND open")), _side(load, moved + _policy(f"open AND {OWN}"))
    assert _compared(base, head).way == "same"
    assert _compared(base, _side(load, moved + _policy(f"open OR {OWN}"))).way == "wider"


def test_new_rows_are_held_against_with_check(load: Load) -> None:
    base = _side(load, _policy(f"{OWN} OR open", f"WITH CHECK ({OWN})"))
    head = _side(load, _policy(f"{OWN} OR open"))
    assert (_compared(base, head, "INSERT").way, _compared(base, head, "SELECT").way) == ("wider", "same")


def test_a_restrictive_policy_taken_away_is_wider(load: Load) -> None:
    also = "CREATE POLICY only_open ON docs AS RESTRICTIVE USING (open);"
    base, head = _side(load, _policy(OWN) + also), _side(load, _policy(OWN))
    assert (_compared(base, head).way, _compared(head, base).way) == ("wider", "narrower")


FUNCTION = "CREATE FUNCTION allowed(integer) RETURNS boolean LANGUAGE plpgsql STABLE AS $$BEGIN {body} END$$;"
LOOP = "FOR i IN 1..3 LOOP IF i = $1 THEN RETURN true; END IF; END LOOP; RETURN {last};"


def test_what_cannot_be_decided_is_for_review(load: Load) -> None:
    before, after = (FUNCTION.format(body=LOOP.format(last=last)) for last in ("false", "$1 = 7"))
    base = _side(load, _policy(f"{OWN} AND allowed(id)"), before)
    head = _side(load, _policy(f"{OWN} AND allowed(id)"), after)
    assert _compared(base, head).way == "unknown"
    same = _side(load, _policy(f"allowed(id) AND {OWN}"), before)
    assert _compared(base, same).way == "same"
    told = differences(_looked(base), _looked(head), changes(base, head))
    assert {one.level for one in told if one.relation == "public.docs" and one.kind == "undecided"} == {"review"}


def test_policies_that_look_up_a_table_whose_policies_changed_are_not_called_the_same(load: Load) -> None:
    members = """CREATE TABLE members (tenant_id integer, user_id integer); GRANT SELECT ON members TO wider_app;
        ALTER TABLE members ENABLE ROW LEVEL SECURITY;
        CREATE POLICY see ON members USING ({see});"""
    looked_up = _policy("tenant_id IN (SELECT m.tenant_id FROM members m)")
    sides = [_side(load, members.format(see=see) + looked_up) for see in (f"user_id = {TENANT}", "true")]
    assert _compared(*sides).way == "unknown"


def test_a_role_that_row_security_no_longer_binds(load: Load) -> None:
    base, head = _side(load, _policy(OWN)), _side(load, _policy(OWN) + "ALTER TABLE docs DISABLE ROW LEVEL SECURITY;")
    assert _compared(base, head).way == "unbound"
    told = differences(_looked(base), _looked(head), changes(base, head))
    assert any(one.level == "dangerous" and one.title == "Row security no longer applies" for one in told)


def test_a_renamed_relation_is_the_same_one(load: Load) -> None:
    base = _side(load, _policy(OWN))
    head = _side(load, _policy(OWN) + "ALTER TABLE docs RENAME TO dossiers;")
    found = changes(base, head)
    assert found.renamed == {"public.docs": "public.dossiers"}
    assert not found.gone
    assert _compared(base, head).way == "same"


def test_an_index_changes_nothing_and_a_function_changes_what_calls_it(load: Load) -> None:
    body = FUNCTION.format(body="RETURN true;")
    base = _side(load, _policy(f"{OWN} AND allowed(id)"), body)
    index = _side(load, _policy(f"{OWN} AND allowed(id)") + "CREATE INDEX ON docs (id);", body)
    assert not changes(base, index).affected
    other = _side(load, _policy(f"{OWN} AND allowed(id)"), FUNCTION.format(body="RETURN $1 > 0;"))
    assert ("relation", "public.docs") in changes(base, other).affected
    assert ("relation", "public.orgs") not in changes(base, other).affected


def _looked(side: Side) -> Looked:
    from dataclasses import replace
    from datetime import UTC, datetime

    from rlsaudit.assemble import assemble
    from rlsaudit.pieces import Pieces
    from rlsaudit.prove.prove import prove

    pieces = Pieces(
        catalog=side.catalog, tenancy=side.tenancy, findings=(), proofs=(), probed=None, notes=(), source="x",
        command=(), configuration_hash="", seed=0, fail_on="medium", scratch_version="",
        started=datetime.now(UTC), seconds=0, phases=(),
    )  # fmt: skip
    pieces = replace(pieces, proofs=prove(side.catalog, side.tenancy, side.visibility))
    return Looked(side, assemble(pieces))
