"""Plant leaks into a scratch copy, one at a time, and see whether the attacks of the cell find them.

A plant under which no attack sees or changes more than before has opened nothing there (another guard stands behind
the one taken away) and says nothing; one that opens and is not reported was missed, and the cell's pass means nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import psycopg

from rlsaudit.catalog.relations import COMMANDS, Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.errors import NotTrustworthy
from rlsaudit.probe.attacks import context
from rlsaudit.probe.attacks.calls import calls
from rlsaudit.probe.attacks.doors import Called, call
from rlsaudit.probe.attacks.reach import Touch
from rlsaudit.probe.attacks.relation import target
from rlsaudit.probe.attacks.sweep import Arena, CellKey, crossing, narrowed
from rlsaudit.probe.detector.plants import CLUSTER_WIDE, FUNCTION, KINDS, PREPARE, SCHEMA, Kind, Plant, plants
from rlsaudit.probe.ground.leak import Leak, Tried
from rlsaudit.probe.ground.session import Reply, Session
from rlsaudit.probe.ground.world import SHARED
from rlsaudit.tenancy.model import ApplicationRole

Mode = Literal["sample", "all"]
MODES: tuple[Mode, ...] = ("sample", "all")
Connection = psycopg.Connection[tuple[object, ...]]
Result = Literal["found", "missed", "idle"]

TRIES = 4
"""Kinds tried on one cell until one opens it, and cells tried with one kind (sample)."""


@dataclass
class Planted:
    """What became of the plants."""

    found: int = 0
    missed: dict[CellKey, list[Kind]] = field(default_factory=dict)
    used: Counter[Kind] = field(default_factory=Counter)
    """Plants that opened something, by kind."""
    idle: Counter[Kind] = field(default_factory=Counter)
    """Plants that opened nothing."""
    withheld: set[Kind] = field(default_factory=set)
    """Kinds that would have changed what is not ours."""

    @property
    def planted(self) -> int:
        return sum(self.used.values())

    def note(self, plant: Plant, result: Result) -> None:
        if result == "idle":
            self.idle[plant.kind] += 1
            return
        self.used[plant.kind] += 1
        if result == "found":
            self.found += 1
        else:
            self.missed.setdefault(plant.cell, []).append(plant.kind)

    @property
    def sentence(self) -> str:
        """``found 38 of 38 planted leaks of 9 kinds``, and what was missed."""
        if not self.planted:
            return f"no leak could be planted{self._spared}"
        said = (
            f"found {self.found} of {self.planted} planted leaks of {len(self.used)} kind{'s'[: len(self.used) != 1]}"
        )
        kinds = Counter(kind for missed in self.missed.values() for kind in missed)
        missed = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
        return f"{said}{f'; missed: {missed}' if missed else ''}{self._spared}"

    @property
    def _spared(self) -> str:
        kinds = ", ".join(sorted(self.withheld))
        return f"; {kinds} was not planted, because a role is the whole cluster's" if kinds else ""


def plant_all(
    connection: Connection,
    arena: Arena,
    sessions: Sequence[tuple[ApplicationRole, Session]],
    cells: Iterable[CellKey],
    mode: Mode,
    *,
    shared: bool = False,
) -> Planted:
    """Plant into the copy behind ``connection`` (a superuser's, autocommit), for ``cells``: those that did not leak anyway.

    On a ``shared`` cluster nothing is planted that would be everybody's.
    """
    connection.execute("SET search_path = ''")
    connection.execute("SET lock_timeout = '5s'")
    for statement in PREPARE:
        connection.execute(statement.encode())
    planted, wanted = Planted(), set(cells)
    for role, session in sessions:
        offered: dict[CellKey, tuple[Plant, ...]] = {
            key: made
            for relation in arena.relations()
            if arena.tenancy.of(relation.oid).tenant_data
            for command in COMMANDS
            if (key := (relation.oid, role.name, command)) in wanted
            and (made := plants(arena, role, relation, command))
        }
        if shared:
            planted.withheld |= {plant.kind for made in offered.values() for plant in made} & CLUSTER_WIDE
            offered = {key: tuple(p for p in made if p.kind not in CLUSTER_WIDE) for key, made in offered.items()}
        garden = _Garden(connection, arena, role, session)
        for plant in _all(offered) if mode == "all" else ():
            planted.note(plant, garden.grow(plant))
        if mode == "sample":
            _sample(garden, offered, planted)
        session.close()
    return planted


def _all(offered: Mapping[CellKey, tuple[Plant, ...]]) -> Iterator[Plant]:
    for made in offered.values():
        yield from made


def _sample(garden: _Garden, offered: Mapping[CellKey, tuple[Plant, ...]], planted: Planted) -> None:
    """One plant per cell, of the kind used least so far; then every kind that has not been used and applies anywhere."""
    for made in offered.values():
        ordered = sorted(made, key=lambda plant: planted.used[plant.kind] + planted.idle[plant.kind])
        for plant in ordered[:TRIES]:
            result = garden.grow(plant)
            planted.note(plant, result)
            if result != "idle":
                break
    for kind in KINDS:
        left = [plant for made in offered.values() for plant in made if plant.kind == kind]
        for plant in left[: TRIES * (not planted.used[kind])]:
            result = garden.grow(plant)
            planted.note(plant, result)
            if result != "idle":
                break


@dataclass(frozen=True)
class _Garden:
    """Where one role's plants are grown and pulled out again."""

    connection: Connection
    arena: Arena
    role: ApplicationRole
    session: Session

    def grow(self, plant: Plant) -> Result:
        """Plant it, attack, take it out.  The attacks are run again without it only when they found nothing."""
        if not self._run(plant.made):
            return "idle"
        try:
            found, heard, wrote = self._attack(plant)
        finally:
            self.session.rest()
            if not self._run(plant.undone):
                raise NotTrustworthy(f"a leak planted into the scratch copy could not be taken out again: {plant.kind}")
        if found:
            return "found"
        if plant.cell[2] != "SELECT":
            return "missed" if wrote else "idle"
        _, before, _ = self._attack(replace(plant, way="cell", relations=()) if _beside(plant) else plant)
        self.session.rest()
        return "missed" if _showed(plant, before, heard) else "idle"

    def _run(self, statements: Sequence[str]) -> bool:
        try:
            with self.connection.transaction():
                for statement in statements:
                    self.connection.execute(statement.encode())
        except psycopg.Error:
            return False
        return True

    def _attack(self, plant: Plant) -> tuple[bool, list[Reply], bool]:
        """(whether an attack found it, all replies, whether the digest shows that a row of somebody else changed)."""
        heard: list[Reply] = []
        self.session.heard = heard
        try:
            found, wrote = self._finds(plant)
            return found, self.session.heard or heard, wrote
        finally:
            self.session.heard = None

    def _finds(self, plant: Plant) -> tuple[bool, bool]:
        arena, role, session = self.arena, self.role, self.session
        relation = arena.catalog.relation(plant.cell[0])
        match plant.way:
            case "cell":
                wrote = False
                for one in plant.relations or (relation,):
                    leak, tried = self._crosses(plant, one)
                    wrote = wrote or self._wrote(tried)
                    if leak:
                        return True, wrote
                return False, wrote
            case "closed":
                trials = context.closed(narrowed(arena, relation), session, role.oid)
            case "carryover":
                trials = context.carryover(narrowed(arena, relation), session, role.oid)
            case "function":
                called = _called(arena, session)
                self.session.heard = [Reply(rows=((None,),) * called.rows)]
                return any(leak.breaks in plant.expects for leak in called.leaks), False
        return any(trial.leak and trial.leak.breaks in plant.expects for trial in trials), False

    def _wrote(self, tried: Tried) -> bool:
        """Looked for in the digest itself, past the oracle that is being watched."""
        stored, owners = self.arena.world.baseline, {*self.arena.known, SHARED}
        return any(
            who in owners - {actor} and stored.get((int(oid or 0), who or SHARED)) != (rows, digest)
            for actor, lines in tried.effects or ()
            for oid, who, rows, digest in lines
        )

    def _crosses(self, plant: Plant, relation: Relation) -> tuple[Leak | None, Tried]:
        on = target(self.arena.catalog, self.arena.tenancy, self.arena.visibility, self.role.oid, relation)
        if plant.relations and not on.readable:
            on = replace(on, readable=tuple(column.name for column in relation.columns))
        return crossing(self.arena, self.session, on, plant.cell[2], plant.expects)


def _beside(plant: Plant) -> bool:
    """Whether it is a way beside the relation, which is not there at all without the plant."""
    return plant.way == "function" or bool(plant.relations)


def _showed(plant: Plant, before: Sequence[Reply], after: Sequence[Reply]) -> bool:
    """Whether some attack saw rows that it did not see before; a way beside the relation, more rows than the relation."""
    if not _beside(plant):
        return any(not set(new.rows) <= set(old.rows) for old, new in zip(before, after, strict=False))
    most = 1 if plant.kind == "partition granted" else max((len(reply.rows) for reply in before), default=0)
    return max((len(reply.rows) for reply in after), default=0) > most


def _called(arena: Arena, session: Session) -> Called:
    function = Function(
        oid=0, schema=SCHEMA, name=FUNCTION, kind="function", owner=0, language="sql", security_definer=True,
        leakproof=False, strict=False, volatility="stable", argument_names=(), argument_types=(), returns="setof",
        returns_set=True, settings=(), source="", body_tree=None,
    )  # fmt: skip
    called = Called(function, Touch(True, False, False))
    first, second = arena.world.tenants[:2]
    for persona in arena.tenancy.context.personas:
        for statement in calls(arena, function, first, second):
            call(arena, session, called, persona, first, statement)
    return called
