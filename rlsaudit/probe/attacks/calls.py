"""Statements that call a function or procedure: own and foreign values as arguments, and words that its body names.  Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice, product

from psycopg import sql

from rlsaudit.catalog.relations import Column
from rlsaudit.catalog.routines import Function
from rlsaudit.probe.attacks.reach import runs_text
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.ownership import primary_key
from rlsaudit.probe.ground.statement_text import literal, text
from rlsaudit.probe.ground.world import Tenant, World
from rlsaudit.probe.seeding import values as values_

CALLS = 24
"""Argument combinations tried per function, tenant and persona."""
_NAMED = 8
"""Words of a function's body that are tried as arguments."""
_PREFIX = re.compile(r"^(p|v|i|in|arg|_)?_+|_+(in|arg|param)?$")
CURSOR = "rlsaudit_cursor"
_TEXT = frozenset({"text", "character varying"})
_INJECTED = ("x' OR true --", "x') OR true --", "true", "x' OR 'x' = 'x", "true) OR (true", "1 OR true")
"""What makes a condition true when a function puts its argument into SQL text."""


def callable_(function: Function) -> bool:
    """Whether a client could call it by a statement."""
    return (
        function.extension is None
        and function.kind in ("function", "procedure")
        and function.returns not in ("trigger", "event_trigger", "internal")
        and not any(t in ("internal", "cstring") for t in function.argument_types)
    )


def calls(arena: Arena, function: Function, actor: Tenant, victim: Tenant, most: int = CALLS) -> Iterator[str]:
    """At most ``most`` different calls, those whose arguments belong together first."""
    named = tuple(word for word in values_.mine(function.source) if len(word) <= 40)[:_NAMED]
    names = (*function.argument_names, *("" for _ in function.argument_types))
    pools = [
        _pool(arena, function, name, type_name, actor, victim, named)
        for name, type_name in zip(names, function.argument_types, strict=False)
    ]
    called = sql.SQL("{}.{}").format(sql.Identifier(function.schema), sql.Identifier(function.name))
    for values in islice(_combined(pools), most):
        given = sql.SQL(", ").join(
            sql.SQL("{}::{}").format(literal(value), sql.SQL(type_name))
            for value, type_name in zip(values, function.argument_types, strict=True)
        )
        if function.kind == "procedure":
            yield text(sql.SQL("CALL {}({})").format(called, given))
        elif function.returns == "record":
            # Without OUT parameters FROM would need the columns listed, and a row as one value tells as much.
            yield text(sql.SQL("SELECT {}({}) AS called").format(called, given))
        else:
            yield text(sql.SQL("SELECT * FROM {}({}) AS called").format(called, given))


def _combined(pools: list[tuple[str | None, ...]]) -> Iterator[tuple[str | None, ...]]:
    """The first of every pool, the second of every pool, and so on; then everything with everything."""
    longest = max(map(len, pools), default=1)
    aligned = (tuple(pool[at % len(pool)] for pool in pools) for at in range(longest))
    seen: set[tuple[str | None, ...]] = set()
    for values in (*aligned, *islice(product(*pools), 4 * CALLS)):
        if values not in seen:
            seen.add(values)
            yield values


def _pool(
    arena: Arena, function: Function, name: str, type_name: str, actor: Tenant, victim: Tenant, named: tuple[str, ...]
) -> tuple[str | None, ...]:  # fmt: skip
    """Values for one argument, another tenant's and the tenant's own in turn: what a column of its name holds, then the
    keys of the relations that the body names."""
    general = _arguments(type_name, arena.world, actor, victim, named)
    if type_name == "refcursor":
        return (CURSOR,)
    if type_name in _TEXT and runs_text(function):
        general = (*general[:4], *_INJECTED, *general[4:])
    if type_name in _TEXT:
        general = (*general, *islice(_sought(arena, function, actor), 3))
    inner = type_name.removesuffix("[]")
    meant = [tuple(_held(arena, name, inner, tenant)) for tenant in (victim, actor)]
    if not any(meant):
        meant = [tuple(_keys(arena, function, inner, tenant)) for tenant in (victim, actor)]
    first = [v for pair in _alternating(*meant) for v in pair]
    if inner != type_name:
        first = ["{" + value + "}" for value in first if "," not in value]
    return tuple(dict.fromkeys((*first[:6], *general)))


