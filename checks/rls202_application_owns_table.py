"""Owners can switch row security off."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND

from rlsaudit.check import Example, Hit, Subject, check, quote


@check(
    "RLS202",
    title="An application role owns a tenant table",
    severity="high",
    rationale=(
        "An owner can drop policies and switch row security off, FORCE or not. Migrations need that; a session that"
        " acts for a tenant does not, and one SQL injection is enough."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-250"),
    examples=(
        Example(
            setup=SOUND,
            bad="ALTER TABLE invoices OWNER TO app;",
            good="ALTER TABLE invoices OWNER TO CURRENT_USER;",
        ),
        Example(
            setup=SOUND,
            bad="ALTER ROLE app NOINHERIT;\nGRANT keeper TO app;",
            good="CREATE ROLE reader;\nGRANT SELECT ON invoices TO reader;\nGRANT reader TO app;",
        ),
    ),
)
def application_owns_table(subject: Subject) -> Iterator[Hit]:
    catalog, visibility = subject.catalog, subject.visibility
    for role in subject.tenancy.roles:
        if catalog.role(role.oid).superuser:
            continue
        for oid in subject.tenancy.tenant_data():
            relation = catalog.relation(oid)
            if not relation.rls_enabled or relation.owner not in visibility.becomes(role.oid) | visibility.inherits(
                role.oid
            ):
                continue
            owner = catalog.role_name(relation.owner)
            if relation.owner == role.oid:
                how, fix = "owns", _give_away(subject, relation.qualified, role.name)
            elif visibility.owns(role.oid, relation.owner):
                how, fix = f"has the rights of {owner}, the owner of", _leave(subject, role.oid, relation.owner)
            else:
                how, fix = f"can SET ROLE {owner}, the owner of", _leave(subject, role.oid, relation.owner)
            yield Hit(
                relation.qualified,
                f"{role.name} {how} {relation.qualified}, so it can drop its policies or switch row security off.",
                fix,
                relation=relation.qualified,
                role=role.name,
            )


def _give_away(subject: Subject, table: str, role: str) -> str:
    """To the database's owner, or to a role made for it; the application keeps its row privileges."""
    owner = subject.catalog.server.database_owner
    known = subject.catalog.role_name(owner)
    lines = []
    if owner == 0 or known == role or any(known == other.name for other in subject.tenancy.roles):
        known = "schema_owner"
        lines.append(f"CREATE ROLE {known} NOLOGIN;")
    lines += [
        f"ALTER TABLE {table} OWNER TO {quote(known)};",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {table} TO {quote(role)};",
    ]
    return "\n".join(lines)


def _leave(subject: Subject, role: int, owner: int) -> str:
    """Ends the memberships that lead to the owner; grant the application what rows it needs before."""
    visibility = subject.visibility
    reachable = visibility.becomes(role) | visibility.inherits(role)
    members = {m.member for m in subject.catalog.memberships if m.role == owner and m.member in reachable}
    name = quote(subject.catalog.role_name(owner))
    return "\n".join(f"REVOKE {name} FROM {quote(subject.catalog.role_name(oid))};" for oid in sorted(members))
