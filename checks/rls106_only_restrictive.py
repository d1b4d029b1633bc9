"""Restrictive policies with nothing to restrict."""

from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED, TENANT
from rlsaudit.checks._fixes import listed, policy_for, users_of

from rlsaudit.check import Example, Hit, Subject, check


@check(
    "RLS106",
    title="All policies are restrictive",
    severity="info",
    rationale=(
        "Restrictive policies only take away from what permissive ones admit. Without a permissive policy no row is"
        " admitted at all: safe, but hardly meant, and the next USING (true) opens the table."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3"),
    examples=(
        Example(
            setup=PROTECTED,
            bad=f"CREATE POLICY tenant ON invoices AS RESTRICTIVE USING ({TENANT});",
            good=f"CREATE POLICY tenant ON invoices AS PERMISSIVE USING ({TENANT});",
        ),
    ),
)
def only_restrictive(subject: Subject) -> Iterator[Hit]:
    for relation in subject.catalog.relations:
        policies = subject.catalog.policies_of(relation.oid)
        if not relation.rls_enabled or not policies or any(policy.permissive for policy in policies):
            continue
        who = users_of(subject, relation)
        whose = f"{listed(role.name for role, _ in who)} gets" if who else "everybody gets"
        yield Hit(
            relation.qualified,
            f"{relation.qualified} has only restrictive policies ({listed(policy.name for policy in policies)}):"
            f" {whose} no row.",
            policy_for(subject, relation, subject.tenancy.of(relation.oid)),
            relation=relation.qualified,
        )
