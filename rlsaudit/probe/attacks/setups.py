"""How rows are made to stand for an attack on a cell that is not proven."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from psycopg import sql

from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.attacks.relation import Target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.ownership import primary_key
from rlsaudit.probe.ground.statement_text import literal, matching, name, text
from rlsaudit.probe.ground.world import Row

_COMPARED = frozenset("SNDUBE")
"""Categories of types whose values can be told apart with ``=``."""


@dataclass(frozen=True)
class Setup:
    """How rows are to stand, what rows are then made, and what an UPDATE then says."""

    changes: tuple[str, ...]
    """Statements of a superuser."""
    made: Row = field(default_factory=dict)
    """Values of a new row, the tenant and what identifies it left out."""
    updates: tuple[str, ...] = ()
    given: tuple[tuple[str, str], ...] = ()
    """Settings, and other values for them than ordinary sessions have."""
    both: bool = False
    """It takes a user of both tenants."""


def standing(arena: Arena, on: Target, row: Row, values: Row) -> Setup:
    """One row of another tenant with other values, in which the acting tenant's rows may be moved to it."""
    own = arena.world.of(on.relation.oid, arena.world.tenants[0].key)
    moved = moves(arena, on, own[0], row, values) if own else ()
    return Setup((update(arena, on.relation, row, values),), values, tuple(moved))


def moves(arena: Arena, on: Target, own: Row, theirs: Row, values: Row) -> Iterator[str]:
    """An own row that becomes the other tenant's, with these values."""
    path = arena.tenancy.of(on.relation.oid).path
    moved = path[0].columns if path else (on.tenant_key,) if on.tenant_key else ()
    become = {**values, **{column: theirs.get(column) for column in moved}}
    if moved and set(become) <= set(on.updatable):
        moving = sql.SQL("UPDATE {} SET {}").format(name(on.relation), _assigned(become))
        yield text(moving)
        yield text(sql.SQL("{} WHERE {}").format(moving, _picking(arena, on.relation, own)))


def update(arena: Arena, relation: Relation, row: Row, values: Row) -> str:
    """The statement that gives one row these values."""
    picked = _picking(arena, relation, row)
    return text(sql.SQL("UPDATE {} SET {} WHERE {}").format(name(relation), _assigned(values), picked))


def _picking(arena: Arena, relation: Relation, row: Row) -> sql.Composed:
    key = primary_key(arena.catalog, relation)
    return matching(relation, row, key or [c.name for c in relation.columns if c.category in _COMPARED])


def _assigned(values: Row) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(c), literal(v)) for c, v in values.items())
