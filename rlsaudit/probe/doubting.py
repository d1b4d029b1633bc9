"""Cells that are not proven: the rows of a proof's witness are put into a copy of the world, and the cell is attacked there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import sql

from rlsaudit.catalog.relations import COMMANDS
from rlsaudit.doubt import CellName, Doubt, Settled
from rlsaudit.finding import Property
from rlsaudit.probe.attacks import context, witnesses
from rlsaudit.probe.attacks.programs import Program, attempt
from rlsaudit.probe.attacks.relation import Target, target
from rlsaudit.probe.attacks.setups import Setup
from rlsaudit.probe.attacks.solved import solved
from rlsaudit.probe.attacks.sweep import Arena, crossing, narrowed
from rlsaudit.probe.attacks.witnesses import Unattainable
from rlsaudit.probe.ground.leak import Leak
from rlsaudit.probe.ground.oracle import Digest
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.ground.statement_text import acting
from rlsaudit.probe.ground.world import Row, Tenant
from rlsaudit.probe.ledger import Ledger, session_of
from rlsaudit.probe.result import Progress, Scratch
from rlsaudit.probe.seeding.populate import digest
from rlsaudit.tenancy.model import ApplicationRole, Persona

_MOST = 60
"""Copies of the world that one run makes for doubts."""
_SECONDS = 20.0
_ENDED = Settled(
    f"rows that might break it were not all tried: that ends after {_SECONDS:g} s or {_MOST} copies of the world"
)
_CROSSINGS: frozenset[Property] = frozenset({"read", "write", "forge"})


def unproven(arena: Arena, role: str, doubts: Sequence[Doubt]) -> frozenset[tuple[int, str]]:
    """(relation, command) pairs of a role that no proof covers."""
    doubted = {(doubt.relation, doubt.command) for doubt in doubts if doubt.role == role}
    return frozenset((r.oid, c) for r in arena.relations() for c in COMMANDS if (r.qualified, c) in doubted)


@dataclass
class Doubting:
    """Where doubts are tried: ``world`` is the seeded database, ``copy`` the name of one that is made for each setup."""

    server: Scratch
    world: str
    copy: str
    arena: Arena
    ledger: Ledger
    left: int = _MOST
    until: float = field(default_factory=lambda: time.monotonic() + _SECONDS)
    """When guessing ends: what is not proven may be much."""

    def settle(self, doubts: Sequence[Doubt], progress: Progress) -> dict[CellName, Settled]:
        """Adds to the ledger the leaks that bear doubts out; gives what came of the others, where something was known."""
        named = {relation.qualified: relation for relation in self.arena.relations()}
        roles = {role.name: role for role in self.arena.tenancy.roles}
        leaking = {
            (relation.qualified, leak.role, leak.command)
            for leak in self.ledger.leaks
            if not (leak.function or leak.opened or leak.constraint)
            and (relation := self.arena.catalog.find_relation(leak.relation)) is not None
        }
        waiting = [
            doubt
            for doubt in doubts
            if doubt.cell not in leaking
            and doubt.relation in named
            and doubt.role in roles
            and self.arena.visibility.may(roles[doubt.role].oid, named[doubt.relation], doubt.command)
        ]
        settled: dict[CellName, Settled] = {}
        for number, doubt in enumerate(sorted(waiting, key=lambda one: not one.rows)):
            progress("trying what is not proven", number, len(waiting))
            role, relation = roles[doubt.role], named[doubt.relation]
            on = target(self.arena.catalog, self.arena.tenancy, self.arena.visibility, role.oid, relation)
            found = (self._witnessed if doubt.rows else self._guessed)(doubt, on, role)
            if found is not None:
                settled[doubt.cell] = found
        return settled

    def _opened(self, doubt: Doubt) -> str:
        """The setting that is known to open the cell."""
        for leak in self.ledger.leaks:
            relation = self.arena.catalog.find_relation(leak.relation)
            if leak.opened and relation and (relation.qualified, leak.role, leak.command) == doubt.cell:
                return leak.opened
        return ""

    def _witnessed(self, doubt: Doubt, on: Target, role: ApplicationRole) -> Settled | None:
        arena, plain = self.arena, next(iter(self.arena.tenancy.context.personas), None)
        actor, other = arena.world.tenants[:2]
        said = "no session could be had"
        try:
            given = self._settings(doubt, role, plain, actor) if plain is not None else {}
            ways: list[Setup] = []
            for way in witnesses.setups(arena, on, doubt, given, actor, other):
                ways += [way] if way not in ways else []
        except Unattainable as reason:
            return Settled(f"its witness was not put in: {reason}")
        known = self._opened(doubt)
        for way in ways:
            outcome = self._tried(doubt, on, role, replace(way, given=()) if known else way)
            if not isinstance(outcome, str):
                return Settled(f"only with {outcome.opened}", opened=True) if outcome.opened else None
            said = outcome
        return Settled(f"only with {known}", opened=True) if known else Settled(said)

    def _guessed(self, doubt: Doubt, on: Target, role: ApplicationRole) -> Settled | None:
        plain = next(iter(self.arena.tenancy.context.personas), None)
        if plain is None:
            return None
        if time.monotonic() > self.until:
            return _ENDED
        # The last tenant's key is less likely than the first's to be a value like any other.
        actor, other = self.arena.world.tenants[-1], self.arena.world.tenants[1]
        with self.server.connect(self.world) as connection:
            ways = [*solved(connection, self.arena, on, role.oid, doubt.command, plain, actor, other)]
        for way in ways:
            if self.left <= 0:
                return _ENDED
            if not isinstance(self._tried(doubt, on, role, way), str):
                break
        return None

    def _settings(self, doubt: Doubt, role: ApplicationRole, persona: Persona, actor: Tenant) -> witnesses.Settings:
        """What the actor's session has in the settings of the witness."""
        names = [name for name, _ in doubt.settings]
        listed = sql.SQL(", ").join(sql.SQL("current_setting({}, true)").format(sql.Literal(one)) for one in names)
        session = session_of(self.server, self.world, self.arena, role)
        try:
            asked = sql.SQL("SELECT {}").format(listed).as_string(None)
            transcript = session.transaction([*acting(persona, actor.key, actor.user), asked])
        finally:
            session.close()
        rows = transcript.replies[-1].rows if transcript.replies and not transcript.failed else ()
        return dict(zip(names, rows[0], strict=True)) if names and rows else {}

    def _tried(self, doubt: Doubt, on: Target, role: ApplicationRole, setup: Setup) -> Leak | str:
        """The leak, which is then in the ledger, or what was tried in vain."""
        if self.left <= 0:
            return f"not tried: {_MOST} others came first"
        self.left -= 1
        self.server.create_database(self.copy, self.world)
        try:
            with self.server.connect(self.copy) as connection:
                if refused := _put(connection, self.arena, setup):
                    return f"its rows cannot stand here: {refused}"
                arena = _standing(self.arena, on, setup, digest(connection))
                session = session_of(self.server, self.copy, arena, role)
                try:
                    leak = next(_leaks(arena, session, on, role, doubt, setup), None)
                finally:
                    session.close()
                    self.ledger.statements += session.statements
        finally:
            self.server.drop_database(self.copy)
        self.ledger.counts["read", role.name] += 1
        if leak is None:
            return "its rows were put in, and a session of the role reached none of another tenant's"
        if setup.both:
            persona = (
                "a user of both tenants" if leak.persona == "tenant" else f"{leak.persona}, a user of both tenants"
            )
            leak = replace(leak, persona=persona, severity="high")
        leak = replace(leak, found=setup.changes)
        self.ledger.leaks.append(leak)
        return leak


