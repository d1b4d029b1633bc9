"""The probe from end to end: seed, sweep, context, doors, workloads, detector, judge, shrink, replay."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, Protocol

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog, Relation
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.finding import Cell, Finding, Property, PropertyResult
from rlsaudit.probe import context, detector, doors, judge, ownership
from rlsaudit.probe.absence import remove_others, replace_others
from rlsaudit.probe.findings import as_finding
from rlsaudit.probe.interference import WorldName, interferences
from rlsaudit.probe.leak import Leak, Place, Tried, shortest
from rlsaudit.probe.populate import populate
from rlsaudit.probe.replay import SCHEMA_FILE, SeedRow, Stage, schema_script, script
from rlsaudit.probe.replay_worlds import two_worlds
from rlsaudit.probe.session import Session
from rlsaudit.probe.shrink import shrink_rows, shrink_worlds
from rlsaudit.probe.sweep import Arena, CellKey, sweep
from rlsaudit.probe.telling import Told, worth_telling
from rlsaudit.probe.workload import workloads
from rlsaudit.tenancy.model import ApplicationRole, Tenancy

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done and how many there are."""

EXAMPLES = 150
"""Random programs per Hypothesis round and role."""


class Scratch(Protocol):
    """What the probe needs of a scratch server; ``rlsaudit.source.server.ScratchServer`` is one."""

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


@dataclass
class _Ledger:
    """What one run gathers."""

    tried: dict[CellKey, Tried] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)
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
) -> ProbeResult:
    """Attack a copy of ``database``, a loaded scratch database with the objects of ``catalog``; it is left unseeded.

    ``budget`` is the time in seconds for random workloads, over all roles.
    """
    notes = _let_in(server, database, catalog, tenancy.roles)
    suffix = secrets.token_hex(3)
    world_name, wide_name, bare_name = (f"rlsaudit_{kind}_{suffix}" for kind in ("world", "wide", "bare"))
    try:
        server.create_database(world_name, database)
        server.create_database(bare_name, database)
        progress("seeding tenants", 0, 1)
        with server.connect(world_name) as connection:
            world = populate(connection, catalog, tenancy)
        arena = Arena(catalog, tenancy, Visibility(catalog), world)
        ledger = _Ledger()
        for number, role in enumerate(tenancy.roles):
            progress(f"attacking as {role.name}", number, len(tenancy.roles))
            _attack(server, world_name, arena, role, ledger, seed=seed, seconds=budget / len(tenancy.roles))
        progress("checking that the probe can see", 0, 1)
        server.create_database(wide_name, world_name)
        detected, unnoticed = _detect(server, wide_name, arena, tenancy.roles, ledger.tried)
        progress("comparing worlds with and without other tenants", 0, 1)
        replaced = _interfere(server, world_name, suffix, arena, tenancy.roles, ledger)
        leaks = shortest(ledger.leaks)
        cells = judge.cells(arena, tenancy.roles, ledger.tried, detected.sensitive, leaks)
        schema = schema_script(server.dump_schema(database, data=True), catalog)
        replayed = _replayed(server, bare_name, arena, worth_telling(catalog, leaks), schema, replaced, progress)
        findings = tuple(as_finding(catalog, one, text) for one, text, shown in replayed if shown)
        cells = judge.without_replay(catalog, cells, [one for one, _, shown in replayed if not shown])
    finally:
        for name in (world_name, wide_name, bare_name):
            server.drop_database(name)
    properties = _properties(ledger, tenancy.roles, arena)
    detector_result, blind = _detector(arena, tenancy.roles, detected, unnoticed)
    return ProbeResult(
        cells,
        findings,
        (*properties, detector_result),
        notes,
        schema,
        ledger.statements,
        ledger.programs,
        len(world.tenants),
        blind,
        _unseeded(arena),
    )


def _unseeded(arena: Arena) -> str:
    """The server's last word on the tenant registry, when it holds no row of any tenant."""
    root = arena.tenancy.registry
    if root is None or any(arena.world.of(root, tenant.key) for tenant in arena.world.tenants):
        return ""
    relation = arena.catalog.relation(root)
    return f"{relation.qualified}: {arena.world.failures.get(root, 'no row of it could be made')}"


def _let_in(server: Scratch, database: str, catalog: Catalog, roles: Iterable[ApplicationRole]) -> tuple[str, ...]:
    """Real logins need LOGIN and CONNECT; in the scratch cluster only, and said in the report."""
    changed = []
    with server.connect(database) as connection:
        for role in roles:
            known = catalog.role(role.oid)
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN CONNECTION LIMIT -1").format(sql.Identifier(role.name)))
            if not known.login:
                changed.append(role.name)
    return (f"In the scratch copy these roles were allowed to log in: {', '.join(changed)}.",) if changed else ()


