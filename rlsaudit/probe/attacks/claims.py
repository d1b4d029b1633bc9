"""Context functions that believe their caller although the database knows who calls: a tenant's own login, or its user,
asks for another tenant's context.

Each program is tried in a superuser's transaction, as those of ``careless`` are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.routines import Function
from rlsaudit.probe.attacks.relation import target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.statement_text import acting, columns, insert, name, said
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.tenancy.members import memberships, names_login
from rlsaudit.tenancy.model import ApplicationRole, Persona

_TENANT = re.compile(r"(?<!:):tenant\b")
_USER = re.compile(r"(?<!:):user\b")


def claims(arena: Arena, role: ApplicationRole, shows: Callable[[Leak], bool]) -> Iterator[Leak]:
    """One leak for each context function; ``shows`` tries a program."""
    tenant, other = arena.world.tenants[:2]
    context, told = arena.tenancy.context, set[int]()
    for persona in (one for one in (*context.personas, *context.setters) if not (one.login or one.opening)):
        for function in _choosing(arena.catalog, persona):
            found = _as_login(arena, role, tenant)
            if found is None and function.security_definer:
                found = _as_user(arena, persona, tenant, other)
            for leak in _reads(arena, role, persona, function) if found is not None else ():
                if function.oid not in told and found is not None and shows(replace(leak, found=found)):
                    told.add(function.oid)
                    yield replace(leak, found=found)


def _choosing(catalog: Catalog, persona: Persona) -> Iterator[Function]:
    """Functions of the schema that the persona hands the tenant's key to."""
    for statement in persona.statements:
        for function in catalog.functions if _TENANT.search(statement) else ():
            called = rf'"?{re.escape(function.schema)}"?\."?{re.escape(function.name)}"?\('
            if function.extension is None and function.argument_types and re.search(called, statement):
                yield function


def _as_login(arena: Arena, role: ApplicationRole, tenant: Tenant) -> tuple[str, ...] | None:
    """Statements after which the application's login belongs to one tenant; None where no table says who does."""
    for relation, user, key in memberships(arena.catalog, arena.tenancy):
        if names_login(user):
            standing = next(iter(arena.world.of(relation.oid, tenant.key)), {})
            row = {**standing, user.name: role.name, key.name: tenant.key}
            emptied = said("DELETE FROM {}", name(relation))
            return emptied, said("{}", insert(relation, row))
    return None


def _as_user(arena: Arena, persona: Persona, tenant: Tenant, other: Tenant) -> tuple[str, ...] | None:
    """Nothing to be done first where another statement says which user acts, and a table whose user that is."""
    known = any(_USER.search(one) and not _TENANT.search(one) for one in persona.statements)
    for relation, user, _ in memberships(arena.catalog, arena.tenancy) if known else ():
        theirs = [row.get(user.name) for row in arena.world.of(relation.oid, other.key)]
        ours = [row.get(user.name) for row in arena.world.of(relation.oid, tenant.key)]
        if tenant.user in ours and tenant.user not in theirs:
            return ()
    return None


def _reads(arena: Arena, role: ApplicationRole, persona: Persona, function: Function) -> Iterator[Leak]:
    """Under one tenant's context, that of another, and then its rows."""
    tenant, other = arena.world.tenants[:2]
    for relation in arena.relations():
        on = target(arena.catalog, arena.tenancy, arena.visibility, role.oid, relation)
        marks = (m for m, at in arena.world.homes.items() if relation.oid in at and arena.world.marks[m] == other.key)
        mark = next((m for m in marks if m not in (other.key, other.user)), "")
        if mark and relation.rls_enabled and on.readable and arena.tenancy.of(relation.oid).tenant_data:
            read = said("SELECT {} FROM {}", columns(on.readable), name(relation))
            claimed = acting(persona, other.key, tenant.user)
            yield Leak(
                breaks="read", relation=relation.oid, command="EXECUTE", role=role.name, actor=tenant.key,
                owner=other.key, channel="rows", visits=(Visit((*claimed, read), commit=False),),
                context=acting(persona, tenant.key, tenant.user), mark=mark, persona=persona.name,
                function=function.oid, opened=f"the context that {function.signature} gives for a key not its own", severity="high",
            )  # fmt: skip
