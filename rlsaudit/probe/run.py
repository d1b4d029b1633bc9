"""The probe from end to end: seed, sweep, context, doors, workloads, detector, judge, shrink, replay."""

from __future__ import annotations

import hashlib
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog, Relation
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.finding import Cell, Finding, Property, PropertyResult
from rlsaudit.probe import parallel
from rlsaudit.probe.attacks import context, doors, pools
from rlsaudit.probe.attacks.absence import remove_others, replace_others
from rlsaudit.probe.attacks.escalate import escalate
from rlsaudit.probe.attacks.interference import WorldName, interferences
from rlsaudit.probe.attacks.pointing import pointings
from rlsaudit.probe.attacks.sweep import Arena, CellKey
from rlsaudit.probe.attacks.workload import workloads
from rlsaudit.probe.detector import planting, unguarded
from rlsaudit.probe.detector.planting_worlds import plant_unique
from rlsaudit.probe.ground import ownership
from rlsaudit.probe.ground.leak import Leak, Place, Tried, shortest
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.ground.world import SHARED
from rlsaudit.probe.judging import judge, partial
from rlsaudit.probe.judging.findings import as_finding, as_unstable
from rlsaudit.probe.judging.functions import function_cells
from rlsaudit.probe.judging.opening import openers, told_apart, without
from rlsaudit.probe.judging.telling import Told, worth_telling
from rlsaudit.probe.replay.script import SCHEMA_FILE, SeedRow, Stage, role_settings, schema_script, script
from rlsaudit.probe.replay.shrink import shrink_rows, shrink_worlds
from rlsaudit.probe.replay.shrink_visits import shrink_visits
from rlsaudit.probe.replay.worlds import two_worlds
from rlsaudit.probe.seeding import logins, plan
from rlsaudit.probe.seeding.populate import populate
from rlsaudit.tenancy.model import ApplicationRole, Persona, Tenancy

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done and how many there are."""

EXAMPLES = 150
"""Random programs per Hypothesis round and role."""


class Scratch(Protocol):
    """What the probe needs of a scratch server; ``rlsaudit.source.server.ScratchServer`` is one."""

    @property
    def shared(self) -> bool:
        """Whether the cluster is the user's, whose roles stay as they are."""
        ...

    def conninfo(self, dbname: str = ..., user: str = ...) -> str: ...
    def connect(
        self, dbname: str = ..., user: str = ..., autocommit: bool = ...
    ) -> psycopg.Connection[tuple[object, ...]]: ...
    def create_database(self, name: str, template: str | None = ...) -> None: ...
    def drop_database(self, name: str) -> None: ...
    def dump_schema(self, dbname: str, *, data: bool) -> str: ...
    def run_psql(self, dbname: str, script: str, *, timeout: float) -> tuple[int, str]: ...


@dataclass(frozen=True)
class ProbeResult:
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...]
    properties: tuple[PropertyResult, ...]
    notes: tuple[str, ...]
    schema: str
    """``schema.sql`` that replay scripts read."""
    statements: int
    programs: int
    tenants: int
    blind: bool
    """The detector found nothing that it should have: the run is not trustworthy."""
    unseeded: str = ""
    """Why no tenant at all could be seeded."""
    interrupted: bool = False
    """Cut short by a signal: what is here was found until then."""
    not_tried: tuple[str, ...] = ()
    """What this way of probing leaves out altogether, in sentences; then nothing is called clean."""


