"""One run from a SOURCE to a finished Report: open, load, infer, then audit, prove and probe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from rlsaudit.allow import Allowed, require_known
from rlsaudit.assemble import assemble
from rlsaudit.baseline import Baseline
from rlsaudit.catalog import snapshot
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.cells import doubts_of
from rlsaudit.check import registry, run_checks
from rlsaudit.collecting import without_collecting
from rlsaudit.copying import Server, copied
from rlsaudit.describe import provenance
from rlsaudit.doubt import Doubt
from rlsaudit.errors import NotTrustworthy, UsageError
from rlsaudit.finding import Finding, Severity
from rlsaudit.own import OwnStatement
from rlsaudit.pieces import Pieces
from rlsaudit.places import within
from rlsaudit.probe.detector.planting import Mode
from rlsaudit.probe.in_place import probe_in_place
from rlsaudit.probe.parallel import jobs_for
from rlsaudit.probe.planner.plans import Planned, plans
from rlsaudit.probe.planner.plans import findings as plan_findings
from rlsaudit.probe.result import ProbeResult
from rlsaudit.probe.run import probe
from rlsaudit.prove.prove import Proof, prove
from rlsaudit.report import HistoryEntry, Report
from rlsaudit.shards import Part, Shard, checked, focus, joined
from rlsaudit.source import dsn, presets
from rlsaudit.source.held import held
from rlsaudit.source.load import load_sql
from rlsaudit.source.open import detect, layout, sql_files
from rlsaudit.source.presets import platform
from rlsaudit.source.server import ScratchServer
from rlsaudit.source.stand_in import STAND_IN, stand_in
from rlsaudit.source.statements import recorded
from rlsaudit.tenancy.infer import Declared, infer
from rlsaudit.tenancy.model import TENANT_DATA, Tenancy
from rlsaudit.untested import Untested, withheld
from rlsaudit.waivers import Waiver

DATABASE = "rlsaudit_source"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """What to scan and how."""

    source: str
    stdin: BinaryIO
    declared: Declared = field(default_factory=Declared)
    allowed: tuple[Allowed, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    baseline: Baseline | None = None
    """The earlier run whose findings do not fail this one."""
    history: tuple[HistoryEntry, ...] = ()
    pg_bin: Path | None = None
    scratch_on_target: bool = False
    """Whether a live database is copied into databases of ours on its own cluster."""
    in_place: bool = False
    """Whether a live database is attacked itself, in one transaction that is rolled back."""
    agreed: bool = False
    """Whether that may be done although the database looks like production."""
    preset: str = ""
    """Platform whose schemas and roles are made before the SQL of the source is loaded."""
    seed: int = 0
    budget: float = 5.0
    jobs: int = 0
    """Sessions that sweep at once; 0 for one per core, four at most."""
    examples: Path | None = None
    """Directory in which random workloads keep their hard examples for the next run."""
    fail_on: Severity = "medium"
    auditing: bool = True
    probing: bool = True
    shard: Shard | None = None
    """The part of the relations that is attacked; then there is no verdict."""
    own: tuple[OwnStatement, ...] = ()
    """Statements of the application that the probe runs as they are."""
    recorded: bool = False
    """Whether those that the target's pg_stat_statements has seen are run too."""
    detector: Mode = "sample"
    """Whether rlsaudit plants one leak of its own in each cell, or every kind that applies."""
    plans: bool = False
    """Whether queries are planned on a scratch copy as if the tables were large."""
    command: tuple[str, ...] = ()
    configuration_hash: str = ""


@dataclass(frozen=True)
class Scanned:
    report: Report
    schema: str
    """``schema.sql`` for replay scripts; empty when nothing was probed."""
    planned: tuple[Planned, ...] = ()
    interrupted: bool = False
    """A signal ended the run early; the report says what was found until then."""
    part: Part | None = None
    """What a part of a run found; then the report is none of the whole."""


@dataclass(frozen=True)
class Opened:
    """A source that has been read: its catalog, what it means, and where a scratch copy can be had."""

    catalog: Catalog
    tenancy: Tenancy
    notes: tuple[str, ...]
    server: Server | None
    """Running and holding ``DATABASE``; None for a snapshot, and for a DSN that is only audited."""
    scratch_catalog: Catalog | None
    scratch_tenancy: Tenancy | None
    recorded: tuple[OwnStatement, ...] = ()
    """What pg_stat_statements has seen on the target."""
    gaps: Untested = field(default_factory=Untested)
    """What of the target the scratch copy does not have."""
    places: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Where the SQL of the source last defined an object: its identity → file and line."""

    @property
    def live(self) -> bool:
        """Whether the catalog is that of the user's own server."""
        return self.scratch_catalog is not self.catalog


