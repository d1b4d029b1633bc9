"""FORCE alone switches nothing on."""

from collections.abc import Iterator

from rlsaudit.checks._examples import ROLES
from rlsaudit.checks._fixes import protect, said, users_of

from rlsaudit.check import Example, Hit, Subject, check


@check(
    "RLS004",
    title="Row security is forced but not enabled",
    severity="critical",
    rationale=(
        "FORCE ROW LEVEL SECURITY only says that the owner is bound too. Without ENABLE ROW LEVEL SECURITY nobody is."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-284"),
    examples=(
        Example(
            setup=ROLES,
            bad="ALTER TABLE invoices FORCE ROW LEVEL SECURITY;",
            good="ALTER TABLE invoices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;",
        ),
    ),
)
def force_without_enable(subject: Subject) -> Iterator[Hit]:
    for relation in subject.catalog.relations:
        # With policies it is said already that they are not in force.
        if not relation.rls_forced or relation.rls_enabled or subject.catalog.policies_of(relation.oid):
            continue
        classified, who = subject.tenancy.of(relation.oid), users_of(subject, relation)
        reached = (
            f"{said(who)} {'reach' if len(who) > 1 else 'reaches'} every row"
            if who
            else "no application role holds a privilege on its rows"
        )
        yield Hit(
            relation.qualified,
            f"{relation.qualified} is marked FORCE ROW LEVEL SECURITY but row security is not enabled: {reached}.",
            protect(subject, relation, classified),
            "critical" if who and classified.tenant_data else "medium" if who else "info",
            relation=relation.qualified,
        )
