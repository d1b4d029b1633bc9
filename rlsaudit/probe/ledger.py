"""What one run gathers, and how a session of a role is had."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial

from rlsaudit.catalog.relations import Relation
from rlsaudit.errors import ServerLost
from rlsaudit.finding import Property
from rlsaudit.probe.attacks import doors
from rlsaudit.probe.attacks.statements import Ran
from rlsaudit.probe.attacks.sweep import Arena, CellKey
from rlsaudit.probe.ground.digest import digest_of
from rlsaudit.probe.ground.leak import Leak, Tried
from rlsaudit.probe.ground.ownership import digested
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.replay.script import role_settings
from rlsaudit.probe.result import Scratch
from rlsaudit.probe.seeding import logins
from rlsaudit.probe.seeding.populate import digest
from rlsaudit.tenancy.model import ApplicationRole, Persona


@dataclass
class Ledger:
    """What one run gathers."""

    arena: Arena | None = None
    """None until tenants are seeded."""
    tried: dict[CellKey, Tried] = field(default_factory=dict)
    called: dict[tuple[int, str], doors.Called] = field(default_factory=dict)
    ran: dict[tuple[str, str], Ran] = field(default_factory=dict)
    """Own statements of the application, by label and role name."""
    leaks: list[Leak] = field(default_factory=list)
    opening: set[Persona] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)
    counts: dict[tuple[Property, str], int] = field(default_factory=lambda: defaultdict(int))
    statements: int = 0
    programs: int = 0

    def open_anyway(self, role: str) -> frozenset[int]:
        """Relations and functions that leak by a single statement."""
        return frozenset(
            leak.function or leak.relation
            for leak in self.leaks
            if leak.role == role and leak.breaks in ("read", "closed") and leak.owner and not leak.opened
        )


def session_of(
    server: Scratch, database: str, arena: Arena, role: ApplicationRole, *, seeded: bool = False
) -> Session:  # fmt: skip
    """A session that goes on when the server was away for a while, if no row of ``database`` has gone meanwhile.

    With ``seeded`` it takes no row away for good, so that a new connection must find those of unlogged tables, too:
    their server may have crashed since the last one was closed.
    """
    login = logins.entrance(arena.tenancy, role.name)
    settings = role_settings(arena.catalog, role.name) if server.shared else None
    emptied = _emptied_by_a_crash(arena) if seeded else frozenset()

    def complete(relations: frozenset[int] | None = None) -> None:
        with server.connect(database) as connection:
            now = digest(connection, digest_of(relations))
        # What statements of the application log when they read may have been committed: more rows are none too few.
        for place, (rows, _) in arena.world.baseline.items():
            if (relations is None or place[0] in relations) and int(now.get(place, ("0", ""))[0]) < int(rows):
                raise ServerLost("the server came back without all rows of the copy: a crash empties unlogged tables")

    def back() -> None:
        server.await_back()
        complete()

    return Session(
        server.conninfo(database, login), role.name, login=login, settings=settings, patience=arena.patience, back=back,
        fresh=partial(complete, emptied) if emptied else None,
    )  # fmt: skip


def _emptied_by_a_crash(arena: Arena) -> frozenset[int]:
    """Relations with rows of tenants that are unlogged, or have such a partition."""
    catalog = arena.catalog

    def unlogged(relation: Relation) -> bool:
        return relation.persistence == "unlogged" or any(
            unlogged(child) for child in catalog.children_of(relation.oid) if child.is_partition
        )

    return frozenset(one.oid for one in digested(catalog, arena.tenancy) if unlogged(one))
