"""What row security does not reach: documents without a key, answers kept for the next, large objects, sequences, and
what a cascade prints of rows that nobody may see.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice

from psycopg import sql

from rlsaudit.catalog.relations import Constraint, Relation
from rlsaudit.probe.attacks.calls import callable_, calls
from rlsaudit.probe.attacks.programs import Program
from rlsaudit.probe.attacks.relation import target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.ownership import primary_key
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.ground.statement_text import acting, insert, literal, matching, name, text
from rlsaudit.probe.ground.world import Row, Tenant
from rlsaudit.probe.seeding import values
from rlsaudit.probe.seeding.plan import column_pairs, foreign_keys
from rlsaudit.tenancy.model import Persona

_EXTREMES = {"N": ("4242", "-1", "2147483647"), "S": ("", "x" * 300, "?")}
"""Values of a number and of a text that a CHECK is likely to refuse."""
_SMALL = "7"
_WRITES = re.compile(r"\b(INSERT\s+INTO|UPDATE|MERGE)\b", re.IGNORECASE)
_ASKED = 8
"""Calls of one function that are made twice."""


def outside(arena: Arena, role: int, persona: Persona, tenant: Tenant) -> Iterator[Program]:
    """Programs whose last statement is bound by no policy."""
    if not persona.login:
        yield from _documents(arena, role, persona, tenant)
        yield from _remembered(arena, role, persona, tenant)
        yield from _large_objects(arena, role, persona, tenant)
        yield from _cascades(arena, role, persona, tenant)


def _documents(arena: Arena, role: int, persona: Persona, tenant: Tenant) -> Iterator[Program]:
    """A queue or a log without a key: what one tenant's session puts into a document there another's reads."""
    other = arena.world.others(tenant)[0]
    mark = next((m for m, owner in arena.world.marks.items() if owner == other.key and len(m) >= 6), "")
    for relation in arena.relations():
        kept = next((c.name for c in relation.columns if c.base_type in ("json", "jsonb")), None)
        if arena.tenancy.of(relation.oid).tenant_data or not relation.holds_rows or kept is None or not mark:
            continue
        on = target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
        needed = [c for c in relation.columns if c.not_null and c.default is None and not (c.identity or c.generated)]
        row: dict[str, str | None] = {
            c.name: values.candidates(c, 0, 1)[0] for c in needed if values.candidates(c, 0, 1)
        }
        row[kept] = json.dumps({"said": mark})
        if kept in on.readable and set(row) <= set(on.insertable):
            put = text(insert(relation, row))
            back = acting(persona, tenant.key, tenant.user)
            seen = text(sql.SQL("SELECT {} FROM {}").format(sql.Identifier(kept), name(relation)))
            visit = (*acting(persona, other.key, other.user), put)
            yield Program(relation.oid, "SELECT", (*visit, *back), seen, visited=visit, severity="high")


def _remembered(arena: Arena, role: int, persona: Persona, tenant: Tenant) -> Iterator[Program]:
    """A function that keeps what it computed for one tenant, and hands it to the next that asks the same."""
    other = arena.world.others(tenant)[0]
    visit, back = acting(persona, other.key, other.user), acting(persona, tenant.key, tenant.user)
    for function in arena.functions():
        if callable_(function) and _WRITES.search(function.source) and arena.visibility.may_execute(role, function):
            for call in islice(calls(arena, function, tenant, other), _ASKED):
                if not any(mark in call for mark, owner in arena.world.marks.items() if owner == other.key):
                    yield Program(0, "EXECUTE", (*visit, call, *back), call, function=function.oid, visited=visit)


def _large_objects(arena: Arena, role: int, persona: Persona, tenant: Tenant) -> Iterator[Program]:
    """A large object belongs to the role that made it, and a shared role made everybody's; their OIDs can be listed."""
    other = arena.world.others(tenant)[0]
    for relation in arena.relations():
        columns = [c.name for c in relation.columns if c.base_type in ("oid", "lo")]
        holds = columns and arena.tenancy.of(relation.oid).tenant_data and relation.holds_rows
        mark = next((m for m, owner in arena.world.marks.items() if owner == other.key and len(m) >= 8), "")
        if not (holds and mark and arena.visibility.may(role, relation, "INSERT")):
            continue
        made = text(sql.SQL("SELECT lo_from_bytea(0, convert_to({}, 'UTF8'))").format(literal(mark)))
        visit = (*acting(persona, other.key, other.user), made)
        back = acting(persona, tenant.key, tenant.user)
        seen = "SELECT encode(lo_get(oid), 'escape') AS content FROM pg_catalog.pg_largeobject_metadata"
        way = "list pg_largeobject_metadata and read every large object that the shared role made"
        yield Program(relation.oid, "SELECT", (*visit, *back), seen, way, visited=visit)


