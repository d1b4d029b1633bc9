"""What one run gathers, and how a session of a role is had."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from rlsaudit.errors import ServerLost
from rlsaudit.finding import Property
from rlsaudit.probe.attacks import doors
from rlsaudit.probe.attacks.statements import Ran
from rlsaudit.probe.attacks.sweep import Arena, CellKey
from rlsaudit.probe.ground.leak import Leak, Tried
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
    """A session that goes on when the server was away for a while, if ``database`` is as it was seeded.

    With ``seeded`` nothing that it runs lasts, so that a new connection must find all rows of unlogged tables, too:
    their server may have crashed since the last one was closed.
    """
    login = logins.entrance(arena.tenancy, role.name)
    settings = role_settings(arena.catalog, role.name) if server.shared else None
    unlogged = any(relation.persistence == "unlogged" for relation in arena.catalog.relations)

    def whole() -> None:
        with server.connect(database) as connection:
            if digest(connection) != arena.world.baseline:
                raise ServerLost("the server came back without all rows of the copy: a crash empties unlogged tables")

    def back() -> None:
        server.await_back()
        whole()

    return Session(
        server.conninfo(database, login), role.name, login=login, settings=settings, patience=arena.patience, back=back,
        fresh=whole if seeded and unlogged else None,
    )  # fmt: skip
