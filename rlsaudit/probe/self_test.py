"""The probe tested on the same world: row security switched off, leaks of its own planted, rows taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from rlsaudit.catalog.relations import Relation
from rlsaudit.finding import PropertyResult
from rlsaudit.probe.attacks.sweep import Arena, CellKey
from rlsaudit.probe.detector import planting, unguarded
from rlsaudit.probe.ground.leak import Tried
from rlsaudit.probe.ledger import Ledger, session_of
from rlsaudit.probe.result import Scratch
from rlsaudit.tenancy.model import ApplicationRole


def detect(
    server: Scratch, database: str, arena: Arena, roles: Sequence[ApplicationRole], tried: Mapping[CellKey, Tried]
) -> tuple[unguarded.Detected, tuple[Relation, ...]]:
    with server.connect(database) as connection:
        unguarded.open_wide(connection, arena.catalog)
        unnoticed = unguarded.unnoticed(connection, arena)
    sessions = [(role.oid, session_of(server, database, arena, role)) for role in roles]
    try:
        return unguarded.detect(arena, sessions, tried), unnoticed
    finally:
        for _, session in sessions:
            session.close()


def plant(
    server: Scratch, world: str, copy: str, arena: Arena, roles: Sequence[ApplicationRole], ledger: Ledger,
    mode: planting.Mode,
) -> planting.Planted:  # fmt: skip
    """Leaks of rlsaudit's own, one at a time, in the cells where the sweep found none."""
    leaking = {(leak.relation, leak.role, leak.command) for leak in ledger.leaks if not leak.function}
    server.create_database(copy, world)
    sessions = [(role, session_of(server, copy, arena, role)) for role in roles]
    try:
        with server.connect(copy) as connection:
            cells = [key for key in ledger.tried if key not in leaking]
            return planting.plant_all(connection, arena, sessions, cells, mode, shared=server.shared)
    finally:
        for _, session in sessions:
            session.close()
            ledger.statements += session.statements


def verdict(
    arena: Arena, roles: Sequence[ApplicationRole], detected: unguarded.Detected, unnoticed: tuple[Relation, ...],
    planted: planting.Planted,
) -> tuple[PropertyResult, bool]:  # fmt: skip
    """Whether the oracles see what is certainly there, and whether they are blind."""
    guarded = {
        (relation.oid, role.name, "SELECT")
        for relation in arena.relations()
        if relation.rls_enabled and arena.tenancy.of(relation.oid).tenant_data
        for role in roles
        if arena.visibility.may(role.oid, relation, "SELECT")
    }
    found = len(guarded & detected.seen)
    tried = bool(guarded) and bool(arena.tenancy.context.personas)
    blind = bool(unnoticed) or (tried and not found) or bool(planted.planted and not planted.found)
    if unnoticed:
        reason = f"rows removed from {', '.join(relation.qualified for relation in unnoticed)} went unnoticed"
    elif guarded:
        off = (
            f"with row security switched off in a copy, leaks appear in {found} of {len(guarded)} guarded SELECT cells"
        )
        reason = f"{planted.sentence}; {off}"
    else:
        reason = "no relation is guarded by row security, so there was nothing to switch off"
    outcome: Literal["held", "not covered"] = (
        "held" if found and not unnoticed and not planted.missed else "not covered"
    )
    return PropertyResult("detector", "", outcome, planted.planted or len(guarded), reason), blind
