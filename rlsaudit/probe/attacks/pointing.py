"""The confused deputy in two statements: an own row that points at another tenant's, then whatever follows the pointer.

Foreign keys and columns that look like references are set to another tenant's value on an own row, and everything
that reads that relation is read: views, functions, and tables whose policies look the row up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from psycopg import sql

from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.attacks.calls import callable_, calls
from rlsaudit.probe.attacks.programs import Program, attempt
from rlsaudit.probe.attacks.relation import Target, pointing, target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak
from rlsaudit.probe.ground.ownership import primary_key
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.ground.statement_text import acting, columns, insert, literal, matching, name, text
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.tenancy.model import Persona

_CALLS = 3
_READERS = 16
"""How many relations and calls are read after one pointing write."""
_REFERENCE = re.compile(r"^(?P<thing>.+?)_?(id|uuid|key|ref|no)$", re.IGNORECASE)


def pointings(arena: Arena, session: Session, role: int, open_anyway: frozenset[int]) -> Iterator[Leak | None]:
    """One entry for each read that was tried; ``open_anyway`` needs no pointer."""
    tenant, other = arena.world.tenants[:2]
    for persona in arena.tenancy.context.personas[:2]:
        for relation in arena.relations():
            if not arena.tenancy.of(relation.oid).tenant_data:
                continue
            on = target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
            readers = tuple(_readers(arena, role, relation, tenant, other, open_anyway))[:_READERS]
            for write in _writes(arena, on, tenant, other) if readers else ():
                if not _accepted(arena, session, persona, tenant, write):
                    continue
                for place, command, function, statement in readers:
                    program = Program(place, command, (write,), statement, function=function)
                    yield attempt(arena, session, persona, tenant, program)


def _accepted(arena: Arena, session: Session, persona: Persona, tenant: Tenant, write: str) -> bool:
    context = acting(persona, tenant.key, tenant.user)
    transcript = session.transaction([*context, write, "SET CONSTRAINTS ALL IMMEDIATE"])
    replies = transcript.replies
    return not transcript.failed and len(replies) == len(context) + 2 and replies[len(context)].affected > 0


def _writes(arena: Arena, on: Target, tenant: Tenant, other: Tenant) -> Iterator[str]:
    """Own rows, one that stands and a new one, with columns that name something of ``other``."""
    named = [*pointing(on, arena.world, other), *_looking_alike(arena, on, other)]
    for values in {tuple(sorted(one.items(), key=str)): one for one in named}.values():
        changes = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(c), literal(v)) for c, v in values.items()
        )
        for own in arena.world.of(on.relation.oid, tenant.key)[:1]:
            if set(values) <= set(on.updatable) and on.key:
                here = matching(on.relation, own, on.key)
                yield text(sql.SQL("UPDATE {} SET {} WHERE {}").format(name(on.relation), changes, here))
            elif set(values) <= set(on.updatable):
                yield text(sql.SQL("UPDATE {} SET {}").format(name(on.relation), changes))
        for row in arena.world.spare.get((on.relation.oid, tenant.key), ())[:1] if on.insertable else ():
            given = {column: value for column, value in {**row, **values}.items() if column in on.insertable}
            if set(values) <= set(given):
                yield text(insert(on.relation, given))


def _looking_alike(arena: Arena, on: Target, other: Tenant) -> Iterator[Mapping[str, str | None]]:
    """Columns named after a relation without a foreign key to it, and those that hold a tenant key under another name."""
    key = on.relation.column(on.tenant_key) if on.tenant_key else None
    own = primary_key(arena.catalog, on.relation)
    for column in on.relation.columns:
        if column.name == on.tenant_key or column.name in own or column.generated:
            continue
        if key is not None and column.base_type == key.base_type and not column.enum_labels:
            yield {column.name: other.key}
        if reference := _REFERENCE.match(column.name):
            yield from _named(arena, column.name, column.base_type, reference["thing"].lower(), other)


def _named(arena: Arena, column: str, base_type: str, thing: str, other: Tenant) -> Iterator[Mapping[str, str | None]]:
    for relation in arena.relations():
        identity = [one for one in map(relation.column, primary_key(arena.catalog, relation)) if one is not None]
        if relation.name.lower() not in (thing, f"{thing}s", f"{thing}es", f"{thing[:-1]}ies"):
            continue
        for row in arena.world.of(relation.oid, other.key)[:1]:
            for one in identity:
                if one.base_type == base_type and one.name != arena.tenancy.of(relation.oid).key:
                    yield {column: row.get(one.name)}


def _readers(
    arena: Arena, role: int, relation: Relation, tenant: Tenant, other: Tenant, open_anyway: frozenset[int]
) -> Iterator[tuple[int, str, int, str]]:
    """(relation, command, function, statement) of what looks into ``relation``."""
    catalog = arena.catalog
    for reader in arena.relations():
        looks = {*catalog.mentions("relation", reader.oid, "relation")}
        for policy in catalog.policies_of(reader.oid):
            looks |= {*catalog.mentions("policy", policy.oid, "relation")}
            asked = (catalog.function(oid) for oid in catalog.mentions("policy", policy.oid, "function"))
            looks |= {relation.oid for one in asked if one is not None and _mentions(one.source, relation)}
        readable = (
            arena.visibility.columns(role, reader, "SELECT") if arena.visibility.may(role, reader, "SELECT") else ()
        )
        if relation.oid in looks and readable and reader.oid not in open_anyway:
            yield reader.oid, "SELECT", 0, text(sql.SQL("SELECT {} FROM {}").format(columns(readable), name(reader)))
    for function in catalog.functions:
        reads = relation.oid in catalog.mentions("function", function.oid, "relation") or _mentions(
            function.source, relation
        )
        if (
            reads
            and callable_(function)
            and function.oid not in open_anyway
            and arena.visibility.may_execute(role, function)
        ):
            for call in calls(arena, function, tenant, other, _CALLS):
                if other.key not in call:  # a call that names the other tenant is an attack of its own
                    yield 0, "EXECUTE", function.oid, call


def _mentions(source: str, relation: Relation) -> bool:
    return re.search(rf"\b{re.escape(relation.name)}\b", source, re.IGNORECASE) is not None
