"""The probe from end to end: seed, sweep, context, doors, workloads, detector, judge, shrink, replay."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from rlsaudit import interrupt
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.errors import RlsauditError
from rlsaudit.probe import parallel
from rlsaudit.probe.attacking import attack, listen
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.comparing import interfere
from rlsaudit.probe.detector import planting
from rlsaudit.probe.ground.leak import shortest
from rlsaudit.probe.judging import judge, partial
from rlsaudit.probe.judging.findings import as_finding, as_unstable
from rlsaudit.probe.judging.functions import function_cells
from rlsaudit.probe.judging.opening import without
from rlsaudit.probe.judging.telling import worth_telling
from rlsaudit.probe.ledger import Ledger
from rlsaudit.probe.replay.script import Stage, schema_script
from rlsaudit.probe.replaying import replayed, seeded, spoilt
from rlsaudit.probe.result import ProbeResult, Progress, Scratch
from rlsaudit.probe.seeding import logins, plan
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
) -> ProbeResult:
    """Attack a copy of ``database``, a loaded scratch database with the objects of ``catalog``; it is left unseeded.

    ``budget`` is the time in seconds for random workloads, over all roles; ``jobs`` how many sessions sweep at once,
    ``examples`` a directory that keeps the workloads' hard examples.
    """
    interrupt.obey()
    notes = _let_in(server, database, catalog, tenancy)
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
        arena = Arena(catalog, tenancy, Visibility(catalog), world)
        ledger.arena = arena
        worlds = parallel.copies(server, names.world, arena, jobs)
        names.also += worlds[1:]
        for number, role in enumerate(tenancy.roles):
            progress(f"attacking as {role.name}", number, len(tenancy.roles))
            seconds = budget / len(tenancy.roles)
            attack(
                server, worlds, arena, role, ledger, seed=seed, seconds=seconds, progress=progress, examples=examples
            )
        return _judged(server, database, names, arena, ledger, notes, plant, progress)
    except (KeyboardInterrupt, SystemExit, RlsauditError, psycopg.Error) as error:
        if ledger.arena is None or not interrupt.ends(error):
            raise  # nothing was attacked yet, or no signal came
        return _interrupted(server, database, ledger.arena, ledger, notes)
    finally:
        interrupt.remember()
        for name in names.all:
            server.drop_database(name)
        if made:
            with server.connect(database) as connection:
                logins.drop(connection, made)


@dataclass
class _Names:
    """The databases of one run."""

    suffix: str
    also: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world, self.wide, self.bare, self.planted, self.visits, self.heard = (
            f"rlsaudit_{kind}_{self.suffix}" for kind in ("world", "wide", "bare", "planted", "visits", "heard")
        )

    @property
    def all(self) -> tuple[str, ...]:
        return (self.world, self.wide, self.bare, self.planted, self.visits, self.heard, *self.also)


def _judged(
    server: Scratch, database: str, names: _Names, arena: Arena, ledger: Ledger, notes: tuple[str, ...],
    mode: planting.Mode, progress: Progress,
) -> ProbeResult:  # fmt: skip
    """After the attack: whether it could see, what differs between worlds, and the leaks shown again."""
    catalog, roles = arena.catalog, arena.tenancy.roles
    listen(server, names.world, names.heard, without(arena, ledger.opening), roles, ledger)
    progress("checking that the probe can see", 0, 1)
    server.create_database(names.wide, names.world)
    detected, unnoticed = detect(server, names.wide, arena, roles, ledger.tried)
    ordinary = without(arena, ledger.opening)
    planted = plant_leaks(server, names.world, names.planted, ordinary, roles, ledger, mode)
    progress("comparing worlds with and without other tenants", 0, 1)
    replaced = interfere(server, names.world, names.suffix, ordinary, roles, ledger, planted, mode)
    spoilt(server, names.bare, ordinary, ledger)
    leaks = shortest(ledger.leaks)
    cells = judge.cells(arena, roles, ledger.tried, detected.sensitive, leaks)
    cells = judge.without_missed(catalog, cells, planted.missed)
    cells += function_cells(ledger.called, leaks)
    schema = schema_script(server.dump_schema(database, data=True), catalog)
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
    )


def _interrupted(server: Scratch, database: str, arena: Arena, ledger: Ledger, notes: tuple[str, ...]) -> ProbeResult:
    """What was found until a signal came; its leaks were not replayed."""
    interrupt.remember()
    roles = arena.tenancy.roles
    found = partial.leaks(arena, roles, ledger.tried, ledger.leaks)
    schema = schema_script(server.dump_schema(database, data=True), arena.catalog) if found else ""
    stage = Stage(arena.catalog, arena.tenancy, arena.world.tenants)
    return ProbeResult(
        partial.cells(arena, roles, ledger.tried, found),
        partial.findings(stage, found, seeded(arena)),
        partial.properties(properties(ledger, roles, arena)),
        (*notes, *ledger.notes),
        schema,
        ledger.statements,
        ledger.programs,
        len(arena.world.tenants),
        blind=False,
        interrupted=True,
    )


def _unseeded(arena: Arena) -> str:
    """The server's last word on the tenant registry, when it holds no row of any tenant."""
    root = arena.tenancy.registry
    if root is None or any(arena.world.of(root, tenant.key) for tenant in arena.world.tenants):
        return ""
    relation = arena.catalog.relation(root)
    return f"{relation.qualified}: {arena.world.failures.get(root, 'no row of it could be made')}"


def _let_in(server: Scratch, database: str, catalog: Catalog, tenancy: Tenancy) -> tuple[str, ...]:
    """Real logins need LOGIN and CONNECT; in the scratch cluster only, and said in the report."""
    if server.shared:
        return ()
    if tenancy.context.login:
        keys = ", ".join(plan.key_families(tenancy)[0])
        return (f"In the scratch copy each tenant ({keys}) logs in as a role of its own: {tenancy.context.why}.",)
    changed = []
    with server.connect(database) as connection:
        for role in tenancy.roles:
            known, who = catalog.role(role.oid), sql.Identifier(role.name)
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN CONNECTION LIMIT -1").format(who))
            question = "SELECT pg_catalog.has_database_privilege(%s, %s, 'CONNECT')"
            row = connection.execute(question, (role.name, connection.info.dbname)).fetchone()
            if row == (False,):
                here = sql.Identifier(connection.info.dbname)
                connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(here, who))
            if not known.login or row == (False,):
                changed.append(role.name)
    return (f"In the scratch copy these roles were allowed to log in: {', '.join(changed)}.",) if changed else ()
