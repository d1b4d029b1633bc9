"""Roles that can give themselves other roles."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import several
from rlsaudit.checks._powers import FILES_AND_PROGRAMS, application, owned_tables, past_policies, reaches, role_object

from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.tenancy.model import ApplicationRole


@check(
    "RLS204",
    title="An application role can grant itself other roles",
    severity="high",
    rationale=(
        "A member with the ADMIN option can grant the role to itself anew, with SET and INHERIT. Up to PostgreSQL 15"
        " CREATEROLE alone gives that for every role that is no superuser, pg_execute_server_program among them; from 16"
        " on it gives it for the roles that the holder administers and lets it make login roles that outlive an attack."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-269"),
    examples=(Example(setup=SOUND, bad="ALTER ROLE app CREATEROLE;", good="ALTER ROLE app CREATEDB;"),),
)
def role_grants_itself(subject: Subject) -> Iterator[Hit]:
    catalog = subject.catalog
    before_16 = catalog.server.major < 16
    for role in application(subject):
        makers = [oid for oid in sorted(reaches(subject, role.oid)) if catalog.role(oid).createrole]
        if makers:
            yield _createrole(subject, role, makers, before_16)
        if not (makers and before_16):
            yield from _administered(subject, role)


def _createrole(subject: Subject, role: ApplicationRole, makers: list[int], before_16: bool) -> Hit:
    names = [subject.catalog.role_name(oid) for oid in makers]
    holder = role.name if role.oid in makers else f"{role.name} can SET ROLE {names[0]}, which"
    if before_16:
        targets = [one.oid for one in subject.catalog.roles if not one.superuser]
        told = several(
            f"{subject.catalog.role_name(oid)}, which {why}" for oid, why in _dangerous(subject, role, targets)
        )
        detail = f"{holder} has CREATEROLE, so on this PostgreSQL it can GRANT itself any role but superusers: {told}."
    else:
        detail = (
            f"{holder} has CREATEROLE: it can make login roles that outlive its session, and grant the roles that it"
            " administers; up to PostgreSQL 15 it could grant itself any role that is no superuser."
        )
    fix = "\n".join(f"ALTER ROLE {quote(name)} NOCREATEROLE;" for name in names)
    return Hit(
        role_object(role.name), detail, fix, "high" if before_16 else "medium", role=role.name, command="CREATEROLE"
    )


def _administered(subject: Subject, role: ApplicationRole) -> Iterator[Hit]:
    """Roles that the session cannot take yet, but may grant to itself."""
    visibility, reached = subject.visibility, set(reaches(subject, role.oid))
    taken = visibility.becomes(role.oid)
    grown = True
    found: dict[int, int] = {}
    while grown:
        grown = False
        for one in subject.catalog.memberships:
            if one.admin and one.member in reached and one.role not in taken and one.role not in found:
                found[one.role] = one.member
                reached |= reaches(subject, one.role)
                grown = True
    for target, why in _dangerous(subject, role, list(found)):
        name, member = subject.catalog.role_name(target), subject.catalog.role_name(found[target])
        yield Hit(
            role_object(role.name),
            f"{role.name} has the ADMIN option for {name}, which {why}: it can GRANT {name} to itself WITH SET TRUE and"
            " take it.",
            f"REVOKE ADMIN OPTION FOR {quote(name)} FROM {quote(member)};",
            role=role.name,
            command=f"GRANT {quote(name)}",
        )


def _dangerous(subject: Subject, role: ApplicationRole, targets: list[int]) -> list[tuple[int, str]]:
    """Those of the targets that lead past row security, and why."""
    catalog, owned = subject.catalog, owned_tables(subject)
    found = []
    for target in targets:
        if target == role.oid:
            continue
        # Memberships of the target count for it too.
        whys = {}
        for oid in reaches(subject, target):
            one = catalog.role(oid)
            if (why := past_policies(one)) and oid in subject.visibility.becomes(target):
                whys[0] = why
            elif oid in owned:
                whys[1] = f"owns {owned[oid][0].qualified}"
            elif one.name in FILES_AND_PROGRAMS:
                whys[2] = "works on the server's files"
        if whys:
            found.append((target, whys[min(whys)]))
    return found
