"""What application roles can newly become, and which roles row security no longer binds.  Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rlsaudit.catalog.model import COMMANDS, Role
from rlsaudit.diff.change import Change
from rlsaudit.diff.objects import Side


def role_paths(base: Side, head: Side) -> Iterator[Change]:
    """New attributes and new memberships, each with what it opens."""
    application = {role.name for role in head.tenancy.roles}
    known = {role.name for role in base.tenancy.roles}
    for name in sorted(application - known if known else ()):
        detail = "Its cells are told with the relations."
        yield Change("new role path", "note", f"role {name}", "New application role", detail, roles=(name,))
    for name in sorted(known - application):
        title = "No longer an application role"
        yield Change("changed", "review", f"role {name}", title, "It is not tested any more.", roles=(name,))
    for role in head.catalog.roles:
        old = base.catalog.role_named(role.name)
        if old is None and role.name not in known | application:
            continue
        yield from _attributes(base, head, old, role, role.name in application)
        if role.name in application and old is not None:
            yield from _memberships(base, head, old, role)


def _attributes(base: Side, head: Side, old: Role | None, new: Role, application: bool) -> Iterator[Change]:
    for attribute, said in (("superuser", "SUPERUSER"), ("bypassrls", "BYPASSRLS")):
        if getattr(new, attribute) and not (old is not None and getattr(old, attribute)):
            detail = "Row security no longer binds it: every row of every tenant is within its reach."
            level = "dangerous" if application or new.login else "review"
            title = f"{said} given to a role"
            yield Change("new role path", level, f"role {new.name}", title, detail, roles=(new.name,))  # type: ignore[arg-type]


def _memberships(base: Side, head: Side, old: Role, new: Role) -> Iterator[Change]:
    def names(side: Side, oid: int) -> set[str]:
        reached = side.visibility.becomes(oid) | side.visibility.inherits(oid)
        return {side.catalog.role_name(one) for one in reached}

    for name in sorted(names(head, new.oid) - names(base, old.oid)):
        other = head.catalog.role_named(name)
        if other is None:
            continue
        free = _unbound(head, other)
        opens = (
            f"Row security does not bind {name} on {', '.join(free[:3])}{' and others' * (len(free) > 3)}."
            if free
            else ""
        )
        detail = (
            opens
            or f"It has what {name} has, or can become it; no tenant relation is open to {name} past its policies."
        )
        level = "dangerous" if free else "review"
        title = f"Member of {name}"
        yield Change("new role path", level, f"role {new.name}", title, detail, roles=(new.name, name))  # type: ignore[arg-type]


def _unbound(head: Side, role: Role) -> list[str]:
    """Tenant relations that the role may touch without row security."""
    relations = (head.catalog.relation(oid) for oid in head.tenancy.tenant_data())
    return [
        one.qualified
        for one in relations
        if one.holds_rows
        and head.visibility.exempt(role.oid, one) is not None
        and (role.superuser or any(head.visibility.may(role.oid, one, command) for command in COMMANDS))
    ]
