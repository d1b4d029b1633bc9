"""Is the probe able to see?  The same sweep over a copy with row security switched off must find what it guards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.probe.leak import Tried
from rlsaudit.probe.session import Session
from rlsaudit.probe.statement_text import name
from rlsaudit.probe.sweep import Arena, CellKey, sweep


def open_wide(connection: psycopg.Connection[tuple[object, ...]], catalog: Catalog) -> int:
    """Plant the leak: switch row security off everywhere in this scratch copy.  Returns how many relations had it on."""
    guarded = [relation for relation in catalog.relations if relation.rls_enabled]
    for relation in guarded:
        connection.execute(sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(name(relation)))
    return len(guarded)


def sensitive(
    arena: Arena, sessions: Iterable[tuple[int, Session]], guarded: Mapping[CellKey, Tried]
) -> frozenset[CellKey]:
    """Cells whose attacks cross over once row security is off: there, a pass means that the policies held.

    What shows no tenant's mark (a view of sums, say) counts when its output differs from that under row security.
    ``guarded`` is what the sweep gave with row security on.
    """
    found: set[CellKey] = set()
    for role, session in sessions:
        for key, tried in sweep(arena, session, role, arena.relations()):
            before = guarded[key].outputs if key in guarded else {}
            if tried.leaks or any(before.get(place, rows) != rows for place, rows in tried.outputs.items()):
                found.add(key)
    return frozenset(found)
