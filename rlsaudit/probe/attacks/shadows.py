"""Objects that take the place of others: temporary tables found before real ones, functions replaced by their owner.

A function without a fixed search_path, or with one that does not name pg_temp last, finds a temporary table of the
caller's first: what it tells a policy is then whatever the caller put there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from psycopg import sql

from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.names import search_path
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.probe.attacks.calls import callable_, calls
from rlsaudit.probe.attacks.programs import Program
from rlsaudit.probe.attacks.relation import target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.statement_text import columns, literal, name, text
from rlsaudit.probe.ground.world import Row, Tenant

_PLACES = 12
"""Relations read, and calls made, behind one shadow."""


def shadows(arena: Arena, role: int, tenant: Tenant) -> Iterator[Program]:
    """Programs that put something of the role's own before what functions of the schema mean."""
    temporary = _may_make_temporary(arena, role)
    for function in arena.catalog.functions:
        if function.extension is not None or function.language not in ("sql", "plpgsql"):
            continue
        if temporary and function.body_tree is None and _finds_temporary_first(function):
            for relation in _named(arena, function):
                first = tuple(_made(arena, relation, tenant))
                way = f"CREATE TEMP TABLE {relation.name}, which {function.qualified} finds first"
                yield from _behind(arena, role, function, first, way, tenant) if first else ()
        if arena.visibility.owns(role, function.owner):
            way = f"CREATE OR REPLACE FUNCTION {function.qualified}, as its owner"
            for replaced in _replaced(arena, function, tenant):
                yield from _behind(arena, role, function, (replaced,), way, tenant)


def _may_make_temporary(arena: Arena, role: int) -> bool:
    held = arena.visibility.inherits(role) | {PUBLIC}
    return any(g.privilege == "TEMPORARY" and g.grantee in held for g in arena.catalog.grants_on("database"))


def _finds_temporary_first(function: Function) -> bool:
    path = search_path(function)
    return path is None or "pg_temp" not in path[-1:]


def _named(arena: Arena, function: Function) -> Iterator[Relation]:
    """Relations that the body names without their schema."""
    for relation in arena.catalog.relations:
        if relation.kind in ("table", "partitioned table", "view", "materialized view"):
            named = rf'\b(?:from|join|into|update|table)\s+(?:only\s+)?"?{re.escape(relation.name)}\b"?(?!\s*[.(])'
            if re.search(named, function.source, re.IGNORECASE):
                yield relation


def _made(arena: Arena, relation: Relation, tenant: Tenant) -> Iterator[str]:
    """The temporary table and rows that say of the acting user what holds for another tenant's, and of the own tenant too."""
    kept = [column for column in relation.columns if not column.generated]
    rows = list(_rows(arena, relation, tenant))
    if not rows:
        return
    table = sql.Identifier("pg_temp", relation.name)
    listed = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(c.name), sql.SQL(c.type)) for c in kept)
    yield text(sql.SQL("CREATE TEMP TABLE {} ({})").format(sql.Identifier(relation.name), listed))
    for row in rows:
        given = {c.name: row.get(c.name) for c in kept if c.name in row}
        values = sql.SQL(", ").join(literal(value) for value in given.values())
        yield text(sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(table, columns(given), values))
    yield text(sql.SQL("GRANT ALL ON {} TO PUBLIC").format(table))


def _rows(arena: Arena, relation: Relation, tenant: Tenant) -> Iterator[Mapping[str, str | None]]:
    key = arena.tenancy.of(relation.oid).key if not arena.tenancy.of(relation.oid).path else None
    mine: Row = dict.fromkeys(arena.tenancy.principal_columns.get(relation.oid, ()), tenant.user)
    other = arena.world.others(tenant)[0]
    own = arena.world.of(relation.oid, tenant.key) or arena.world.spare.get((relation.oid, tenant.key), ())
    for row in own[:2]:
        yield row
        if key is not None:
            yield {**row, key: other.key}
    for row in arena.world.of(relation.oid, other.key)[:2]:
        yield {**row, **mine}


def _replaced(arena: Arena, function: Function, tenant: Tenant) -> Iterator[str]:
    """The function as it stands, but for a body that says what another tenant's session would hear."""
    if function.kind != "function" or function.returns in ("trigger", "event_trigger", "record", "void"):
        return
    other = arena.world.others(tenant)[0]
    names = function.argument_names or ("",) * len(function.argument_types)
    if len(names) != len(function.argument_types):
        return
    given = ", ".join(
        text(sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(t))) if n else t
        for n, t in zip(names, function.argument_types, strict=True)
    )
    called = text(sql.Identifier(function.schema, function.name))
    returns = ("SETOF " if function.returns_set else "") + function.returns
    for said in ("true",) if function.returns == "boolean" else (other.key, other.user):
        body = text(literal(f"SELECT {text(literal(said))}::{function.returns}"))
        yield f"CREATE OR REPLACE FUNCTION {called}({given}) RETURNS {returns} LANGUAGE sql STABLE AS {body}"


def _behind(
    arena: Arena, role: int, function: Function, first: tuple[str, ...], way: str, tenant: Tenant
) -> Iterator[Program]:
    """What the function decides over: relations whose policies or views ask it, and its own result."""
    asking = {function.oid} | {
        other.oid
        for other in arena.catalog.functions
        if re.search(rf"\b{re.escape(function.name)}\s*\(", other.source) and other.extension is None
    }
    at = 0
    for relation in arena.relations():
        policies = arena.catalog.policies_of(relation.oid)
        asks = any(asking & {*arena.catalog.mentions("policy", policy.oid, "function")} for policy in policies)
        asks = asks or bool(asking & {*arena.catalog.mentions("relation", relation.oid, "function")})
        on = target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
        if asks and on.readable and at < _PLACES:
            at += 1
            statement = text(sql.SQL("SELECT {} FROM {}").format(columns(on.readable), name(relation)))
            yield Program(relation.oid, "SELECT", first, statement, way)
        if asks and on.deletable and at < _PLACES:
            yield Program(relation.oid, "DELETE", first, text(sql.SQL("DELETE FROM {}").format(name(relation))), way)
    if function.security_definer and callable_(function) and arena.visibility.may_execute(role, function):
        other = arena.world.others(tenant)[0]
        for call in calls(arena, function, tenant, other, 4):
            yield Program(0, "EXECUTE", first, call, way, function=function.oid)