@dataclass
class _Ledger:
    """What one run gathers."""

    arena: Arena | None = None
    """None until tenants are seeded."""
    tried: dict[CellKey, Tried] = field(default_factory=dict)
    called: dict[tuple[int, str], doors.Called] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)
    opening: set[Persona] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)
    counts: dict[tuple[Property, str], int] = field(default_factory=lambda: defaultdict(int))
    statements: int = 0
    programs: int = 0


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
    notes = _let_in(server, database, catalog, tenancy)
    catalog, made = logins.prepare(server, database, catalog, tenancy)
    tenancy = logins.reduced(tenancy)
    suffix = secrets.token_hex(3)
    names = [f"rlsaudit_{kind}_{suffix}" for kind in ("world", "wide", "bare", "planted")]
    world_name, wide_name, bare_name, planted_name = names
    ledger = _Ledger()
    try:
        server.create_database(world_name, database)
        server.create_database(bare_name, database)
        progress("seeding tenants", 0, 1)
        with server.connect(world_name) as connection:
            world = populate(connection, catalog, tenancy)
        arena = Arena(catalog, tenancy, Visibility(catalog), world)
        ledger.arena = arena
        worlds = parallel.copies(server, world_name, arena, jobs)
        names += worlds[1:]
        for number, role in enumerate(tenancy.roles):
            progress(f"attacking as {role.name}", number, len(tenancy.roles))
            seconds = budget / len(tenancy.roles)
            _attack(
                server, worlds, arena, role, ledger, seed=seed, seconds=seconds, progress=progress, examples=examples
            )
        progress("checking that the probe can see", 0, 1)
        server.create_database(wide_name, world_name)
        detected, unnoticed = _detect(server, wide_name, arena, tenancy.roles, ledger.tried)
        ordinary = without(arena, ledger.opening)
        planted = _plant(server, world_name, planted_name, ordinary, tenancy.roles, ledger, plant)
        progress("comparing worlds with and without other tenants", 0, 1)
        replaced = _interfere(server, world_name, suffix, ordinary, tenancy.roles, ledger, planted, plant)
        leaks = shortest(ledger.leaks)
        cells = judge.cells(arena, tenancy.roles, ledger.tried, detected.sensitive, leaks)
        cells = judge.without_missed(catalog, cells, planted.missed)
        cells += function_cells(ledger.called, leaks)
        schema = schema_script(server.dump_schema(database, data=True), catalog)
        told = worth_telling(catalog, leaks)
        names.append(f"rlsaudit_visits_{suffix}")
        replayed = _replayed(server, database, bare_name, names[-1], arena, told, schema, replaced, progress)
        findings = tuple((as_finding if shown else as_unstable)(catalog, one, text) for one, text, shown in replayed)
        cells = judge.without_replay(catalog, cells, [one for one, _, shown in replayed if not shown])
    except (KeyboardInterrupt, SystemExit):
        if ledger.arena is None:
            raise  # nothing was attacked yet
        return _interrupted(server, database, ledger.arena, ledger, notes)
    finally:
        for name in names:
            server.drop_database(name)
        if made:
            with server.connect(database) as connection:
                logins.drop(connection, made)
    properties = _properties(ledger, tenancy.roles, arena)
    detector_result, blind = _detector(arena, tenancy.roles, detected, unnoticed, planted)
    return ProbeResult(
        cells,
        findings,
        (*properties, detector_result),
        (*notes, *ledger.notes),
        schema,
        ledger.statements,
        ledger.programs,
        len(world.tenants),
        blind,
        _unseeded(arena),
    )


