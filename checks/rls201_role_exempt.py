"""Roles that no policy binds."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND

from rlsaudit.catalog.model import Role
from rlsaudit.check import Example, Hit, Subject, check, quote


@check(
    "RLS201",
    title="A role is exempt from row security",
    severity="critical",
    rationale=(
        "Superusers and roles with BYPASSRLS see every row whatever the policies say. The attributes are not inherited,"
        " but a member with the SET option takes them by SET ROLE. Others than the application's are listed to be known."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-250"),
    examples=(
        Example(setup=SOUND, bad="ALTER ROLE app BYPASSRLS;", good="CREATE ROLE backup LOGIN BYPASSRLS;"),
        Example(
            setup=SOUND,
            bad="CREATE ROLE support BYPASSRLS;\nGRANT support TO app;",
            good="CREATE ROLE support BYPASSRLS;\nCREATE ROLE person LOGIN;\nGRANT support TO person;",
        ),
    ),
)
def role_exempt(subject: Subject) -> Iterator[Hit]:
    catalog = subject.catalog
    application = {role.oid for role in subject.tenancy.roles}
    for oid in sorted(application):
        role = catalog.role(oid)
        if role.superuser or role.bypassrls:
            yield Hit(
                f"role {quote(role.name)}",
                f"The application role {role.name} {_is(role)}: no policy binds it.",
                _without(role),
                role=role.name,
            )
        if role.superuser:
            continue
        for target in sorted(subject.visibility.becomes(oid) - {oid}):
            other = catalog.role(target)
            if other.superuser or other.bypassrls:
                yield Hit(
                    f"role {quote(role.name)}",
                    f"The application role {role.name} can SET ROLE {other.name}, which {_is(other)}: one statement"
                    " takes it past every policy.",
                    _revoked(subject, oid, target),
                    role=role.name,
                    command=f"SET ROLE {quote(other.name)}",
                )
    for role in catalog.roles:
        if (role.superuser or role.bypassrls) and role.oid not in application and not role.predefined:
            login = "may log in" if role.login else "may not log in"
            yield Hit(
                f"role {quote(role.name)}",
                f"{role.name} {_is(role)} and {login}; no application role can become it unless another finding says so.",
                "",
                "info",
                role=role.name,
            )


def _is(role: Role) -> str:
    return "is a superuser" if role.superuser else "has BYPASSRLS"


def _without(role: Role) -> str:
    attributes = (["NOSUPERUSER"] if role.superuser else []) + (["NOBYPASSRLS"] if role.bypassrls else [])
    return f"ALTER ROLE {quote(role.name)} {' '.join(attributes)};"


def _revoked(subject: Subject, role: int, target: int) -> str:
    """Takes the target from every member that the role can be."""
    reachable = subject.visibility.becomes(role)
    members = {m.member for m in subject.catalog.memberships if m.role == target and m.set and m.member in reachable}
    name = quote(subject.catalog.role_name(target))
    return "\n".join(f"REVOKE {name} FROM {quote(subject.catalog.role_name(oid))};" for oid in sorted(members))
