"""Roles that no policy binds."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import held, in_order, several
from rlsaudit.checks._powers import BOOTSTRAP, application, owned_tables, past_policies, role_object

from rlsaudit.catalog.cluster import Role
from rlsaudit.check import Example, Hit, Subject, check, quote


@check(
    "RLS201",
    title="A role is exempt from row security",
    severity="critical",
    rationale=(
        "Superusers and roles with BYPASSRLS see every row whatever the policies say. The attributes are not inherited,"
        " but a member with the SET option takes them by SET ROLE. A worker that logs in with BYPASSRLS and writes"
        " tenants' rows is one forgotten WHERE from mixing them; one that only reads, owns the tables or may not log in"
        " is listed to be known."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-250"),
    examples=(
        Example(setup=SOUND, bad="ALTER ROLE app BYPASSRLS;", good="CREATE ROLE backup LOGIN BYPASSRLS;"),
        Example(
            setup=SOUND,
            bad="CREATE ROLE support BYPASSRLS;\nGRANT support TO app;",
            good="CREATE ROLE support BYPASSRLS;\nCREATE ROLE person LOGIN;\nGRANT support TO person;",
        ),
        Example(
            setup=SOUND,
            bad="CREATE ROLE worker LOGIN BYPASSRLS;\nGRANT SELECT, INSERT, UPDATE, DELETE ON invoices TO worker;",
            good="CREATE ROLE worker LOGIN BYPASSRLS;\nGRANT SELECT ON invoices TO worker;",
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE ROLE worker LOGIN SUPERUSER;\nGRANT SELECT ON invoices TO worker;\n"
                "CREATE POLICY work ON invoices FOR SELECT TO worker USING (tenant_id = current_setting('app.tenant_id', true)::int);"
            ),
            good="CREATE ROLE worker LOGIN SUPERUSER;\nGRANT SELECT ON invoices TO worker;",
        ),
    ),
)
def role_exempt(subject: Subject) -> Iterator[Hit]:
    catalog = subject.catalog
    for one in subject.tenancy.roles:
        role = catalog.role(one.oid)
        if why := past_policies(role):
            yield Hit(
                role_object(role.name),
                f"The application role {role.name} {why}: no policy binds it on any table.",
                _without(role),
                role=role.name,
            )
    for one in application(subject):
        for target in sorted(subject.visibility.becomes(one.oid) - {one.oid}):
            other = catalog.role(target)
            if why := past_policies(other):
                yield Hit(
                    role_object(one.name),
                    f"The application role {one.name} can SET ROLE {other.name}, which {why}: one statement takes it"
                    " past every policy.",
                    _revoked(subject, one.oid, target),
                    role=one.name,
                    command=f"SET ROLE {quote(other.name)}",
                )
    yield from _others(subject)


def _others(subject: Subject) -> Iterator[Hit]:
    """Exempt roles that are not the application's."""
    application_roles = {role.oid for role in subject.tenancy.roles}
    owners = {subject.catalog.server.database_owner, *owned_tables(subject)}
    for role in subject.catalog.roles:
        why = past_policies(role)
        if not why or role.oid in application_roles or role.predefined or role.oid == BOOTSTRAP:
            continue
        if role.login and not role.superuser and role.oid not in owners and (hit := _worker(subject, role)):
            yield hit
            continue
        if (
            role.login
            and role.oid not in owners
            and any(role.oid in policy.roles for policy in subject.catalog.policies)
        ):
            yield Hit(
                role_object(role.name),
                f"{role.name} {why} and may log in, so the policies that are written for {role.name} do not bind it.",
                _without(role),
                "medium",
                role=role.name,
            )
            continue
        login = "may log in" if role.login else "may not log in"
        yield Hit(
            role_object(role.name),
            f"{role.name} {why} and {login}; no application role can become it unless another finding says so.",
            "",
            "info",
            role=role.name,
        )


def _worker(subject: Subject, role: Role) -> Hit | None:
    """A login with BYPASSRLS that is neither the application's nor an owner's, but handles tenants' rows."""
    used = [
        (relation, commands)
        for relations in owned_tables(subject).values()
        for relation in relations
        if (commands := held(subject, role.oid, relation))
    ]
    if not used:
        return None
    commands = in_order({command for _, held_there in used for command in held_there})
    writes = commands != ("SELECT",)
    touched = [(r, c) for r, c in used if not writes or c != ("SELECT",)]
    return Hit(
        role_object(role.name),
        f"{role.name} logs in with BYPASSRLS and holds {', '.join(commands)} on"
        f" {several(relation.qualified for relation, _ in touched)}: no policy stops a statement of it that forgets the"
        " tenant.",
        _without(role),
        "medium" if writes else "low",
        role=role.name,
    )


def _without(role: Role) -> str:
    attributes = (["NOSUPERUSER"] if role.superuser else []) + (["NOBYPASSRLS"] if role.bypassrls else [])
    return f"ALTER ROLE {quote(role.name)} {' '.join(attributes)};"


def _revoked(subject: Subject, role: int, target: int) -> str:
    """Takes the target from every member that the role can be."""
    reachable = subject.visibility.becomes(role)
    members = {m.member for m in subject.catalog.memberships if m.role == target and m.set and m.member in reachable}
    name = quote(subject.catalog.role_name(target))
    return "\n".join(f"REVOKE {name} FROM {quote(subject.catalog.role_name(oid))};" for oid in sorted(members))
