"""Policies that do not ask whether a membership still counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlsaudit.checks._fixes import listed, several
from rlsaudit.checks._reading import Shape, Use, uses
from rlsaudit.checks._states import State, states
from rlsaudit.checks._trust import Trusted, trusted

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check, remark
from rlsaudit.tenancy import words

_MEMBERS = """\
CREATE ROLE app LOGIN;
CREATE FUNCTION me() RETURNS int LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('app.user_id', true), '')::int $$;
CREATE TABLE members (user_id int, org_id int, revoked_at timestamptz, PRIMARY KEY (user_id, org_id));
CREATE TABLE projects (id int PRIMARY KEY, org_id int NOT NULL, title text);
ALTER TABLE members ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE projects ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON members FOR SELECT USING (user_id = me());
GRANT SELECT ON members, projects TO app;
"""


@dataclass(frozen=True)
class _Ignored:
    use: Use
    trusted: Trusted
    states: tuple[State, ...]


@check(
    "RLS116",
    title="A policy does not ask whether a membership still counts",
    severity="medium",
    rationale=(
        "Where a membership is ended by a mark (revoked_at, status, active) and not by deleting its row, every policy"
        " that looks the membership up has to read the mark; one that does not lets former members in."
    ),
    standards=("SOC 2 CC6.2", "ISO 27001 A.5.18", "NIST 800-53 AC-2", "CWE-613"),
    examples=(
        Example(
            setup=_MEMBERS,
            bad=(
                "CREATE POLICY member ON projects\n"
                "  USING (org_id IN (SELECT m.org_id FROM members m WHERE m.user_id = me()));"
            ),
            good=(
                "CREATE POLICY member ON projects USING (org_id IN (\n"
                "  SELECT m.org_id FROM members m WHERE m.user_id = me() AND m.revoked_at IS NULL));"
            ),
        ),
        Example(
            setup=_MEMBERS,
            bad=(
                "CREATE FUNCTION my_orgs() RETURNS SETOF int LANGUAGE sql STABLE\n"
                "  AS $$ SELECT m.org_id FROM public.members m WHERE m.user_id = public.me() $$;\n"
                "CREATE POLICY member ON projects USING (org_id IN (SELECT my_orgs()));"
            ),
            good=(
                "ALTER POLICY own ON members USING (user_id = me() AND revoked_at IS NULL);\n"
                "CREATE FUNCTION my_orgs() RETURNS SETOF int LANGUAGE sql STABLE\n"
                "  AS $$ SELECT m.org_id FROM public.members m WHERE m.user_id = public.me() $$;\n"
                "CREATE POLICY member ON projects USING (org_id IN (SELECT my_orgs()));"
            ),
        ),
    ),
)
def membership_state_ignored(subject: Subject) -> Iterator[Hit]:
    found: dict[int, list[_Ignored]] = {}
    for one in _ignored(subject):
        found.setdefault(one.trusted.relation, []).append(one)
    for oid, ignored in found.items():
        yield _hit(subject, subject.catalog.relation(oid), ignored)


def _ignored(subject: Subject) -> Iterator[_Ignored]:
    seen: set[object] = set()
    quiet: set[Shape] = set()
    for use in uses(subject):
        if use.reading.shape in quiet or (use.policy.oid, use.reading) in seen:
            continue
        seen.add((use.policy.oid, use.reading))
        anchored = False
        for way, _ in use.reaches:
            conditions = [condition.atom for condition in way if condition.value is True]
            read = [one for atom in conditions for one in trusted(subject, atom)]
            anchored = anchored or any(one.anchors for one in read)
            for one in read:
                relation = subject.catalog.find_relation(one.relation)
                if relation is None or relation.oid == use.relation.oid or not relation.holds_rows:
                    continue
                if not one.anchors or _is_parent(subject, use, one):
                    continue
                marks = states(subject, relation, narrow=not _of_persons(subject, one))
                if not marks:
                    continue
                known = set[str]().union(*(t.links | t.tests | t.anchors for t in read if t.relation == one.relation))
                known |= _own_policies(subject, relation, use.role.oid, one)
                if not any(mark.column in known for mark in marks):
                    yield _Ignored(use, one, marks)
        if not anchored:
            quiet.add(use.reading.shape)


def _of_persons(subject: Subject, one: Trusted) -> bool:
    """Whether rows of the relation are looked up by the acting user."""
    principals = subject.tenancy.principal_columns.get(one.relation, ())
    return subject.tenancy.of(one.relation).kind == "membership" or any(
        name in principals or words.user_like(name) for name in one.anchors
    )


def _is_parent(subject: Subject, use: Use, one: Trusted) -> bool:
    """Whether the rows belong to those looked up, or to the same tenant: then the mark is about the parent's business."""
    if one.anchors <= {subject.tenancy.of(one.relation).key}:
        return True
    return any(
        constraint.kind == "foreign key" and constraint.referenced == one.relation
        for constraint in subject.catalog.constraints_of(use.relation.oid)
        if {c.name for n in constraint.columns if (c := use.relation.column_number(n))} & e.columns(use.predicate)
    )


def _own_policies(subject: Subject, relation: Relation, role: int, one: Trusted) -> set[str]:
    """Columns that the relation's own policies ask for, where they bind whoever reads it."""
    function = subject.catalog.function(one.function)
    reader = function.owner if function is not None and function.security_definer else role
    if subject.visibility.exempt(reader, relation) is not None:
        return set()
    found: set[str] = set()
    for policy in subject.visibility.policies(reader, relation, "SELECT"):
        predicate = policy_predicate(subject.catalog, policy, "using")
        found |= e.columns(predicate) if predicate is not None else set()
    return found


def _hit(subject: Subject, relation: Relation, ignored: list[_Ignored]) -> Hit:
    marks = ignored[0].states
    columns = listed(mark.column for mark in marks)
    functions = {one.trusted.function for one in ignored} - {0}
    through = [found.qualified for oid in sorted(functions) if (found := subject.catalog.function(oid))]
    where = several((one.use.relation.qualified for one in ignored), 12)
    how = f"{several(through)}, which policies of {where} call, looks" if through else f"Policies of {where} look"
    roles = {one.use.role.oid: one.use.role.name for one in ignored}
    names_only = all(one.use.classified.kind in ("registry", "principal") for one in ignored)
    bound = all(subject.visibility.exempt(role, relation) is None for role in roles) and not any(
        (found := subject.catalog.function(oid)) is not None and found.security_definer for oid in functions
    )
    condition = " AND ".join(mark.in_force for mark in marks)
    fix = f"CREATE POLICY in_force ON {relation.qualified} AS RESTRICTIVE FOR SELECT USING ({condition});"
    return Hit(
        relation.qualified,
        f"{how} {relation.qualified} up without asking for {columns}: whoever is marked there as no longer, or not yet,"
        " a member keeps access.",
        fix if bound else remark(f"add to {listed(through) or f'these policies of {where}'}: AND {condition}"),
        "low" if names_only else None,
        relation=relation.qualified,
        command=listed(one.use.command for one in ignored),
        role=listed(roles.values()),
    )
