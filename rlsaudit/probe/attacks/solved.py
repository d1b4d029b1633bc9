"""Rows that policies let through although they are another tenant's, found by the server: where a proof says nothing.

Candidates for the columns that the policies look at are filtered with the policies' own text, in the actor's context.
What passes there is only a guess, since a superuser asks; a session of the role then tries it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import psycopg
from psycopg import sql

from rlsaudit.catalog.relations import Column, Command, Policy
from rlsaudit.probe.attacks.relation import Target
from rlsaudit.probe.attacks.setups import Setup, standing
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.statement_text import acting
from rlsaudit.probe.ground.world import Row, Tenant
from rlsaudit.probe.seeding import checks_solver, server_side, values
from rlsaudit.tenancy.model import Persona

Connection = psycopg.Connection[tuple[object, ...]]
_PATIENCE = "2s"
_NUMBERS = 200
_TAKEN = 3
"""Rows that are tried of those that pass."""
_SERIAL = 77


def solved(
    connection: Connection, arena: Arena, on: Target, role: int, command: Command, persona: Persona, actor: Tenant, other: Tenant
) -> Iterator[Setup]:  # fmt: skip
    """Setups under which the policies of ``command`` may show the actor a row of ``other``."""
    rows = arena.world.of(on.relation.oid, other.key)
    policies = arena.visibility.policies(role, on.relation, command)
    if not rows or not on.relation.rls_enabled:
        return
    for new in {"INSERT": (True,), "UPDATE": (False, True)}.get(command, (False,)):
        condition = _condition(policies, new=new)
        wanted = checks_solver.demand_of_text(on.relation, condition)
        pools = _pools(arena, on, rows[0], wanted.columns, frozenset((actor.key, actor.user)))
        if not condition or all(len(pool) == 1 for pool in pools.values()):
            continue
        with connection.transaction(force_rollback=True):
            for found in _passing(connection, on, wanted, pools, acting(persona, actor.key, actor.user)):
                changed = {column: value for column, value in found.items() if value != rows[0].get(column)}
                if changed:
                    yield standing(arena, on, rows[0], changed)


def _passing(
    connection: Connection, on: Target, wanted: checks_solver.Demand, pools: dict[str, tuple[str | None, ...]],
    context: tuple[str, ...],
) -> list[Row]:  # fmt: skip
    try:
        connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(_PATIENCE)))
        server_side.install(connection)
        for statement in context:
            connection.execute(statement.encode())
        found = checks_solver.satisfying(connection, on.relation, [wanted], pools, "", _SERIAL)
    except psycopg.Error:
        return []  # a policy that cannot be asked outside a query on its table
    return [*found[:_TAKEN]]


def _condition(policies: tuple[Policy, ...], *, new: bool) -> str:
    """The text of what the server applies; empty where nothing is admitted."""
    texts = [(p.permissive, (p.check if new else None) or p.using or "") for p in policies]
    permissive = [f"({text})" for allowed, text in texts if allowed and text]
    restrictive = [f"({text})" for allowed, text in texts if not allowed and text]
    if not permissive:
        return ""
    joined = " AND ".join((f"({' OR '.join(permissive)})", *restrictive))
    return f"COALESCE({joined}, false)"


def _pools(
    arena: Arena, on: Target, row: Row, numbers: frozenset[int], named: frozenset[str]
) -> dict[str, tuple[str | None, ...]]:
    """Candidates of each column: of keys and references only what stands there, and no name of the actor's: a row that
    names it may be shared with it."""
    found: dict[str, tuple[str | None, ...]] = {}
    texts = [text for p in arena.catalog.policies_of(on.relation.oid) for text in (p.using, p.check) if text]
    mined = tuple(dict.fromkeys(value for text in texts for value in values.mine(text)))
    constrained = {n for c in arena.catalog.foreign_keys_of(on.relation.oid) for n in c.columns}
    users = arena.tenancy.principal_columns.get(on.relation.oid, ())
    for column in on.relation.columns:
        fixed = column.name in (on.tenant_key, *on.key, *users) or column.number in constrained or column.generated
        stands = row.get(column.name)
        if column.number in numbers and not column.generated:
            found[column.name] = (
                (stands,)
                if fixed
                else tuple(dict.fromkeys((stands, *(v for v in _candidates(column, mined) if v not in named))))
            )
    return found


def _candidates(column: Column, mined: tuple[str, ...]) -> Iterator[str | None]:
    yield from (value for value in mined if column.category == "S")
    if column.category == "D":
        yield from _days(mined)
    yield from values.candidates(column, 0, _SERIAL, mined)
    if column.category == "N":
        yield from (str(number) for number in range(_NUMBERS))
    if not column.not_null:
        yield None


def _days(mined: tuple[str, ...]) -> Iterator[str]:
    """The days that are named, and those beside them."""
    for text in mined:
        try:
            day = date.fromisoformat(text[:10])
        except ValueError:
            continue
        yield from ((day + timedelta(days=more)).isoformat() for more in (0, 1, -1))