def scan(options: Options, progress: Progress) -> Scanned:
    """Run the whole job.

    Raises UsageError (the input is wrong) or NotTrustworthy (no verdict can be given: nothing to test, cannot connect).
    """
    phases: list[tuple[str, float]] = []
    started, clock = datetime.now(UTC), time.monotonic()
    require_known(options.allowed, [one.id for one in registry()])
    with ExitStack() as stack:
        with without_collecting():
            with _timed("load", phases):
                opened = stack.enter_context(open_source(options, progress))
            audited = _audited(opened, options, progress, phases)
        return _examined(opened, audited, options, progress, phases, started, clock)


def scan_again(opened: Opened, options: Options, progress: Progress) -> Scanned:
    """The whole job on the scratch copy as it is now, after fixes have been tried on it.

    Raises NotTrustworthy when there is no scratch copy.
    """
    server = opened.server
    if server is None or opened.scratch_tenancy is None:
        raise NotTrustworthy("there is no scratch copy to scan again")
    declared = replace(options.declared, roles=tuple(role.name for role in opened.scratch_tenancy.roles))
    phases: list[tuple[str, float]] = []
    started, clock = datetime.now(UTC), time.monotonic()
    with without_collecting():
        with server.connect(DATABASE) as connection:
            catalog = load_catalog(connection)
        tenancy = infer(catalog, declared)
        again = Opened(catalog, tenancy, opened.notes, server, catalog, tenancy)
        audited = _audited(again, options, progress, phases)
    return _examined(again, audited, options, progress, phases, started, clock)


def _audited(
    opened: Opened, options: Options, progress: Progress, phases: list[tuple[str, float]]
) -> tuple[tuple[Finding, ...], tuple[Planned, ...]]:
    require_subject(opened)
    with _timed("audit", phases):
        progress("auditing the catalog", 0, 1)
        found = run_checks(opened.catalog, opened.tenancy, live=opened.live) if options.auditing else ()
        planned = _plans(opened, progress) if options.plans else ()
        return (*found, *plan_findings(_unexplained(planned, found))), planned


def _examined(
    opened: Opened,
    audited: tuple[tuple[Finding, ...], tuple[Planned, ...]],
    options: Options,
    progress: Progress,
    phases: list[tuple[str, float]],
    started: datetime,
    clock: float,
) -> Scanned:
    found, planned = audited
    proofs: tuple[Proof, ...] = ()
    probed: ProbeResult | None = None
    if options.probing:
        with _timed("prove", phases):
            progress("proving policies", 0, 1)
            proofs = prove(opened.catalog, opened.tenancy, Visibility(opened.catalog))
        with _timed("probe", phases):
            probed = _probe(opened, options, doubts_of(opened.catalog, opened.tenancy, proofs), progress)
            probed = withheld(probed, opened.gaps, opened.catalog, opened.tenancy) if probed else None
    pieces = Pieces(
        catalog=opened.catalog, tenancy=opened.tenancy, findings=found, proofs=proofs, probed=probed,
        notes=opened.notes, source=dsn.redact(options.source), places=opened.places,
        allowed=options.allowed if options.auditing else (), waivers=options.waivers, baseline=options.baseline, history=options.history,
        command=tuple(map(dsn.redact, options.command)), configuration_hash=options.configuration_hash,
        seed=options.seed, fail_on=options.fail_on, scratch_version=opened.server.version if opened.server else "",
        started=started, seconds=time.monotonic() - clock, phases=tuple(phases),
        interrupted=probed is not None and probed.interrupted,
    )  # fmt: skip
    part = _part(pieces, opened, options) if options.shard is not None else None
    return Scanned(assemble(pieces), probed.schema if probed else "", planned, pieces.interrupted, part)


def _part(pieces: Pieces, opened: Opened, options: Options) -> Part | None:
    if options.shard is None or pieces.probed is None:
        return None
    told, mine = provenance(pieces), focus(options.shard, pieces.catalog)
    return Part(
        shard=str(options.shard), tool_version=told.tool_version, package_hash=told.package_hash, source=pieces.source,
        preset=options.preset, live=opened.live, configuration_hash=pieces.configuration_hash, seed=pieces.seed,
        scratch_version=pieces.scratch_version, started=pieces.started.isoformat(), seconds=round(pieces.seconds, 3),
        catalog_fingerprint=told.catalog_fingerprint, catalog=snapshot.save(pieces.catalog),
        relations=tuple(sorted(mine.relations)), functions=tuple(sorted(mine.functions)), notes=pieces.notes,
        places=tuple((name, *place) for name, place in pieces.places.items()),
        probed=replace(pieces.probed, settled={}),
        settled=tuple((*name, one.said, one.opened) for name, one in pieces.probed.settled.items()),
    )  # fmt: skip


