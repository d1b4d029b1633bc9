"""Partitions and inheritance children that can be named directly."""

from collections.abc import Iterator

from rlsaudit.checks._fixes import listed, revoke, said, several, users_of

from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.tenancy.model import ApplicationRole

Who = tuple[tuple[ApplicationRole, tuple[str, ...]], ...]

"""Children that a message names before it only counts them."""

_EVENTS = """\
CREATE ROLE app LOGIN;
CREATE TABLE events (tenant_id int NOT NULL, at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
ALTER TABLE events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON events USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
"""


@check(
    "RLS006",
    title="A partition or child table is open beside its parent",
    severity="critical",
    rationale=(
        "Policies of a parent hold for queries that name the parent. A query that names the partition or child is bound"
        " by the child's own policies only, and GRANT ... ON ALL TABLES or default privileges reach children too."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-284"),
    examples=(
        Example(
            setup=_EVENTS,
            bad="GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO app;",
            good="GRANT SELECT, INSERT ON events TO app;",
        ),
    ),
)
def child_without_rls(subject: Subject) -> Iterator[Hit]:
    found: dict[tuple[int, Who], list[Relation]] = {}
    for relation in subject.catalog.relations:
        if relation.rls_enabled or not relation.holds_rows or not subject.tenancy.of(relation.oid).tenant_data:
            continue
        parents = [subject.catalog.find_relation(oid) for oid in relation.parents]
        parent = next((p for p in parents if p is not None and subject.tenancy.of(p.oid).tenant_data), None)
        who = users_of(subject, relation)
        if parent is None or not who or subject.catalog.policies_of(relation.oid) or relation.rls_forced:
            continue
        found.setdefault((parent.oid, who), []).append(relation)
    for (oid, who), children in found.items():
        yield _hit(subject, subject.catalog.relation(oid), who, children)


def _hit(subject: Subject, parent: Relation, who: Who, children: list[Relation]) -> Hit:
    names = [child.qualified for child in children]
    more = len(children) > 1
    noun = ("partition" if children[0].is_partition else "child table") + ("s" if more else "")
    own = "without row security of their own" if more else "without row security of its own"
    return Hit(
        names[0],
        f"{said(who)} may name {several(names)} directly, {'' if more else 'a '}{noun} of {parent.qualified} {own}: the"
        " parent's policies do not apply and every tenant's rows are open.",
        "\n".join(revoke(subject, child, role.oid, commands) for child in children for role, commands in who),
        relation=parent.qualified,
        role=listed(role.name for role, _ in who),
    )
