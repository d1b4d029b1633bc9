"""Foreign keys that are to keep a tenant's references at home and that the server does not hold: NOT ENFORCED, or their
triggers switched off.  An own row that names another tenant's is stored, and whatever follows the reference leaks later.

Each program is tried in a superuser's transaction, as those of ``careless`` are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from psycopg import sql

from rlsaudit.probe.attacks.relation import Target, target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.statement_text import acting, insert, literal, matching, name, said
from rlsaudit.probe.ground.world import Row
from rlsaudit.probe.seeding.plan import column_pairs, foreign_keys
from rlsaudit.tenancy.model import ApplicationRole


def stored_references(arena: Arena, role: ApplicationRole, shows: Callable[[Leak], bool]) -> Iterator[Leak]:
    """One leak for each foreign key over the tenant key that lets such a row in; ``shows`` tries a program."""
    persona = arena.tenancy.context.ordinary
    if persona is None:
        return
    tenant, other = arena.world.tenants[:2]
    for relation in arena.relations():
        if not arena.tenancy.of(relation.oid).tenant_data or not relation.holds_rows:
            continue
        on = target(arena.catalog, arena.tenancy, arena.visibility, role.oid, relation)
        for constraint in foreign_keys(arena.catalog, relation):
            pairs = dict(column_pairs(arena.catalog, constraint))
            theirs = arena.world.of(constraint.referenced, other.key)
            if on.tenant_key not in pairs or arena.tenancy.of(constraint.referenced).key != pairs[on.tenant_key]:
                continue
            pointer = {here: there for here, there in pairs.items() if here != on.tenant_key}
            itself = pointer if constraint.referenced == relation.oid else {}
            own = {
                tuple(row.get(c) for c in pointer.values()) for row in arena.world.of(constraint.referenced, tenant.key)
            }
            for row in [row for row in theirs if tuple(row.get(c) for c in pointer.values()) not in own][:1]:
                named = {here: row.get(there) for here, there in pointer.items()}
                column = next((here for here, value in named.items() if value is not None and here in on.readable), "")
                leak = Leak(
                    breaks="forge", relation=relation.oid, command="INSERT", role=role.name, actor=tenant.key,
                    owner=other.key, channel="rows", visits=(), mark=named.get(column) or "", key_column=column,
                    context=(*acting(persona, tenant.key, tenant.user), "SET CONSTRAINTS ALL IMMEDIATE"),
                    persona=persona.name, constraint=constraint.name, severity="low",
                )  # fmt: skip
                tried = (
                    _written(leak, *one) for one in _writes(arena, on, named, column, tenant.key, itself) if column
                )
                yield from [*filter(shows, tried)][:1]


def _written(leak: Leak, command: str, statement: str) -> Leak:
    return replace(leak, command=command, visits=(Visit((statement,), commit=False),))


def _writes(
    arena: Arena, on: Target, named: Mapping[str, str | None], column: str, tenant: str, itself: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """(command, statement) that put the reference into an own row, a new one and one that stands, and show it.

    With ``itself`` (column to column of one relation) the row must not be the one that it then refers to.
    """

    def loops(made: Row) -> bool:
        return bool(itself) and all(made.get(here) == made.get(there) for here, there in itself.items())

    back, place = sql.Identifier(column), (on.relation.oid, tenant)
    for row in arena.world.spare.get(place, ())[:1]:
        given: Row = {c: value for c, value in {**row, **named}.items() if c in on.insertable}
        if set(named) <= set(given) and not loops(given):
            yield "INSERT", said("{} RETURNING {}", insert(on.relation, given), back)
    for row in arena.world.rows.get(place, ())[:1]:
        if set(named) <= set(on.updatable) and on.key and not loops({**row, **named}):
            changes = sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(c), literal(v)) for c, v in named.items()
            )
            here = matching(on.relation, row, on.key)
            yield "UPDATE", said("UPDATE {} SET {} WHERE {} RETURNING {}", name(on.relation), changes, here, back)