def _alternating(one: tuple[str, ...], other: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for at in range(max(len(one), len(other))):
        yield (*one[at : at + 1], *other[at : at + 1])


def _held(arena: Arena, name: str, type_name: str, tenant: Tenant) -> Iterator[str]:
    """What rows of ``tenant`` hold in a column that the argument's name means: its own, or a key after its table."""
    word = _PREFIX.sub("", name.lower())
    if not word:
        return
    for relation in arena.relations():
        rows = arena.world.of(relation.oid, tenant.key)
        if not rows:
            continue
        key = primary_key(arena.catalog, relation)
        stem = relation.name.lower()
        means_key = len(key) == 1 and word.removesuffix("s") in {
            f"{singular}_{key[0].lower()}" for singular in (stem, stem.removesuffix("s"), stem.removesuffix("es"))
        }
        for column in relation.columns:
            fits = column.base_type == type_name and (column.name.lower() in (word, word.removesuffix("s")))
            if fits or (means_key and column.name == key[0] and column.base_type == type_name):
                yield from (value for row in rows[:2] if (value := row.get(column.name)) is not None)


def _sought(arena: Arena, function: Function, actor: Tenant) -> Iterator[str]:
    """What a search would find of the tenant's own, in the relations that the body names."""
    body = function.source.lower()
    for mark, homes in arena.world.homes.items():
        if arena.world.marks[mark] == actor.key and any(
            arena.catalog.relation(oid).name.lower() in body for oid in homes
        ):
            yield mark


def _keys(arena: Arena, function: Function, type_name: str, tenant: Tenant) -> Iterator[str]:
    body = function.source.lower()
    for relation in arena.relations():
        rows = arena.world.of(relation.oid, tenant.key)
        if not rows or relation.name.lower() not in body:
            continue
        for key in primary_key(arena.catalog, relation):
            column = relation.column(key)
            if column is not None and column.base_type == type_name and key != arena.tenancy.of(relation.oid).key:
                yield from (value for row in rows[:1] if (value := row.get(key)) is not None)


def general(type_name: str, world: World, actor: Tenant, victim: Tenant) -> tuple[str | None, ...]:
    """Values of a type: the victim's, the actor's, and what often means everything or nothing."""
    return _arguments(type_name, world, actor, victim, ())


def _arguments(
    type_name: str, world: World, actor: Tenant, victim: Tenant, named: tuple[str, ...]
) -> tuple[str | None, ...]:
    """Foreign values of the argument's type, the tenant's own, words that the function's body compares with, and NULL."""
    match type_name:
        case "uuid":
            fits = _is_uuid
        case "smallint" | "integer" | "bigint" | "numeric":
            fits = _is_integer
        case "text" | "character varying" | "name":
            fits = _is_text
        case "boolean":
            return ("true", "false")
        case "json" | "jsonb":
            # Every key that the body asks for, with the other tenant's values.
            ids = _some((t for t, who in world.marks.items() if who == victim.key and (_is_uuid(t) or _is_integer(t))))
            keyed = (json.dumps(dict.fromkeys(named, value)) for value in (victim.key, *ids))
            return (*keyed, "{}")
        case _ if type_name.endswith("[]"):
            inner = _arguments(type_name.removesuffix("[]"), world, actor, victim, ())
            return (*("{" + value + "}" for value in inner if value and "," not in value), "{}", None)
        case _:
            column = Column(1, "argument", type_name, 0, type_name, "", True, None)
            return (*named, *values_.candidates(column, 1, 1)[:3], None)
    foreign = _some(t for t, owner in world.marks.items() if owner == victim.key and fits(t) and t != victim.key)
    found = [t for t in (victim.key, victim.user, actor.key) if fits(t)]
    if fits is _is_integer:
        found += [word for word in (*named, "0", "-1") if fits(word)]
    # What a search takes for everything, and what a function that runs its argument would run.
    general = ("", "%", "SELECT 1") if type_name in _TEXT else ()
    return tuple(dict.fromkeys((*found, *foreign, *(named if general else ()), *general, None)))


def _some(found: Iterable[str]) -> list[str]:
    return list(islice(found, 3))


def _is_uuid(value: str) -> bool:
    return len(value) == 36 and value.count("-") == 4


def _is_integer(value: str) -> bool:
    return value.removeprefix("-").isdigit() and len(value) < 10


def _is_text(value: str) -> bool:
    return not _is_uuid(value)
