"""Ways past policies that are new: what roles can become or own, whom row security no longer binds, publications, event
triggers.  Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rlsaudit.catalog.cluster import Role
from rlsaudit.catalog.relations import COMMANDS
from rlsaudit.diff.change import Change
from rlsaudit.diff.objects import Changes, Side

_BOOTSTRAP = 10
"""OID of the role that initdb makes: whatever its name is, no change made it."""


def role_paths(base: Side, head: Side, changes: Changes) -> Iterator[Change]:
    """New attributes, new memberships and new owners, each with what it opens."""
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
        if role.oid == _BOOTSTRAP or role.predefined:
            continue
        yield from _attributes(old, role, role.name in application)
        if role.name in application or role.login:
            yield from _memberships(base, head, old, role, role.name in application)
        if role.login and role.bypassrls and not role.superuser and role.name not in application and old is not None:
            yield from _granted(base, head, old, role, changes)
    yield from _owners(base, head, changes)
    yield from _beside(base, head)


def _beside(base: Side, head: Side) -> Iterator[Change]:
    """What moves rows, or acts, for whoever comes: publications of tenant data and event triggers."""

    def sent(side: Side) -> set[tuple[str, str]]:
        tenants = {oid: side.catalog.relation(oid).qualified for oid in side.tenancy.tenant_data()}
        return {
            (one.name, f"{tenants[oid]}{' where' if oid in one.filtered else ''}")
            for one in side.catalog.publications for oid in one.relations if oid in tenants
        }  # fmt: skip

    def fired(side: Side) -> set[tuple[str, str]]:
        functions = ((one, side.catalog.function(one.function)) for one in side.catalog.event_triggers)
        return {
            (one.name, f"{one.event} {sorted(one.tags)} {function.signature} {function.source}")
            for one, function in functions if function is not None and one.enabled != "disabled"
        }  # fmt: skip

    there, known = {one.name for one in base.catalog.publications}, {f"{name} where" for name in base.relations}
    more = {
        (name, what) for name, what in sent(head) - sent(base) if name not in there or what in {*base.relations, *known}
    }
    for name in sorted({name for name, _ in more}):
        detail = "It sends rows of tenants to whoever subscribes, whatever policies say."
        yield Change("new role path", "review", f"publication {name}", "Tenant data published", detail)
    for name in sorted({name for name, _ in fired(head) - fired(base)}):
        detail = "It runs when anybody changes the schema or logs in; no attack sees what it does then."
        yield Change("new role path", "review", f"event trigger {name}", "New or changed event trigger", detail)


def _attributes(old: Role | None, new: Role, application: bool) -> Iterator[Change]:
    for attribute, said in (("superuser", "SUPERUSER"), ("bypassrls", "BYPASSRLS")):
        held = old is not None and getattr(old, attribute)
        if getattr(new, attribute) and not (held and (old.login or not new.login)):  # type: ignore[union-attr]
            detail = "Row security does not bind it: every row of every tenant is within its reach."
            # Roles belong to a cluster: one that BASE does not have may be news of the cluster, and not of the schema.
            level = "dangerous" if application or (new.login and old is not None) else "review"
            title = f"{'LOGIN' if held else said} given to a role{f' with {said}' if held else ''}"
            yield Change("new role path", level, f"role {new.name}", title, detail, roles=(new.name,))  # type: ignore[arg-type]


def _memberships(base: Side, head: Side, old: Role | None, new: Role, application: bool) -> Iterator[Change]:
    def names(side: Side, oid: int) -> set[str]:
        reached = side.visibility.becomes(oid) | side.visibility.inherits(oid)
        return {side.catalog.role_name(one) for one in reached}

    if new.superuser:
        return  # what it can become it need not become
    for name in sorted(names(head, new.oid) - (names(base, old.oid) if old else {new.name})):
        other = head.catalog.role_named(name)
        if other is None:
            continue
        free = _unbound(head, other)
        if not free and not (application and old is not None):
            continue  # a new role's cells are told with the relations; what is no application's matters where it opens
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


def _granted(base: Side, head: Side, old: Role, new: Role, changes: Changes) -> Iterator[Change]:
    """Tenant relations of BASE that a role newly may touch, which row security does not bind."""
    before = {changes.named(name): one for name, one in base.relations.items()}
    for name, relation in head.relations.items():
        was = before.get(name)
        if was is None or not head.tenant_data(name):
            continue
        commands = [
            c
            for c in COMMANDS
            if head.visibility.may(new.oid, relation, c) and not base.visibility.may(old.oid, was, c)
        ]
        if commands:
            detail = "Row security does not bind it: BYPASSRLS."
            yield Change(
                "new role path", "review", name, "Privilege granted", detail, name, (new.name,), tuple(commands)
            )


def _owners(base: Side, head: Side, changes: Changes) -> Iterator[Change]:
    """Tenant relations that an application role newly owns, or whose owner row security no longer binds."""
    before = {changes.named(name): one for name, one in base.relations.items()}
    for name, new in head.relations.items():
        old = before.get(name)
        if old is None or not new.holds_rows or not head.tenancy.of(new.oid).tenant_data:
            continue
        owner = head.catalog.role_name(new.owner)
        for role in head.tenancy.roles:
            was = base.catalog.role_named(role.name)
            if head.visibility.owns(role.oid, new.owner) and not (was and base.visibility.owns(was.oid, old.owner)):
                detail = f"It has the rights of {owner}, the owner, and can drop policies or switch row security off."
                yield Change(
                    "new role path", "review", name, "Owned by an application role", detail, name, (role.name,)
                )
        if new.rls_enabled and old.rls_enabled and old.rls_forced and not new.rls_forced:
            detail = (
                f"Neither what {owner}, the owner, does itself nor its SECURITY DEFINER functions and views are bound."
            )
            title = "Row security no longer forced on the owner"
            yield Change("weakened", "review", name, title, detail, name, (owner,))


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