def merge(parts: Sequence[Part], options: Options, progress: Progress) -> Scanned:
    """The whole run out of its parts: audited and proven again on their catalog, probed as they did.

    Raises NotTrustworthy when the parts are not those of one whole run, UsageError when their catalog cannot be read.
    """
    phases: list[tuple[str, float]] = []
    clock = time.monotonic()
    catalog = snapshot.parse(parts[0].catalog)
    if any(part.configuration_hash != options.configuration_hash for part in parts):
        raise NotTrustworthy("the parts were made with another configuration than the one that is in force here")
    parts = checked(parts, catalog)
    first = parts[0]
    tenancy = infer(catalog, _declared(replace(options, preset=first.preset), catalog))
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    places = {name: (file, line) for name, file, line in first.places}
    opened = Opened(catalog, tenancy, notes, None, None if first.live else catalog, None, places=places)
    found, _ = _audited(opened, options, progress, phases)
    with _timed("prove", phases):
        proofs = prove(catalog, tenancy, Visibility(catalog))
    probed = joined(parts)
    pieces = Pieces(
        catalog=catalog, tenancy=tenancy, findings=found, proofs=proofs, probed=probed, notes=notes, source=first.source,
        places=places, allowed=options.allowed, waivers=options.waivers, baseline=options.baseline, history=options.history,
        command=tuple(map(dsn.redact, options.command)), configuration_hash=options.configuration_hash, seed=first.seed,
        fail_on=options.fail_on, scratch_version=first.scratch_version,
        started=min(datetime.fromisoformat(part.started) for part in parts),
        seconds=sum(part.seconds for part in parts) + time.monotonic() - clock, phases=tuple(phases),
        interrupted=probed.interrupted,
    )  # fmt: skip
    return Scanned(assemble(pieces), probed.schema, (), probed.interrupted)


@contextmanager
def open_source(options: Options, progress: Progress) -> Iterator[Opened]:
    """Read the source; the scratch server runs while the block does."""
    kind = detect(options.source)
    ways = [name for name, chosen in _ways(options) if chosen]
    if ways and kind != "dsn":
        raise UsageError(f"{ways[0]} is for a live database: give a connection string")
    if len(ways) > 1:
        raise UsageError(f"{' and '.join(ways)} are two ways to test a live database: choose one")
    if ways and options.plans:
        raise UsageError(f"--plans reaches into the scratch server's files, so it wants one of our own: no {ways[0]}")
    if options.recorded and kind != "dsn":
        raise UsageError("--statements-from-stats asks a live database: give a connection string")
    if (options.own or options.recorded) and options.in_place:
        raise UsageError("own statements are run in a scratch copy: leave out --in-place")
    if options.preset and kind in ("snapshot", "dsn"):
        raise UsageError(f"--preset {options.preset} is for SQL; a live database has what its platform made")
    if kind == "snapshot":
        if options.probing:
            raise UsageError(f"{options.source}: a snapshot can be audited but not probed; use rlsaudit audit")
        if options.plans:
            raise UsageError(
                f"{options.source}: there is no copy of a snapshot to plan on; give --plans the database or its SQL"
            )
        catalog = _saved(options.source)
        yield Opened(catalog, infer(catalog, options.declared), (), None, None, None)
    elif kind == "dsn":
        with _live(options, progress) as opened:
            yield opened
    else:
        with _loaded(options, progress) as opened:
            yield opened


def _ways(options: Options) -> tuple[tuple[str, bool], ...]:
    return ("--scratch-on-target", options.scratch_on_target), ("--in-place", options.in_place)


