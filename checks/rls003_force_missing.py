"""Row security that does not bind the owner."""

from collections.abc import Iterator

from rlsaudit.checks._examples import POLICY, ROLES
from rlsaudit.checks._fixes import listed

from rlsaudit.check import Example, Hit, Subject, check


@check(
    "RLS003",
    title="Row security is not forced on the owner",
    severity="critical",
    rationale=(
        "Without FORCE ROW LEVEL SECURITY no policy binds the table's owner, nor any role that inherits from it. An"
        " application that connects as the owner, or can become it, sees every tenant's rows."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-6", "CWE-284"),
    examples=(
        Example(
            setup=ROLES + "ALTER TABLE invoices ENABLE ROW LEVEL SECURITY;\n" + POLICY,
            bad="GRANT keeper TO app;",
            good="ALTER TABLE invoices FORCE ROW LEVEL SECURITY;\nGRANT keeper TO app;",
        ),
    ),
)
def force_missing(subject: Subject) -> Iterator[Hit]:
    catalog, visibility = subject.catalog, subject.visibility
    for oid in subject.tenancy.tenant_data():
        relation = catalog.relation(oid)
        if not relation.rls_enabled or relation.rls_forced:
            continue
        owner = catalog.role_name(relation.owner)
        owning = [role.name for role in subject.tenancy.roles if visibility.owns(role.oid, relation.owner)]
        setting = [
            role.name
            for role in subject.tenancy.roles
            if role.name not in owning and relation.owner in visibility.becomes(role.oid)
        ]
        ways = []
        if owning:
            ways.append(f"{listed(owning)} has the owner's rights")
        if setting:
            ways.append(f"{listed(setting)} can SET ROLE {owner}")
        if ways:
            detail = f"{relation.qualified} belongs to {owner} and {' and '.join(ways)}: no policy binds it there."
        else:
            detail = (
                f"No policy binds {owner}, who owns {relation.qualified}; no application role can become it, but views"
                " and SECURITY DEFINER functions of that owner are not bound either."
            )
        yield Hit(
            relation.qualified,
            detail,
            f"ALTER TABLE {relation.qualified} FORCE ROW LEVEL SECURITY;",
            "critical" if ways else "info",
            relation=relation.qualified,
            role=listed((*owning, *setting)),
        )
