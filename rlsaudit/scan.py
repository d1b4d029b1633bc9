"""One run from a SOURCE to a finished Report: open, load, infer, then audit, prove and probe."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from rlsaudit import nights
from rlsaudit.allow import require_known
from rlsaudit.assemble import assemble
from rlsaudit.catalog import snapshot
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.cells import doubts_of
from rlsaudit.check import registry, run_checks
from rlsaudit.clock import Clock
from rlsaudit.collecting import without_collecting
from rlsaudit.describe import provenance
from rlsaudit.doubt import Doubt
from rlsaudit.errors import Leftovers, NotTrustworthy
from rlsaudit.finding import Finding
from rlsaudit.opening import DATABASE, Opened, open_source, require_subject
from rlsaudit.options import Options, Progress
from rlsaudit.pieces import Pieces
from rlsaudit.probe.attacks.sweep import Focus
from rlsaudit.probe.in_place import probe_in_place
from rlsaudit.probe.parallel import jobs_for
from rlsaudit.probe.planner.plans import Planned, plans
from rlsaudit.probe.planner.plans import findings as plan_findings
from rlsaudit.probe.result import ProbeResult
from rlsaudit.probe.run import probe
from rlsaudit.prove.prove import Proof, prove
from rlsaudit.report import Report
from rlsaudit.shards import Part, focus
from rlsaudit.source import dsn
from rlsaudit.source.held import held
from rlsaudit.tenancy.infer import infer
from rlsaudit.untested import withheld


@dataclass(frozen=True)
class Scanned:
    report: Report
    schema: str
    """``schema.sql`` for replay scripts; empty when nothing was probed."""
    planned: tuple[Planned, ...] = ()
    interrupted: bool = False
    """The run ended early, by a signal or because the server was lost; the report says what was found until then."""
    part: Part | None = None
    """What a part of a run found; then the report is none of the whole."""


def scan(options: Options, progress: Progress) -> Scanned:
    """Run the whole job.

    Raises UsageError (the input is wrong) or NotTrustworthy (no verdict can be given: nothing to test, cannot connect).
    """
    clock = Clock()
    require_known(options.allowed, [one.id for one in registry()])
    scanned: Scanned | None = None
    try:
        with ExitStack() as stack:
            with without_collecting():
                with clock.timed("load"):
                    opened = stack.enter_context(open_source(options, progress))
                audit = audited(opened, options, progress, clock)
            scanned = _examined(opened, audit, options, progress, clock)
    except Leftovers as left:
        if scanned is None or not scanned.interrupted:
            raise
        report = scanned.report  # what was found until then is not lost to that as well
        scanned = replace(scanned, report=replace(report, reasons=(*report.reasons, f"{left}.")))
    return scanned


def scan_again(opened: Opened, options: Options, progress: Progress) -> Scanned:
    """The whole job on the scratch copy as it is now, after fixes have been tried on it.

    Raises NotTrustworthy when there is no scratch copy.
    """
    server = opened.server
    if server is None or opened.scratch_tenancy is None:
        raise NotTrustworthy("there is no scratch copy to scan again")
    declared = replace(options.declared, roles=tuple(role.name for role in opened.scratch_tenancy.roles))
    clock = Clock()
    with without_collecting():
        with server.connect(DATABASE) as connection:
            catalog = load_catalog(connection)
        tenancy = replace(infer(catalog, declared), unmet=opened.scratch_tenancy.unmet)
        again = Opened(catalog, tenancy, opened.notes, server, catalog, tenancy)
        audit = audited(again, options, progress, clock)
    return _examined(again, audit, options, progress, clock)


def audited(
    opened: Opened, options: Options, progress: Progress, clock: Clock
) -> tuple[tuple[Finding, ...], tuple[Planned, ...]]:
    """What the checks find, and how the queries were planned.  Raises NotTrustworthy when there is nothing to test."""
    require_subject(opened)
    with clock.timed("audit"):
        progress("auditing the catalog", 0, 1)
        found = run_checks(opened.catalog, opened.tenancy, live=opened.live) if options.auditing else ()
        planned = _plans(opened, progress) if options.plans else ()
        return (*found, *plan_findings(_unexplained(planned, found))), planned


def _examined(
    opened: Opened,
    audit: tuple[tuple[Finding, ...], tuple[Planned, ...]],
    options: Options,
    progress: Progress,
    clock: Clock,
) -> Scanned:
    found, planned = audit
    proofs: tuple[Proof, ...] = ()
    probed: ProbeResult | None = None
    if options.probing:
        with clock.timed("prove"):
            progress("proving policies", 0, 1)
            proofs = prove(opened.catalog, opened.tenancy, visibility_of(opened.catalog))
        with clock.timed("probe"):
            probed = _probe(opened, options, doubts_of(opened.catalog, opened.tenancy, proofs), progress)
    pieces = pieces_of(opened, options, clock, found, proofs, probed)
    return Scanned(
        assemble(pieces), probed.schema if probed else "", planned, pieces.interrupted, _part(pieces, opened, options)
    )


def pieces_of(
    opened: Opened, options: Options, clock: Clock, findings: tuple[Finding, ...], proofs: tuple[Proof, ...],
    probed: ProbeResult | None,
) -> Pieces:  # fmt: skip
    """What the report is assembled from, as of now."""
    return Pieces(
        catalog=opened.catalog, tenancy=opened.tenancy, findings=findings, proofs=proofs, probed=probed,
        notes=opened.notes, source=dsn.redact(options.source), places=opened.places,
        allowed=options.allowed if options.auditing else (), waivers=options.waivers, baseline=options.baseline, history=options.history,
        command=tuple(map(dsn.redact, options.command)), configuration_hash=options.configuration_hash,
        seed=options.seed, fail_on=options.fail_on, scratch_version=opened.server.version if opened.server else "",
        started=clock.started, seconds=clock.seconds, phases=tuple(clock.phases),
    )  # fmt: skip


def _part(pieces: Pieces, opened: Opened, options: Options) -> Part | None:
    """What this part of a run found; None where the run is whole or attacked nothing."""
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
    if opened.scratch_catalog is None:
        return None
    shard = options.shard
    own = tuple(one for one in options.own + opened.recorded if shard is None or shard.has(one.label))
    mine = None if shard is None else focus(shard, opened.scratch_catalog)
    return attacked(opened, replace(options, own=own), doubts, progress, mine)


def attacked(
    opened: Opened, options: Options, doubts: tuple[Doubt, ...], progress: Progress, focused: Focus | None
) -> ProbeResult | None:
    """What the probe finds in the scratch copy, or in what of it is in focus; None where there is no copy."""
    if opened.server is None or opened.scratch_catalog is None or opened.scratch_tenancy is None:
        return None
    source = dsn.redact(options.source)
    learning, said = nights.load(options.examples, source)
    standing = frozenset(relation.qualified for relation in opened.scratch_catalog.relations)
    night = nights.Keeper(options.examples, source, learning, standing)
    probed = probe(
        opened.server, DATABASE, opened.scratch_catalog, opened.scratch_tenancy,
        seed=options.seed, budget=options.budget, progress=night.through(progress), jobs=jobs_for(options.jobs), plant=options.detector,
        examples=None if options.examples is None else options.examples / snapshot.fingerprint(opened.scratch_catalog)[:16],
        doubts=doubts, own=options.own, focus=focused, learning=learning,
    )  # fmt: skip
    said += night.save()
    told = (learning.told,) if learning.told else ()
    probed = replace(probed, notes=(*probed.notes, *told, *said), lost=dsn.redact(probed.lost))
    return withheld(probed, opened.gaps, opened.catalog, opened.tenancy)
