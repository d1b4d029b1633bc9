"""Rows as time and careless hands leave them, which no session of a tenant need make: an empty key, a text where a policy
casts, a date long ago.

Whether they show is tried in one superuser's transaction over the seeded rows; the replay does the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from psycopg import sql

from rlsaudit.catalog.expression import Cast, Column, Constant, Expression, Json, walk
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.attacks.relation import target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.statement_text import acting, columns, literal, name, said, text
from rlsaudit.probe.ground.world import SHARED, Tenant
from rlsaudit.tenancy.model import ApplicationRole

_SPOILT = "rlsaudit7spoilt"
_SHOWN = re.compile("publi|share|release|visible", re.IGNORECASE)
"""A time from which on a row is meant for everybody."""
_TEXTS = frozenset({"text", "character varying", "json", "jsonb"})


def careless(arena: Arena, role: ApplicationRole) -> Iterator[Leak]:
    """Leaks that such rows would be, each to be tried."""
    persona = next(iter(arena.tenancy.context.personas), None)
    if persona is None or persona.login:
        return
    tenant, other = arena.world.tenants[:2]
    context = acting(persona, tenant.key, tenant.user)
    for relation in arena.relations():
        on = target(arena.catalog, arena.tenancy, arena.visibility, role.oid, relation)
        if not (arena.tenancy.of(relation.oid).tenant_data and relation.rls_enabled and on.readable and on.tenant_key):
            continue
        read = text(sql.SQL("SELECT {} FROM {}").format(columns(on.readable), name(relation)))
        leak = Leak(
            breaks="read", relation=relation.oid, command="SELECT", role=role.name, actor=tenant.key, owner=other.key,
            channel="error", visits=(Visit((read,), commit=False),), context=context, mark=_SPOILT,
            persona=persona.name, severity="high",
        )  # fmt: skip
        for spoilt in _spoilt(arena, relation, on.tenant_key, other):
            yield replace(leak, found=(spoilt, said("ANALYZE {}", name(relation))))
        marks = (m for m, at in arena.world.homes.items() if relation.oid in at and arena.world.marks[m] == other.key)
        mark = next((m for m in marks if m != other.key), "")
        for aged in _aged(arena, relation, on.tenant_key, other) if mark else ():
            yield replace(leak, channel="rows", mark=mark, severity=None, found=(aged,))
        if (emptied := _emptied(arena, other)) and mark:
            unset = (
                said("SELECT set_config({}, {}, true)", literal(s), literal("")) for s in arena.tenancy.context.settings
            )
            yield replace(
                leak, breaks="closed", actor="", owner=SHARED, channel="rows", context=tuple(unset), mark=mark,
                severity="medium", found=emptied,
            )  # fmt: skip


def _spoilt(arena: Arena, relation: Relation, key: str, other: Tenant) -> Iterator[str]:
    """Another tenant's rows with a text where a policy casts what stands there."""
    theirs = sql.SQL("{}::text = {}").format(sql.Identifier(key), literal(other.key))
    done: set[str] = set()
    for policy in arena.catalog.policies_of(relation.oid):
        predicate = policy_predicate(arena.catalog, policy, "using")
        for part in walk(predicate) if predicate is not None else ():
            if isinstance(part, Cast) and part.type not in _TEXTS and (value := _into(part.argument)) is not None:
                column, put = value
                change = said("UPDATE {} SET {} = {} WHERE {}", name(relation), sql.Identifier(column), put, theirs)
                if column != key and change not in done:
                    done.add(change)
                    yield change


def _aged(arena: Arena, relation: Relation, key: str, other: Tenant) -> Iterator[str]:
    """Another tenant's rows a long time ago and a long time hence, where a policy looks at a time."""
    theirs = sql.SQL("{}::text = {}").format(sql.Identifier(key), literal(other.key))
    texts = " ".join(policy.using or "" for policy in arena.catalog.policies_of(relation.oid))
    for column in relation.columns:
        timed = column.base_type.startswith(("timestamp", "date")) and column.name in texts and not column.generated
        if timed and not _SHOWN.search(column.name):
            for day in ("2001-01-01", "2091-01-01"):
                yield said(
                    "UPDATE {} SET {} = {} WHERE {}", name(relation), sql.Identifier(column.name), literal(day), theirs
                )


def _into(argument: Expression) -> tuple[str, sql.Composable] | None:
    """(column, its new value) that makes the cast fail."""
    match argument:
        case Column(level=0, type=kind, name=column) if kind in ("text", "character varying"):
            return column, literal(_SPOILT)
        case Json(document=Column(level=0, type=kind, name=column), key=Constant(value=str(step))):
            document: object = _SPOILT
            for one in reversed(step.strip("{}").split(",")):
                document = {one: document}
            return column, sql.SQL("{}::{}").format(literal(json.dumps(document)), sql.SQL(kind))
    return None


def _emptied(arena: Arena, other: Tenant) -> tuple[str, ...]:
    """One tenant's key made empty wherever it stands, if the tables take that; foreign keys move along with it."""
    places = [
        (arena.catalog.relation(oid), key)
        for oid in arena.tenancy.tenant_data()
        if (key := arena.tenancy.of(oid).key) and not arena.tenancy.of(oid).path
    ]
    changes = []
    for relation, key in places:
        column = relation.column(key)
        if not relation.holds_rows or relation.is_partition or column is None:
            continue
        if column.category != "S":
            return ()
        changes.append(
            said(
                "UPDATE {} SET {} = '' WHERE {} = {}", name(relation), *(2 * [sql.Identifier(key)]), literal(other.key)
            )
        )
    return tuple(changes)
