"""The probe from end to end: seed, sweep, context, doors, workloads, detector, judge, shrink, replay."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from rlsaudit import interrupt
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.doubt import Doubt
from rlsaudit.errors import RlsauditError
from rlsaudit.own import OwnStatement
from rlsaudit.probe import parallel
from rlsaudit.probe.attacking import attack, listen
from rlsaudit.probe.attacks.learning import Learning
from rlsaudit.probe.attacks.sweep import Arena, Focus, focused
from rlsaudit.probe.barred import barred
from rlsaudit.probe.comparing import interfere
from rlsaudit.probe.detector import planting
from rlsaudit.probe.doubting import Doubting, unproven
from rlsaudit.probe.ground.leak import shortest
from rlsaudit.probe.ground.lost import lost
from rlsaudit.probe.judging import judge, partial
from rlsaudit.probe.judging.findings import as_finding, as_unstable
from rlsaudit.probe.judging.functions import function_cells
from rlsaudit.probe.judging.opening import without
from rlsaudit.probe.judging.statements import own_cells
from rlsaudit.probe.judging.telling import worth_telling
from rlsaudit.probe.ledger import Ledger
from rlsaudit.probe.replay.script import Stage, schema_script
from rlsaudit.probe.replaying import outward, replayed, seeded, spoilt
from rlsaudit.probe.result import ProbeResult, Progress, Scratch
from rlsaudit.probe.seeding import logins
from rlsaudit.probe.seeding.populate import populate
from rlsaudit.probe.self_test import detect, verdict
from rlsaudit.probe.self_test import plant as plant_leaks
from rlsaudit.probe.standing import properties
from rlsaudit.tenancy.model import Tenancy


def probe(
    server: Scratch,
    database: str,
    catalog: Catalog,
    tenancy: Tenancy,
    *,
    seed: int,
    budget: float,
    progress: Progress,
    plant: planting.Mode = "sample",
    jobs: int = 1,
    examples: Path | None = None,
    doubts: Sequence[Doubt] | None = None,
    focus: Focus | None = None,
    own: Sequence[OwnStatement] = (),
    learning: Learning | None = None,
) -> ProbeResult:
    """Attack a copy of ``database``, a loaded scratch database with the objects of ``catalog``; it is left unseeded.

    ``budget`` is the time in seconds for random workloads, over all roles; ``jobs`` how many sessions sweep at once,
    ``examples`` a directory that keeps the workloads' hard examples.  ``doubts`` are all cells that are not proven,
    None where nothing was proven; with a ``focus`` the rows are those of the whole schema, and only what is in it is attacked.  ``own`` are
    statements of the application, run as they are; ``learning`` is what random workloads know from earlier runs, and
    grows.
    """
    interrupt.obey()
    notes = logins.let_in(server, database, catalog, tenancy)
    catalog, made = logins.prepare(server, database, catalog, tenancy)
    tenancy = logins.reduced(tenancy)
    names = _Names(secrets.token_hex(3))
    ledger = Ledger()
    try:
        server.create_database(names.world, database)
        server.create_database(names.bare, database)
        progress("seeding tenants", 0, 1)
        with server.connect(names.world) as connection:
            world = populate(connection, catalog, tenancy)
        schema = schema_script(server.dump_schema(database, data=True), catalog)
        arena = focused(Arena(catalog, tenancy, visibility_of(catalog), world), focus)
        ledger.arena = arena
        worlds = parallel.copies(server, names.world, arena, jobs)
        names.also += worlds[1:]
        for number, role in enumerate(tenancy.roles):
            progress(f"attacking as {role.name}", number, len(tenancy.roles))
            seconds = budget / len(tenancy.roles)
            attack(
                server,
                worlds,
                arena,
                role,
                ledger,
                seed=seed,
                seconds=seconds,
                progress=progress,
                examples=examples,
                own=own,
                unproven=unproven(arena, role.name, doubts or ()),
                learning=learning,
            )
        return _judged(server, database, names, arena, ledger, notes, plant, doubts, schema, progress)
    except (KeyboardInterrupt, RlsauditError, psycopg.Error) as error:
        signalled, said = interrupt.ends(error), lost(error)
        if ledger.arena is None or not (signalled or said):
            raise  # nothing was attacked yet, or it is another error
        return _interrupted(ledger.arena, ledger, notes, schema, "" if signalled else said)
    finally:
        interrupt.remember()
        _clear(server, database, names, made)


@dataclass
class _Names:
    """The databases of one run."""

    suffix: str
    also: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world, self.bare, self.planted, self.visits, self.heard, self.doubted, self.barred = (
            f"rlsaudit_{kind}_{self.suffix}"
            for kind in ("world", "bare", "planted", "visits", "heard", "doubted", "barred")
        )

    @property
    def all(self) -> tuple[str, ...]:
        return (self.world, self.bare, self.planted, self.visits, self.heard, self.doubted, self.barred, *self.also)


def _judged(  # noqa: PLR0917
    server: Scratch, database: str, names: _Names, arena: Arena, ledger: Ledger, notes: tuple[str, ...],
    mode: planting.Mode, doubts: Sequence[Doubt] | None, schema: str, progress: Progress,
) -> ProbeResult:  # fmt: skip
    """After the attack: whether it could see, what differs between worlds, and the leaks shown again."""
    catalog, roles = arena.catalog, arena.tenancy.roles
    listen(server, names.world, names.heard, without(arena, ledger.opening), roles, ledger)
    settled = Doubting(server, names.world, names.doubted, without(arena, ledger.opening), ledger).settle(
        doubts or (), progress
    )
    progress("checking that the probe can see", 0, 1)
    ordinary = without(arena, ledger.opening)
    planted = plant_leaks(server, names.world, names.planted, ordinary, roles, ledger, mode)
    detected, unnoticed = detect(server, names.planted, arena, roles, ledger.tried)
    withheld = barred(
        server, names.world, names.barred, ordinary, roles, ledger,
        sensitive=detected.sensitive, doubts=doubts, progress=progress,
    )  # fmt: skip
    progress("comparing worlds with and without other tenants", 0, 1)
    replaced = interfere(server, names.world, names.suffix, ordinary, roles, ledger, planted, mode)
    spoilt(server, names.bare, ordinary, ledger)
    outward(server, ordinary, ledger, schema)
    leaks = shortest(ledger.leaks)
    cells = judge.cells(arena, roles, ledger.tried, detected.sensitive, leaks)
    cells = judge.without_missed(catalog, judge.without_bars(catalog, cells, withheld), planted.missed)
    cells += function_cells(ledger.called, leaks) + own_cells(ledger.ran, leaks)
    told = worth_telling(catalog, leaks)
    shown = replayed(server, database, names.bare, names.visits, arena, told, schema, replaced, progress)
    findings = tuple((as_finding if again else as_unstable)(catalog, one, text) for one, text, again in shown)
    detector, blind = verdict(arena, roles, detected, unnoticed, planted)
    return ProbeResult(
        judge.without_replay(catalog, cells, [one for one, _, again in shown if not again]),
        findings,
        (*properties(ledger, roles, arena), detector),
        (*notes, *ledger.notes),
        schema,
        ledger.statements,
        ledger.programs,
        len(arena.world.tenants),
        blind,
        _unseeded(arena),
        settled=settled,
    )


def _clear(server: Scratch, database: str, names: _Names, made: tuple[str, ...]) -> None:
    """Take away what was made.  Of a server that is lost, whoever stops it does."""
    try:
        for name in names.all:
            server.drop_database(name)
        if made:
            with server.connect(database) as connection:
                logins.drop(connection, made)
    except (RlsauditError, psycopg.Error) as error:
        if not lost(error):
            raise


def _interrupted(arena: Arena, ledger: Ledger, notes: tuple[str, ...], schema: str, said: str) -> ProbeResult:
    """What was found until a signal came, or the server was lost; its leaks were not replayed."""
    interrupt.remember()
    roles = arena.tenancy.roles
    found = partial.leaks(arena, roles, ledger.tried, ledger.leaks)
    stage = Stage(arena.catalog, arena.tenancy, arena.world.tenants)
    return ProbeResult(
        partial.cells(arena, roles, ledger.tried, found) + own_cells(ledger.ran, found),
        partial.findings(stage, found, seeded(arena)),
        partial.properties(properties(ledger, roles, arena)),
        (*notes, *ledger.notes),
        schema,
        ledger.statements,
        ledger.programs,
        len(arena.world.tenants),
        blind=False,
        interrupted=True,
        lost=said,
    )


def _unseeded(arena: Arena) -> str:
    """The server's last word on the tenant registry, when it holds no row of any tenant."""
    root = arena.tenancy.registry
    if root is None or any(arena.world.of(root, tenant.key) for tenant in arena.world.tenants):
        return ""
    relation = arena.catalog.relation(root)
    return f"{relation.qualified}: {arena.world.failures.get(root, 'no row of it could be made')}"
