"""The statements that random programs are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from psycopg import sql

from rlsaudit.catalog.relations import COMMANDS, Relation
from rlsaudit.probe.attacks.relation import Target, target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.statement_text import columns, name, text
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.probe.seeding.plan import column_pairs, foreign_keys

_TOGGLES = (
    "SAVEPOINT s",
    "SET LOCAL enable_seqscan = off",
    "SET LOCAL enable_indexscan = off",
    "SET LOCAL plan_cache_mode = force_generic_plan",
    "SET LOCAL row_security = off",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a program, and whose cell it belongs to."""

    relation: int
    command: str
    statement: str
    joined: int = 0
    """The other relation of a join."""


Menus = Mapping[Tenant, tuple[Step, ...]]


def menus_of(arena: Arena, role: int, relations: Iterable[Relation]) -> Menus:
    """Statements a tenant's programs are made of, the plainest first: Hypothesis shrinks towards the front."""
    targets = [
        target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
        for relation in relations
        if any(arena.visibility.may(role, relation, command) for command in COMMANDS)
    ]
    by_relation = {on.relation.oid: on for on in targets}
    richer = [step for on in targets for step in _richer(arena, on, by_relation)]
    toggles = [Step(0, "SELECT", toggle) for toggle in _TOGGLES]
    menus: dict[Tenant, tuple[Step, ...]] = {}
    for tenant in arena.world.tenants:
        plain = (
            Step(on.relation.oid, command, attack.statement)
            for on in targets
            for command in COMMANDS
            for attack in arena.attacks(on, tenant, command)
            if "rlsaudit_peek" not in attack.statement
        )
        menus[tenant] = tuple(dict.fromkeys((*plain, *richer, *toggles)))
    return menus


def _richer(arena: Arena, on: Target, by_relation: dict[int, Target]) -> list[Step]:
    """Shapes that no single-relation attack has."""
    if not on.readable:
        return []
    relation, listed = name(on.relation), columns(on.readable)
    shapes = [
        ("SELECT", sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(listed, relation)),
        ("SELECT", sql.SQL("SELECT json_agg(t) FROM (SELECT {} FROM {}) AS t").format(listed, relation)),
        ("SELECT", sql.SQL("SELECT DISTINCT {} FROM {}").format(listed, relation)),
        ("SELECT", sql.SQL("SELECT {} FROM {} ORDER BY 1 DESC LIMIT 3").format(listed, relation)),
    ]
    plain = [c for c in on.updatable if c not in on.key and c != on.tenant_key and c in on.readable]
    for column in plain[:1]:
        touched = sql.SQL("UPDATE {} SET {} = {} RETURNING {}").format(
            relation, sql.Identifier(column), sql.Identifier(column), listed
        )
        shapes.append(("UPDATE", sql.SQL("WITH w AS ({}) SELECT * FROM w").format(touched)))
    if on.deletable:
        removed = sql.SQL("DELETE FROM {} RETURNING {}").format(relation, listed)
        shapes.append(("DELETE", sql.SQL("WITH w AS ({}) SELECT * FROM w").format(removed)))
    plain_shapes = [Step(on.relation.oid, command, text(shape)) for command, shape in shapes]
    joins = _joins(arena, on, on.relation, by_relation)
    return [*plain_shapes, *(Step(on.relation.oid, "SELECT", text(join), other) for other, join in joins)]


def _joins(
    arena: Arena, on: Target, relation: Relation, by_relation: dict[int, Target]
) -> list[tuple[int, sql.Composed]]:
    found = []
    for constraint in foreign_keys(arena.catalog, relation):
        other = by_relation.get(constraint.referenced)
        if other is None or not other.readable:
            continue
        condition = sql.SQL(" AND ").join(
            sql.SQL("a.{} = b.{}").format(sql.Identifier(here), sql.Identifier(there))
            for here, there in column_pairs(arena.catalog, constraint)
        )
        for kind in ("JOIN", "RIGHT JOIN"):
            joined = sql.SQL("SELECT {}, {} FROM {} AS a {} {} AS b ON {}").format(
                sql.SQL(", ").join(sql.Identifier("a", c) for c in on.readable),
                sql.SQL(", ").join(sql.Identifier("b", c) for c in other.readable),
                name(relation),
                sql.SQL(kind),
                name(other.relation),
                condition,
            )
            found.append((other.relation.oid, joined))
    return found
