"""Which roles a session can use or take, and how to end it."""

from __future__ import annotations

from collections.abc import Sequence

from rlsaudit.checks._fixes import several
from rlsaudit.checks._guarded import guarded

from rlsaudit.catalog.cluster import Role
from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Subject
from rlsaudit.tenancy.model import ApplicationRole

BOOTSTRAP = 10
"""OID of the superuser that initdb makes: whoever runs the server, or the audit of a file."""

FILES_AND_PROGRAMS = ("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files")


def role_object(name: str) -> str:
    return f"role {quote(name)}"


def application(subject: Subject) -> tuple[ApplicationRole, ...]:
    """The application roles that a superuser is not among: for those everything else is said by one finding."""
    return tuple(one for one in subject.tenancy.roles if not subject.catalog.role(one.oid).superuser)


def reaches(subject: Subject, role: int) -> frozenset[int]:
    """Roles whose rights a session of ``role`` has, or gets by SET ROLE; itself included."""
    return subject.visibility.inherits(role) | subject.visibility.becomes(role)


def grantees(subject: Subject, role: int) -> frozenset[int]:
    """Whom a grant must name for ``role`` to have it or get it by SET ROLE."""
    return reaches(subject, role) | {PUBLIC}


def how(subject: Subject, role: ApplicationRole, target: int) -> str:
    """``app``, ``app has the rights of x`` or ``app can SET ROLE x``: the start of a sentence about the target."""
    if role.oid == target:
        return role.name
    name = subject.catalog.role_name(target)
    if target in subject.visibility.inherits(role.oid):
        return f"{role.name}, with the rights of {name},"
    return f"{role.name}, after SET ROLE {name},"


def leave(subject: Subject, role: int, target: int) -> str:
    """Ends the memberships that lead from the role to the target; grant what the role needs of it before."""
    reachable = reaches(subject, role)
    members = {m.member for m in subject.catalog.memberships if m.role == target and m.member in reachable}
    name = quote(subject.catalog.role_name(target))
    return "\n".join(f"REVOKE {name} FROM {quote(subject.catalog.role_name(oid))};" for oid in sorted(members))


def owned_tables(subject: Subject) -> dict[int, list[Relation]]:
    """Relations with tenants' rows under row security, by owner."""
    found: dict[int, list[Relation]] = {}
    for relation in guarded(subject):
        found.setdefault(relation.owner, []).append(relation)
    return found


def past_policies(role: Role) -> str:
    """Why no policy binds the role anywhere: ``is a superuser``, ``has BYPASSRLS``; empty when policies do."""
    return "is a superuser" if role.superuser else "has BYPASSRLS" if role.bypassrls else ""


def tables(relations: Sequence[Relation]) -> str:
    return several(relation.qualified for relation in relations)