def _attack(
    server: Scratch,
    database: str,
    arena: Arena,
    role: ApplicationRole,
    ledger: _Ledger,
    *,
    seed: int,
    seconds: float,
) -> None:
    session = Session(server.conninfo(database, role.name), role.name)
    try:
        for key, tried in sweep(arena, session, role.oid, arena.relations()):
            ledger.tried[key] = tried
            ledger.leaks += tried.leaks
        for trial in context.closed(arena, session, role.oid):
            ledger.counts["closed", role.name] += 1
            ledger.leaks += [trial.leak] if trial.leak else []
        wide_open = {
            leak.relation for leak in ledger.leaks if leak.breaks in ("closed", "read") and leak.role == role.name
        }
        for trial in context.carryover(arena, session, role.oid):
            ledger.counts["carryover", role.name] += 1
            # What is open anyway needs no other tenant's visit.
            ledger.leaks += [trial.leak] if trial.leak and trial.relation not in wide_open else []
        session.close()
        for _, leak in doors.functions(arena, session, role.oid):
            ledger.counts["read", role.name] += 1
            ledger.leaks += [leak] if leak else []
        for _, leak in doors.truncations(arena, session, role.oid):
            ledger.counts["write", role.name] += 1
            ledger.leaks += [leak] if leak else []
        seen: set[Place] = {leak.place for leak in ledger.leaks}
        found, programs = workloads(arena, session, role.oid, seed=seed, examples=EXAMPLES, seconds=seconds, seen=seen)
        ledger.leaks += found
        ledger.programs += programs
    finally:
        session.close()
        ledger.statements += session.statements


def _detect(
    server: Scratch, database: str, arena: Arena, roles: Sequence[ApplicationRole], tried: Mapping[CellKey, Tried]
) -> tuple[detector.Detected, tuple[Relation, ...]]:
    with server.connect(database) as connection:
        detector.open_wide(connection, arena.catalog)
        unnoticed = detector.unnoticed(connection, arena)
    sessions = [(role.oid, Session(server.conninfo(database, role.name), role.name)) for role in roles]
    try:
        return detector.detect(arena, sessions, tried), unnoticed
    finally:
        for _, session in sessions:
            session.close()


def _interfere(
    server: Scratch, world: str, suffix: str, arena: Arena, roles: Sequence[ApplicationRole], ledger: _Ledger
) -> list[SeedRow]:
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
    finally:
        for made in names.values():
            server.drop_database(made)
    return replaced


def _compare(
    server: Scratch, world: str, names: Mapping[WorldName, str], arena: Arena, role: ApplicationRole, ledger: _Ledger
) -> None:
    present = Session(server.conninfo(world, role.name), role.name)
    others = {kind: Session(server.conninfo(made, role.name), role.name) for kind, made in names.items()}
    open_anyway = frozenset(
        leak.function or leak.relation
        for leak in ledger.leaks
        if leak.role == role.name and leak.breaks in ("read", "closed")
    )
    try:
        for leak in interferences(arena, role.oid, present, others, open_anyway):
            ledger.counts["interference", role.name] += 1
            ledger.leaks += [leak] if leak else []
    finally:
        for session in (present, *others.values()):
            session.close()
            ledger.statements += session.statements


def _stored(connection: psycopg.Connection[tuple[object, ...]], arena: Arena) -> list[SeedRow]:
    """Every row of every tenant as it stands in that database."""
    return [
        SeedRow(relation, row, owner)
        for relation in ownership.digested(arena.catalog, arena.tenancy)
        for owner, row in ownership.owned_rows(
            connection, arena.catalog, arena.tenancy.of(relation.oid), arena.world.tenants
        )
    ]


def _replayed(
    server: Scratch, bare: str, arena: Arena, told: tuple[Told, ...], schema: str, replaced: Sequence[SeedRow],
    progress: Progress,
) -> list[tuple[Told, str, bool]]:  # fmt: skip
    """(leak, its shrunk script, whether psql shows it again).  psql works on one leak while the next is shrunk."""
    rows = [
        SeedRow(relation, row, owner)
        for relation in ownership.digested(arena.catalog, arena.tenancy)
        for (oid, owner), found in arena.world.rows.items()
        if oid == relation.oid
        for row in found
    ]
    stage = Stage(arena.catalog, arena.tenancy, arena.world.tenants)
    waiting: list[tuple[Told, str, Future[bool]]] = []
    with server.connect(bare) as connection, ThreadPoolExecutor(1) as pool:
        for number, one in enumerate(told):
            progress("shrinking and replaying leaks", number, len(told))
            if one.leak.breaks == "interference":
                text = two_worlds(stage, one.leak, *shrink_worlds(connection, stage, one.leak, rows, replaced))
            else:
                text = script(stage, one.leak, shrink_rows(connection, stage, one.leak, rows))
            waiting.append((one, text, pool.submit(confirm, server, text, schema)))
        return [(one, text, shown.result()) for one, text, shown in waiting]


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
            leaks = sum(leak.breaks == broken and leak.role == role.name for leak in shortest(ledger.leaks))
            trials = ledger.counts[broken, role.name] + (swept if broken in ("read", "write", "forge") else 0)
            outcome: Literal["held", "leak", "not covered"] = "leak" if leaks else "held" if trials else "not covered"
            reason = f"{leaks} place(s) leak" if leaks else "nothing crossed" if trials else "nothing could be tried"
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
    arena: Arena, roles: Sequence[ApplicationRole], detected: detector.Detected, unnoticed: tuple[Relation, ...]
) -> tuple[PropertyResult, bool]:
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
    blind = bool(unnoticed) or (tried and not found)
    if unnoticed:
        reason = f"rows removed from {', '.join(relation.qualified for relation in unnoticed)} went unnoticed"
    elif guarded:
        reason = (
            f"with row security switched off in a copy, leaks appear in {found} of {len(guarded)} guarded SELECT cells"
        )
    else:
        reason = "no relation is guarded by row security, so there was nothing to switch off"
    outcome: Literal["held", "not covered"] = "held" if found and not unnoticed else "not covered"
    return PropertyResult("detector", "", outcome, len(guarded), reason), blind