def _interrupted(server: Scratch, database: str, arena: Arena, ledger: _Ledger, notes: tuple[str, ...]) -> ProbeResult:
    """What was found until a signal came; its leaks were not replayed."""
    roles = arena.tenancy.roles
    found = partial.leaks(arena, roles, ledger.tried, ledger.leaks)
    schema = schema_script(server.dump_schema(database, data=True), arena.catalog) if found else ""
    stage = Stage(arena.catalog, arena.tenancy, arena.world.tenants)
    return ProbeResult(
        partial.cells(arena, roles, ledger.tried, found),
        partial.findings(stage, found, _seeded(arena)),
        partial.properties(_properties(ledger, roles, arena)),
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
            known = catalog.role(role.oid)
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN CONNECTION LIMIT -1").format(sql.Identifier(role.name)))
            if not known.login:
                changed.append(role.name)
    return (f"In the scratch copy these roles were allowed to log in: {', '.join(changed)}.",) if changed else ()


def _session(server: Scratch, database: str, arena: Arena, role: ApplicationRole) -> Session:
    login = logins.entrance(arena.tenancy, role.name)
    settings = role_settings(arena.catalog, role.name) if server.shared else None
    return Session(server.conninfo(database, login), role.name, login=login, settings=settings, patience=arena.patience)


def _attack(
    server: Scratch,
    worlds: Sequence[str],
    arena: Arena,
    role: ApplicationRole,
    ledger: _Ledger,
    *,
    seed: int,
    seconds: float,
    progress: Progress,
    examples: Path | None,
) -> None:
    sessions = [_session(server, world, arena, role) for world in worlds]
    session = sessions[0]
    try:
        for key, tried in parallel.swept(arena, sessions, role.oid, progress):
            ledger.tried[key] = tried
        swept = [leak for key, tried in ledger.tried.items() if key[1] == role.name for leak in tried.leaks]
        opening = openers(arena, ledger.tried, role.name)
        ledger.leaks += told_apart(swept, opening)
        ledger.opening |= set(opening)
        arena = without(arena, opening)
        for trial in context.closed(arena, session, role.oid):
            ledger.counts["closed", role.name] += 1
            ledger.leaks += [trial.leak] if trial.leak else []
        wide_open = {
            leak.relation
            for leak in ledger.leaks
            if leak.breaks in ("closed", "read") and leak.role == role.name and not leak.opened
        }
        for trial in context.carryover(arena, session, role.oid):
            ledger.counts["carryover", role.name] += 1
            # What is open anyway needs no other tenant's visit.
            ledger.leaks += [trial.leak] if trial.leak and trial.relation not in wide_open else []
        for _, kept in pools.states(arena, session, role.oid):
            ledger.counts["carryover", role.name] += 1
            ledger.leaks += [kept] if kept else []
        ledger.notes |= dict.fromkeys(pools.leftovers(arena, session, role.oid))
        for crossed in escalate(arena, session, role.oid, tuple(ledger.leaks)):
            ledger.counts["read", role.name] += 1
            ledger.leaks += [crossed] if crossed else []
        for pointed in pointings(arena, session, role.oid, _open(ledger, role)):
            ledger.counts["read", role.name] += 1
            ledger.leaks += [pointed] if pointed else []
        session.close()
        for called in doors.functions(arena, session, role.oid):
            ledger.called[called.function.oid, role.name] = called
            ledger.counts["read", role.name] += called.trials
            ledger.leaks += called.leaks
        for _, leak in doors.truncations(arena, session, role.oid):
            ledger.counts["write", role.name] += 1
            ledger.leaks += [leak] if leak else []
        seen: set[Place] = {leak.place for leak in ledger.leaks}
        hard = examples / hashlib.sha256(role.name.encode()).hexdigest()[:16] if examples else None
        found, programs = workloads(
            arena, session, role.oid, seed=seed, examples=EXAMPLES, seconds=seconds, seen=seen, database=hard
        )
        ledger.leaks += found
        ledger.programs += programs
    finally:
        for one in sessions:
            one.close()
            ledger.statements += one.statements


def _open(ledger: _Ledger, role: ApplicationRole) -> frozenset[int]:
    """Relations and functions that leak by a single statement."""
    return frozenset(
        leak.function or leak.relation
        for leak in ledger.leaks
        if leak.role == role.name and leak.breaks in ("read", "closed") and not leak.opened
    )


def _detect(
    server: Scratch, database: str, arena: Arena, roles: Sequence[ApplicationRole], tried: Mapping[CellKey, Tried]
) -> tuple[unguarded.Detected, tuple[Relation, ...]]:
    with server.connect(database) as connection:
        unguarded.open_wide(connection, arena.catalog)
        unnoticed = unguarded.unnoticed(connection, arena)
    sessions = [(role.oid, _session(server, database, arena, role)) for role in roles]
    try:
        return unguarded.detect(arena, sessions, tried), unnoticed
    finally:
        for _, session in sessions:
            session.close()


def _plant(
    server: Scratch, world: str, copy: str, arena: Arena, roles: Sequence[ApplicationRole], ledger: _Ledger,
    mode: planting.Mode,
) -> planting.Planted:  # fmt: skip
    """Leaks of rlsaudit's own, one at a time, in the cells where the sweep found none."""
    leaking = {(leak.relation, leak.role, leak.command) for leak in ledger.leaks if not leak.function}
    server.create_database(copy, world)
    sessions = [(role, _session(server, copy, arena, role)) for role in roles]
    try:
        with server.connect(copy) as connection:
            cells = [key for key in ledger.tried if key not in leaking]
            return planting.plant_all(connection, arena, sessions, cells, mode)
    finally:
        for _, session in sessions:
            session.close()
            ledger.statements += session.statements


def _interfere(
    server: Scratch, world: str, suffix: str, arena: Arena, roles: Sequence[ApplicationRole], ledger: _Ledger,
    planted: planting.Planted, mode: planting.Mode,
) -> list[SeedRow]:  # fmt: skip
    """Run the same programs with and without other tenants' rows; gives the rows of the world with other values."""
    names: dict[WorldName, str] = {"absent": f"rlsaudit_absent_{suffix}", "replaced": f"rlsaudit_replaced_{suffix}"}
    actor = arena.world.tenants[0]
    replaced: list[SeedRow] = []
    try:
        for kind, made in names.items():
            server.create_database(made, world)
            with server.connect(made) as connection:
                (remove_others if kind == "absent" else replace_others)(connection, arena, actor)
                if kind == "replaced":
                    replaced = _stored(connection, arena)
        for role in roles:
            _compare(server, world, names, arena, role, ledger)
            _plant_unique(server, world, names, arena, role, ledger, planted, mode)
    finally:
        for made in names.values():
            server.drop_database(made)
    return replaced


def _compare(
    server: Scratch, world: str, names: Mapping[WorldName, str], arena: Arena, role: ApplicationRole, ledger: _Ledger
) -> None:
    present = _session(server, world, arena, role)
    others = {kind: _session(server, made, arena, role) for kind, made in names.items()}
    open_anyway = frozenset(
        leak.function or leak.relation
        for leak in ledger.leaks
        if leak.role == role.name and leak.breaks in ("read", "closed") and not leak.opened
    )
    try:
        for leak in interferences(arena, role.oid, present, others, open_anyway):
            ledger.counts["interference", role.name] += 1
            ledger.leaks += [leak] if leak else []
    finally:
        for session in (present, *others.values()):
            session.close()
            ledger.statements += session.statements


def _plant_unique(
    server: Scratch, world: str, names: Mapping[WorldName, str], arena: Arena, role: ApplicationRole,
    ledger: _Ledger, planted: planting.Planted, mode: planting.Mode,
) -> None:  # fmt: skip
    present = _session(server, world, arena, role)
    others = {kind: _session(server, made, arena, role) for kind, made in names.items()}
    connections = [server.connect(database) for database in (world, *names.values())]
    try:
        plant_unique(connections, arena, role, present, others, mode, planted)
    finally:
        for session in (present, *others.values()):
            session.close()
            ledger.statements += session.statements
        for connection in connections:
            connection.close()


def _seeded(arena: Arena) -> list[SeedRow]:
    """Every row of every tenant as it was seeded."""
    rows = [
        SeedRow(relation, row, owner)
        for relation in ownership.digested(arena.catalog, arena.tenancy)
        for (oid, owner), found in arena.world.rows.items()
        if oid == relation.oid
        for row in found
    ]
    return [*_nobodys(arena), *rows]


def _nobodys(arena: Arena) -> list[SeedRow]:
    """Rows of relations without tenant data that the schema does not bring along itself."""
    return [
        SeedRow(arena.catalog.relation(oid), row, SHARED)
        for oid, found in arena.world.common.items()
        if oid not in arena.world.brought
        for row in found
    ]


def _stored(connection: psycopg.Connection[tuple[object, ...]], arena: Arena) -> list[SeedRow]:
    """Every row of every tenant as it stands in that database."""
    rows = [
        SeedRow(relation, row, owner)
        for relation in ownership.digested(arena.catalog, arena.tenancy)
        for owner, row in ownership.owned_rows(
            connection, arena.catalog, arena.tenancy.of(relation.oid), arena.world.tenants
        )
    ]
    return [*_nobodys(arena), *rows]


def _replayed(  # noqa: PLR0917
    server: Scratch, source: str, bare: str, visited: str, arena: Arena, told: tuple[Told, ...], schema: str,
    replaced: Sequence[SeedRow], progress: Progress,
) -> list[tuple[Told, str, bool]]:  # fmt: skip
    """(leak, its shrunk script, whether psql shows it again).  psql works on one leak while the next is shrunk."""
    rows = _seeded(arena)
    stage = Stage(arena.catalog, arena.tenancy, arena.world.tenants)
    waiting: list[tuple[Told, str, Future[bool]]] = []
    with server.connect(bare) as connection, ThreadPoolExecutor(1) as pool:
        for number, one in enumerate(told):
            progress("shrinking and replaying leaks", number, len(told))
            if one.leak.world:
                text = two_worlds(stage, one.leak, *shrink_worlds(connection, stage, one.leak, rows, replaced))
            else:
                kept = shrink_rows(connection, stage, one.leak, rows)
                if len(one.leak.visits) > 1:
                    kept = _shrunk_visits(server, source, visited, arena, stage, one.leak, kept)
                text = script(stage, one.leak, kept)
            waiting.append((one, text, pool.submit(confirm, server, text, schema)))
        return [_once_more(server, stage, one, text, shown.result(), rows, schema) for one, text, shown in waiting]


def _once_more(
    server: Scratch, stage: Stage, one: Told, text: str, shown: bool, rows: Sequence[SeedRow], schema: str
) -> tuple[Told, str, bool]:  # fmt: skip
    """What does not show again with the fewest rows is run with all of them, before it is called unstable."""
    if shown or one.leak.world:
        return one, text, shown
    whole = script(stage, one.leak, [row for row in rows if row.relation.oid not in one.leak.without])
    return (one, whole, True) if confirm(server, whole, schema) else (one, text, False)


def _shrunk_visits(
    server: Scratch, source: str, visited: str, arena: Arena, stage: Stage, leak: Leak, rows: Sequence[SeedRow]
) -> tuple[SeedRow, ...]:  # fmt: skip
    """The fewest rows of a leak whose visits commit; it is tried in a database that is dropped afterwards."""
    role = next(role for role in arena.tenancy.roles if role.name == leak.role)
    server.create_database(visited, source)
    try:
        with server.connect(visited) as connection:
            return shrink_visits(connection, _session(server, visited, arena, role), stage, leak, rows)
    finally:
        server.drop_database(visited)


def confirm(server: Scratch, text: str, schema: str, timeout: float = 60) -> bool:
    """Run a replay script with the real psql against the scratch server; True when it prints LEAK."""
    return "LEAK" in replay_output(server, text, schema, timeout).splitlines()


def replay_output(server: Scratch, text: str, schema: str, timeout: float = 60) -> str:
    """What psql prints for a replay script whose ``schema.sql`` is ``schema``."""
    _, output = server.run_psql("postgres", text.replace(f"\\ir {SCHEMA_FILE}", schema, 1), timeout=timeout)
    return output


def _properties(ledger: _Ledger, roles: Sequence[ApplicationRole], arena: Arena) -> tuple[PropertyResult, ...]:
    """Run-level results for every role."""
    results: list[PropertyResult] = []
    for role in roles:
        swept = sum(tried.trials for key, tried in ledger.tried.items() if key[1] == role.name)
        for broken in ("read", "write", "forge", "closed", "carryover", "interference"):
            leaks = sum(
                leak.breaks == broken and leak.role == role.name and leak.severity != "low"
                for leak in shortest(ledger.leaks)
            )
            trials = ledger.counts[broken, role.name] + (swept if broken in ("read", "write", "forge") else 0)
            outcome: Literal["held", "leak", "not covered"] = "leak" if leaks else "held" if trials else "not covered"
            reason = f"{leaks} place(s) leak" if leaks else "nothing crossed" if trials else "nothing could be tried"
            if broken == "carryover" and arena.tenancy.context.login and not trials:
                reason = "each tenant logs in as a role of its own, so no connection serves two; SET ROLE in a pool was not tried"
            results.append(PropertyResult(broken, role.name, outcome, trials, reason))
        alive = [
            tried for key, tried in ledger.tried.items() if key[1] == role.name and arena.tenancy.of(key[0]).tenant_data
        ]
        working = sum(tried.alive for tried in alive)
        results.append(
            PropertyResult(
                "alive", role.name, "held" if working else "not covered", len(alive),
                f"own rows reached in {working} of {len(alive)} cells that hold a privilege",
            )
        )  # fmt: skip
    return tuple(results)


def _detector(
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