def _put(connection: psycopg.Connection[tuple[object, ...]], arena: Arena, setup: Setup) -> str:
    """Make the rows stand so, by triggers and constraints too; the server's word where they may not."""
    persona, other = arena.tenancy.context.seeding, arena.world.tenants[1]
    try:
        with connection.transaction():
            for statement in (*(acting(persona, other.key, other.user) if persona else ()), *setup.changes):
                connection.execute(statement.encode())
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except psycopg.Error as refused:
        return str(refused.diag.message_primary or refused).splitlines()[0]
    return ""


def _standing(arena: Arena, on: Target, setup: Setup, baseline: Digest) -> Arena:
    """The arena of the copy, and new rows with the values of the setup."""
    world = arena.world
    spare = dict(world.spare)
    for tenant in world.tenants:
        place = (on.relation.oid, tenant.key)
        rows: tuple[Row, ...] = world.spare.get(place, ()) or world.of(*place)[:1]
        spare[place] = tuple({**row, **setup.made} for row in rows)
    return replace(arena, world=replace(world, spare=spare, baseline=baseline))


def _leaks(
    arena: Arena, session: Session, on: Target, role: ApplicationRole, doubt: Doubt, setup: Setup
) -> Iterator[Leak]:
    if doubt.state != "any":
        for trial in context.closed(narrowed(arena, on.relation), session, role.oid):
            if trial.leak is not None and trial.command == doubt.command:
                yield trial.leak
        return
    actor = arena.world.tenants[0]
    for persona in _personas(arena, setup):
        only = replace(arena.tenancy.context, personas=(persona,))
        one = replace(arena, tenancy=replace(arena.tenancy, context=only))
        leak, _ = crossing(one, session, on, doubt.command, _CROSSINGS)
        for statement in setup.updates if leak is None and doubt.command == "UPDATE" else ():
            leak = leak or attempt(one, session, persona, actor, Program(on.relation.oid, "UPDATE", (), statement))
        if leak is not None:
            yield replace(leak, opened=persona.name if persona.opening else "")


def _personas(arena: Arena, setup: Setup) -> Iterator[Persona]:
    """Ordinary ones, then those that set what ordinary sessions do not, of settings that those set too."""
    plain = sorted(arena.tenancy.context.personas, key=lambda one: one.opening)
    yield from plain
    if setup.given and plain:
        given = ", ".join(f"{setting}='{value}'" for setting, value in setup.given)
        more = (
            sql.SQL("SELECT set_config({}, {}, true)").format(sql.Literal(setting), sql.Literal(value)).as_string(None)
            for setting, value in setup.given
        )
        yield replace(plain[0], name=given, statements=(*plain[0].statements, *more), opening=True)
