"""The sweep by several sessions at once, each in a copy of the world of its own, so that none waits for another's locks.

Every relation begins on a fresh connection, and results are handed out in the catalog's order: how many sessions there
are changes the time a run takes and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import Protocol

from rlsaudit.catalog.relations import Relation
from rlsaudit.doing import Doing
from rlsaudit.probe.attacks.sweep import Arena, CellKey, sweep
from rlsaudit.probe.ground.leak import Tried
from rlsaudit.probe.ground.session import Session

MOST = 4
_WORTH_A_COPY = 8
"""Relations from which on a copy of the world costs less than it saves."""
Tell = Callable[[str, int, int], None]
Swept = list[tuple[CellKey, Tried]]


class Databases(Protocol):
    """What this needs of a scratch server."""

    def create_database(self, name: str, template: str | None = ...) -> None: ...


def jobs_for(asked: int) -> int:
    """How many sessions: what was asked for, or one for each core, four at most."""
    return asked or min(MOST, os.cpu_count() or 1)


def copies(server: Databases, world: str, arena: Arena, jobs: int) -> tuple[str, ...]:
    """The world itself and as many copies of it as make ``jobs`` databases; only the world where there is little to do."""
    if len(arena.relations()) < _WORTH_A_COPY:
        return (world,)
    made = tuple(f"{world}_{number}" for number in range(1, jobs))
    for name in made:
        server.create_database(name, world)
    return (world, *made)


def sweep_all(
    arena: Arena, sessions: Sequence[Session], role: int, tried: MutableMapping[CellKey, Tried], tell: Tell
) -> None:
    """Put every cell of ``role`` into ``tried``, in the catalog's order.

    Whatever ends it early, a signal or a server that is lost, leaves there every cell that was done by then.
    """
    relations = arena.relations()
    free: SimpleQueue[Session] = SimpleQueue()
    for session in sessions:
        free.put(session)
    done: dict[int, Swept] = {relation.oid: [] for relation in relations}
    ended = Event()

    def one(relation: Relation) -> None:
        session = free.get()
        try:
            session.close()  # what one relation's statements leave on a connection must not tell on the next
            for cell in sweep(arena, session, role, (relation,)):
                done[relation.oid].append(cell)
                if ended.is_set():
                    return
        finally:
            free.put(session)

    leaks = 0
    try:
        with ThreadPoolExecutor(len(sessions)) as pool:
            waiting = [pool.submit(one, relation) for relation in relations]
            try:
                for number, (relation, future) in enumerate(zip(relations, waiting, strict=True)):
                    statements = sum(session.statements for session in sessions)
                    doing = Doing(f"attacking as {sessions[0].role}", relation.qualified, statements, leaks)
                    tell(doing, number, len(relations))
                    future.result()
                    leaks += sum(bool(one.leaks) for _, one in done[relation.oid])
            finally:
                ended.set()
                for future in waiting:
                    future.cancel()
    finally:
        for relation in relations:
            tried.update(done[relation.oid])
    for session in sessions:
        session.close()
