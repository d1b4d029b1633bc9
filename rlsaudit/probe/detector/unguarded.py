"""Is the probe able to see?

The same sweep over a copy with row security switched off must find what it guards, and rows removed by a privileged
hand must be missed by the digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.attacks.sweep import Arena, CellKey, sweep
from rlsaudit.probe.ground import oracle, ownership
from rlsaudit.probe.ground.leak import Tried
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.ground.silence import silence
from rlsaudit.probe.ground.statement_text import name
from rlsaudit.probe.seeding.populate import digest


def open_wide(connection: psycopg.Connection[tuple[object, ...]], catalog: Catalog) -> int:
    """Plant the leak: switch row security off everywhere in this scratch copy.  Returns how many relations had it on."""
    guarded = [relation for relation in catalog.relations if relation.rls_enabled]
    for relation in guarded:
        connection.execute(sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(name(relation)))
    return len(guarded)


@dataclass(frozen=True, slots=True)
class Detected:
    """What the sweep gave with row security off."""

    sensitive: frozenset[CellKey]
    """Cells whose attacks cross over then: there, a pass means that the policies held."""
    seen: frozenset[CellKey]
    """Those of them where an oracle said so, which tells that the oracles see."""


def detect(arena: Arena, sessions: Iterable[tuple[int, Session]], guarded: Mapping[CellKey, Tried]) -> Detected:
    """Sweep the copy that ``open_wide`` made.  ``guarded`` is what the sweep gave with row security on.

    What shows no tenant's mark (a view of sums, say) is sensitive when its output differs from that under row security.
    """
    found: set[CellKey] = set()
    seen: set[CellKey] = set()
    for role, session in sessions:
        for key, tried in sweep(arena, session, role, arena.relations(), first_leak=True):
            before = guarded[key].outputs if key in guarded else {}
            if tried.leaks:
                seen.add(key)
            if tried.leaks or any(before.get(place, rows) != rows for place, rows in tried.outputs.items()):
                found.add(key)
        session.close()  # its last transaction is still open and would keep the next role waiting for locks
    return Detected(frozenset(found), frozenset(seen))


def unnoticed(connection: psycopg.Connection[tuple[object, ...]], arena: Arena) -> tuple[Relation, ...]:
    """Relations whose rows a superuser can remove without the digest's showing it; each removal is rolled back."""
    victim, other = arena.world.tenants[:2]
    missed = []
    for relation in ownership.digested(arena.catalog, arena.tenancy):
        if not arena.world.of(relation.oid, victim.key):
            continue
        with connection.transaction(force_rollback=True):
            connection.execute("SET LOCAL session_replication_role = replica")
            silence(connection, arena.catalog, relation)
            connection.execute(sql.SQL("DELETE FROM {}").format(name(relation)))
            shown = digest(connection, arena.digest(relation.oid))
            if oracle.changed(arena.world.baseline, shown, other.key, arena.known) is None:
                missed.append(relation)
    return tuple(missed)
