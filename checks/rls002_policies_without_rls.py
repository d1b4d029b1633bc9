"""Policies that are not in force."""

from collections.abc import Iterator

from rlsaudit.checks._examples import POLICY, ROLES
from rlsaudit.checks._fixes import listed, protect, said, users_of

from rlsaudit.check import Example, Hit, Subject, check


@check(
    "RLS002",
    title="Policies exist but row security is off",
    severity="critical",
    rationale=(
        "CREATE POLICY does nothing until ENABLE ROW LEVEL SECURITY. Whoever reads the schema sees policies and takes"
        " the table for protected, while every row is open."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-284"),
    examples=(
        Example(
            setup=ROLES + POLICY,
            bad="ALTER TABLE invoices DISABLE ROW LEVEL SECURITY;",
            good="ALTER TABLE invoices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;",
        ),
    ),
)
def policies_without_rls(subject: Subject) -> Iterator[Hit]:
    for relation in subject.catalog.relations:
        policies = subject.catalog.policies_of(relation.oid)
        if not policies or relation.rls_enabled:
            continue
        names = listed(policy.name for policy in policies)
        who = users_of(subject, relation)
        reached = (
            f"{said(who)} {'reach' if len(who) > 1 else 'reaches'} every row"
            if who
            else "no application role holds a privilege on its rows"
        )
        yield Hit(
            relation.qualified,
            f"{relation.qualified} has policies ({names}), but row security is off, so they bind nobody: {reached}.",
            protect(subject, relation, subject.tenancy.of(relation.oid)),
            "critical" if who and subject.tenancy.of(relation.oid).tenant_data else "medium" if who else "info",
            relation=relation.qualified,
        )