def _cascades(arena: Arena, role: int, persona: Persona, tenant: Tenant) -> Iterator[Program]:
    """Another tenant's row refers to an own one; changing the own one fails on it, and the error may print it."""
    other = arena.world.others(tenant)[0]
    for relation in arena.relations():
        for constraint in foreign_keys(arena.catalog, relation):
            parent = arena.catalog.find_relation(constraint.referenced)
            if parent is not None and arena.visibility.may(role, parent, "UPDATE"):
                yield from _cascade(arena, persona, (relation, parent, constraint), tenant, other)


def _cascade(
    arena: Arena, persona: Persona, through: tuple[Relation, Relation, Constraint], tenant: Tenant, other: Tenant
) -> Iterator[Program]:
    relation, parent, constraint = through
    pairs = column_pairs(arena.catalog, constraint)
    key, parent_key = primary_key(arena.catalog, relation), primary_key(arena.catalog, parent)
    if not (key and parent_key) or arena.tenancy.of(relation.oid).key in [here for here, _ in pairs]:
        return
    referred = parent.column(pairs[0][1])
    for theirs in arena.world.of(relation.oid, other.key)[:1]:
        for standing in arena.world.of(parent.oid, tenant.key)[:1]:
            for first, mine in _numbered(parent, parent_key, standing, pairs[0][1]):
                changes = sql.SQL(", ").join(
                    sql.SQL("{} = {}").format(sql.Identifier(here), literal(mine.get(there))) for here, there in pairs
                )
                here = matching(relation, theirs, key)
                refer = text(sql.SQL("UPDATE {} SET {} WHERE {}").format(name(relation), changes, here))
                visit = (*acting(persona, other.key, other.user), refer)
                back = acting(persona, tenant.key, tenant.user)
                for value in _EXTREMES.get(referred.category, ()) if referred else ():
                    change = _renumber(parent, pairs[0][1], value, mine, parent_key)
                    yield Program(parent.oid, "UPDATE", (*first, *visit, *back), change, visited=visit)


def _numbered(
    parent: Relation, key: tuple[str, ...], standing: Row, column: str
) -> Iterator[tuple[tuple[str, ...], Row]]:
    """The own row as it stands, and under a small number, which a CHECK of the referring relation may ask for."""
    yield (), standing
    known = parent.column(column)
    if known is not None and known.category == "N":
        yield (_renumber(parent, column, _SMALL, standing, key),), {**standing, column: _SMALL}


def _renumber(parent: Relation, column: str, value: str, row: Row, key: tuple[str, ...]) -> str:
    here = matching(parent, row, key)
    change = sql.SQL("UPDATE {} SET {} = {} WHERE {}")
    return text(change.format(name(parent), sql.Identifier(column), literal(value), here))


def sequences(arena: Arena, session: Session, role: int, persona: Persona, tenant: Tenant) -> Iterator[Leak | None]:
    """Sequences that number rows of all tenants and that the role may set.  Setting one is not undone by a rollback, so
    here only the privilege is asked for; the replay sets it in a database of its own.
    """
    other, context = arena.world.others(tenant)[0], acting(persona, tenant.key, tenant.user)
    for relation in arena.relations():
        if not arena.tenancy.of(relation.oid).tenant_data or relation.is_partition:
            continue
        for column in relation.columns:
            sequence = arena.catalog.find_relation(column.sequence) if column.sequence else None
            if sequence is None or not arena.visibility.may_use_schema(role, sequence.schema):
                continue
            called = sql.Literal(text(name(sequence)))
            asked = text(sql.SQL("SELECT has_sequence_privilege({}::regclass, 'UPDATE')").format(called))
            replies = session.transaction([*context, asked]).replies
            allowed = len(replies) == len(context) + 1 and replies[-1].rows == (("t",),)
            statement = text(sql.SQL("SELECT setval({}::regclass, 1, false) AS set").format(called))
            yield Leak(
                breaks="interference", relation=relation.oid, command="INSERT", role=session.role, actor=tenant.key,
                owner=other.key, channel="rows", visits=(Visit((statement,), commit=False),), context=context, mark="1",
                persona=persona.name, opened=f"set sequence {sequence.qualified}", escalates=True, severity="medium",
            ) if allowed else None  # fmt: skip
