"""Owners can switch row security off."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._powers import application, leave, owned_tables, reaches, tables

from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.finding import Severity


@check(
    "RLS202",
    title="An application role owns a tenant table",
    severity="high",
    rationale=(
        "An owner can drop policies and switch row security off, FORCE or not. Migrations need that; a session that"
        " acts for a tenant does not, and one SQL injection is enough. With FORCE the owner's queries are bound, so that"
        " only a statement that alters the table is left: reported as low."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-250"),
    examples=(
        Example(
            setup=SOUND,
            bad="ALTER TABLE invoices OWNER TO app, NO FORCE ROW LEVEL SECURITY;",
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
    visibility = subject.visibility
    for role in application(subject):
        reached = reaches(subject, role.oid)
        for oid, owned in owned_tables(subject).items():
            if oid not in reached:
                continue
            owner = subject.catalog.role_name(oid)
            severity: Severity = "high"
            if oid == role.oid:
                how, fix = "owns", _give_away(subject, owned, role.name)
                # FORCE says that somebody thought of it: rows are safe from all but statements that alter the table.
                severity = "low" if all(one.rls_forced for one in owned) else "high"
            elif visibility.owns(role.oid, oid):
                how, fix = f"has the rights of {owner}, the owner of", leave(subject, role.oid, oid)
            else:
                how, fix = f"can SET ROLE {owner}, the owner of", leave(subject, role.oid, oid)
            yield Hit(
                owned[0].qualified,
                f"{role.name} {how} {tables(owned)}, so it can drop policies or switch row security off there.",
                fix,
                severity,
                relation=owned[0].qualified,
                role=role.name,
            )


def _give_away(subject: Subject, owned: list[Relation], role: str) -> str:
    """To the database's owner, or to a role made for it; the application keeps its row privileges."""
    owner = subject.catalog.server.database_owner
    known = subject.catalog.role_name(owner)
    lines = []
    if owner == 0 or known == role or any(known == other.name for other in subject.tenancy.roles):
        known = "schema_owner"
        lines.append(f"CREATE ROLE {known} NOLOGIN;")
    for relation in owned:
        lines.append(f"ALTER TABLE {relation.qualified} OWNER TO {quote(known)};")
        lines.append(f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {relation.qualified} TO {quote(role)};")
    return "\n".join(lines)