def _saved(source: str) -> Catalog:
    try:
        return snapshot.parse(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{source}: cannot be read: {error}") from error
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error


@contextmanager
def _live(options: Options, progress: Progress) -> Iterator[Opened]:
    progress("reading the database", 0, 1)
    with dsn.connect(options.source) as connection:
        catalog = load_catalog(connection)
        seen = recorded(connection) if options.recorded else ()
    tenancy = infer(catalog, options.declared)
    if options.in_place or not (options.probing or options.plans):
        yield Opened(catalog, tenancy, tenancy.notes, None, None, None)
        return
    progress("copying the schema", 0, 1)
    with copied(
        options.source,
        options.pg_bin,
        DATABASE,
        catalog,
        tenancy,
        options.declared,
        on_target=options.scratch_on_target,
    ) as copy:
        notes = (*tenancy.notes, *copy.notes)
        yield Opened(catalog, tenancy, notes, copy.server, copy.catalog, copy.tenancy, seen, copy.gaps)


@contextmanager
def _loaded(options: Options, progress: Progress) -> Iterator[Opened]:
    files = sql_files(options.source, options.stdin)
    if options.preset:
        files = (presets.preset(options.preset), *files)
    progress("starting a scratch server", 0, 1)
    with ScratchServer(options.pg_bin) as server:
        server.create_database(DATABASE)
        progress("loading the schema", 0, 1)
        loaded = load_sql(
            lambda: server.connect(DATABASE), files, offered=presets.EXTENSIONS.get(options.preset, frozenset())
        )
        read = [said] if (said := layout(options.source)) else []
        notes = [*read, *presets.notes(options.preset, loaded.roles_created), *loaded.notes]
        if loaded.roles_created:
            notes.append(
                f"Roles that the SQL names but does not create were created: {', '.join(loaded.roles_created)}."
            )
        with server.connect(DATABASE) as connection:
            catalog = load_catalog(connection)
            declared = _declared(options, catalog)
            tenancy = infer(catalog, declared)
            if not tenancy.roles and any(c.kind in TENANT_DATA for c in tenancy.relations.values()):
                stand_in(connection, catalog)
                notes.append(
                    f"No role of the schema holds a privilege on tenant data, so role {STAND_IN} with SELECT, INSERT, UPDATE "
                    "and DELETE on everything was made in the scratch copy and tested in the application's place."
                )
                catalog = load_catalog(connection)
                tenancy = infer(catalog, declared)
        yield Opened(
            catalog,
            tenancy,
            (*tenancy.notes, *notes),
            server,
            catalog,
            tenancy,
            places=within(loaded.places, Path.cwd()),
        )


def _declared(options: Options, catalog: Catalog) -> Declared:
    """The configuration, and what the platform of the SQL adds to it."""
    declared = platform.relations(options.preset, catalog, options.declared)
    return platform.roles(options.preset, infer(catalog, declared), declared)


def require_subject(opened: Opened) -> None:
    """Nothing to test is no pass."""
    catalog, tenancy = opened.catalog, opened.tenancy
    if not catalog.relations:
        raise NotTrustworthy("the database is empty: no relation in any user schema, so there is nothing to test")
    if not any(c.kind in TENANT_DATA for c in tenancy.relations.values()):
        raise NotTrustworthy(
            'no tenant key column was found, so nothing is known to be tenant data: name it with key = "…" under [tenancy] '
            "in rlsaudit.toml"
        )
    if not tenancy.roles:
        raise NotTrustworthy("no application role holds a privilege on tenant data: name one with --role")
    visibility = Visibility(catalog)
    relations = [catalog.relation(oid) for oid in tenancy.tenant_data()]
    for role in tenancy.roles:
        if not any(visibility.may(role.oid, r, c) for r in relations for c in ("SELECT", "INSERT", "UPDATE", "DELETE")):
            raise NotTrustworthy(
                f"role {role.name} holds no privilege on any tenant relation, so there is nothing to test as it"
            )


def _plans(opened: Opened, progress: Progress) -> tuple[Planned, ...]:
    if opened.server is None or opened.scratch_catalog is None or opened.scratch_tenancy is None:
        return ()
    return plans(opened.server, DATABASE, opened.scratch_catalog, opened.scratch_tenancy, progress)


def _unexplained(planned: tuple[Planned, ...], found: tuple[Finding, ...]) -> tuple[Planned, ...]:
    """Plans of tables of which no check of speed has said why they are read whole."""
    said = " ".join(one.message for one in found if one.check.startswith("RLS6") and one.severity == "low")
    return tuple(one for one in planned if one.relation not in said)


def _probe(opened: Opened, options: Options, doubts: tuple[Doubt, ...], progress: Progress) -> ProbeResult | None:
    if options.in_place:
        guarded = opened.tenancy.tenant_data()
        with held(options.source, opened.catalog, guarded, agreed=options.agreed) as connection:
            return probe_in_place(connection, opened.catalog, opened.tenancy, progress)
    if opened.server is None or opened.scratch_catalog is None or opened.scratch_tenancy is None:
        return None
    shard = options.shard
    return probe(
        opened.server, DATABASE, opened.scratch_catalog, opened.scratch_tenancy,
        seed=options.seed, budget=options.budget, progress=progress, jobs=jobs_for(options.jobs), plant=options.detector,
        examples=None if options.examples is None else options.examples / snapshot.fingerprint(opened.scratch_catalog)[:16],
        doubts=doubts, own=tuple(one for one in options.own + opened.recorded if shard is None or shard.has(one.label)),
        focus=None if shard is None else focus(shard, opened.scratch_catalog),
    )  # fmt: skip


@contextmanager
def _timed(phase: str, phases: list[tuple[str, float]]) -> Iterator[None]:
    begun = time.monotonic()
    yield
    phases.append((phase, round(time.monotonic() - begun, 3)))
