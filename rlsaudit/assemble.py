"""From what the three ways found to the one Report: cells, verdict, exit code.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

from rlsaudit import describe
from rlsaudit.cells import AUDIT_LIMIT, cells_of, proofs_of
from rlsaudit.doors import open_doors
from rlsaudit.doubt import CellName
from rlsaudit.finding import SEVERITIES, Cell, Finding, Severity, at_least, attacks
from rlsaudit.pieces import Pieces
from rlsaudit.places import placed
from rlsaudit.prove.prove import Proof
from rlsaudit.remedy import with_fix
from rlsaudit.report import PopulationEntry, Report, Timing, Verdict
from rlsaudit.settle import Settled, settle
from rlsaudit.tenancy.model import Classified

_LIMITS = (
    "A held cell means that the listed statements crossed nowhere, not that no statement can.",
    "Functions were called with seeded, foreign and mined arguments; one that needs others to leak was not seen to.",
    "Of what takes several statements, an own row that points at another tenant's was tried; the rest is left to random workloads.",
    "Proofs are about policies: they say nothing of views, functions, triggers, foreign keys or TRUNCATE.",
    "Not tested: timing, logical replication, backups, other databases of the cluster, and how the application sets its context.",
    "That a generated identifier has been given out can be told by trying to use it again; this is not reported.",
)
_WRITES = ("read", "write", "forge")


def assemble(pieces: Pieces) -> Report:
    """The finished Report.  Exit code 3 outranks 1; each reason is a sentence."""
    catalog, probed = pieces.catalog, pieces.probed
    proofs = proofs_of(pieces)
    leaks = tuple(with_fix(leak, pieces.findings) for leak in (probed.findings if probed else ()))
    numbered = _numbered((*pieces.findings, *leaks))
    judged = cells_of(pieces, proofs, open_doors(catalog, numbered))
    located = tuple(placed(finding, pieces.places) for finding in numbered)
    settled = settle(located, judged, probed.properties if probed else (), pieces)
    cells, findings = settled.cells, settled.findings
    population = tuple(_population(pieces, cells, findings))
    distrust = tuple(_distrust(pieces, judged, proofs, len(population)))
    failures = tuple(_failures(pieces, settled))
    exit_code = 3 if distrust else 1 if failures else 0
    gaps = probed is not None and any(cell.state == "not covered" for cell in cells)
    leaking = any(cell.state == "leak" for cell in cells)
    standing = gaps or leaking or bool(failures) or any(_bad(f, pieces.fail_on) for f in findings)
    verdict: Verdict = "not trustworthy" if distrust else "exceptions" if standing else "clean"
    return Report(
        verdict=verdict,
        exit_code=exit_code,
        sentence=_sentence(verdict, population, settled, distrust, pieces.fail_on, audit_only=probed is None),
        reasons=(*distrust, *failures),
        population=population,
        population_counted=catalog.population,
        cells=cells,
        findings=findings,
        properties=settled.properties,
        policies=tuple(describe.policies(catalog)),
        roles=tuple(describe.roles(catalog, pieces.tenancy)),
        context=tuple(describe.context(pieces.tenancy)),
        notes=(*pieces.notes, *(probed.notes if probed else ()), *settled.notes),
        limits=_LIMITS if probed else (AUDIT_LIMIT, *_LIMITS[1:]),
        statements=probed.statements if probed else 0,
        tenants=probed.tenants if probed else 0,
        provenance=describe.provenance(pieces),
        timing=Timing(pieces.started.isoformat(timespec="seconds"), round(pieces.seconds, 3), pieces.phases),
        fail_on=pieces.fail_on,
        waivers=settled.waivers,
        baseline=settled.baseline,
        history=pieces.history,
        standards=tuple(describe.standards(findings)),
    )


def _numbered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Worst first; leaks that were executed before what was read off the catalog."""
    ordered = sorted(
        findings,
        key=lambda f: (SEVERITIES.index(f.severity), f.source != "probe", f.check, f.object, f.command),
    )
    return tuple(replace(finding, id=f"F-{number}") for number, finding in enumerate(ordered, 1))


def _population(pieces: Pieces, cells: tuple[Cell, ...], findings: tuple[Finding, ...]) -> Iterator[PopulationEntry]:
    states: dict[str, set[str]] = {}
    for cell in cells:
        states.setdefault(cell.relation, set()).add(cell.state)
    leaks = [finding for finding in findings if finding.source == "probe" and finding.status == "open"]
    leaking = {place for finding in leaks for place in (finding.relation, finding.object, *finding.also)}
    for relation in pieces.catalog.relations:
        classified = pieces.tenancy.of(relation.oid)
        yield PopulationEntry(
            relation.qualified,
            "partition" if relation.is_partition else relation.kind,
            classified.kind + (" (shared rows)" if classified.shared_rows else ""),
            classified.why,
            pieces.catalog.role_name(relation.owner),
            _outcome(states.get(relation.qualified, set()), classified, relation.qualified in leaking),
        )


Outcome = Literal["leak", "not covered", "waived", "isolated", "no app privilege", "not tenant data"]


def _outcome(states: set[str], classified: Classified, leaking: bool) -> Outcome:
    if leaking or "leak" in states:
        return "leak"
    if "not covered" in states:
        return "not covered"
    if "waived" in states:
        return "waived"
    if not classified.tenant_data:
        return "not tenant data"
    if states <= {"no privilege"}:
        return "no app privilege"
    return "isolated"


def _distrust(pieces: Pieces, cells: tuple[Cell, ...], proofs: Mapping[CellName, Proof], listed: int) -> Iterator[str]:
    counted = pieces.catalog.population
    if counted != listed:
        yield f"The population does not reconcile: {counted} relations counted, {listed} listed."
    probed = pieces.probed
    if pieces.interrupted:
        lost = (
            f"ended early, because the server was lost ({probed.lost})" if probed and probed.lost else "was interrupted"
        )
        yield f"The run {lost}: what was found until then stands here, everything else was not tested."
        return
    if probed is None:
        return
    if probed.unseeded:
        yield f"No tenant could be created in the scratch copy: {probed.unseeded}. Nothing was tested."
        return
    if probed.blind:
        yield (
            "The detector is blind: with row security switched off the probe still saw no foreign row, "
            "so its passes mean nothing."
        )
    if not any(p.outcome == "held" for p in probed.properties if p.property == "alive"):
        yield (
            "No application role could reach even its own rows: the context is probably wrong; "
            "declare it under [context] in rlsaudit.toml."
        )
    # A proof speaks of policies; what a trigger or a rule makes of the statement is another matter.
    altered = {t.relation for t in pieces.catalog.triggers} | {r.relation for r in pieces.catalog.rules}
    rewritten = {relation.qualified for relation in pieces.catalog.relations if relation.oid in altered}
    for cell in cells:
        proof = proofs.get((cell.relation, cell.role, cell.command))
        if (
            cell.state == "leak"
            and cell.relation not in rewritten
            and proof
            and proof.verdict == "proven"
            and any(word in cell.reason.split("; ") for word in _WRITES)
        ):
            place = f"{cell.command} of {cell.relation} as {cell.role}"
            yield f"Proof and probe disagree on {place}: proven, yet it leaks. This is a defect of rlsaudit."


def _bad(finding: Finding, fail_on: Severity) -> bool:
    return finding.status == "open" and at_least(finding.severity, fail_on)


def _failures(pieces: Pieces, settled: Settled) -> Iterator[str]:
    bad = [f for f in settled.findings if _bad(f, pieces.fail_on) and f.age != "carried"]
    if bad:
        counts = Counter(f.severity for f in bad)
        said = ", ".join(f"{counts[s]} {s}" for s in SEVERITIES if counts[s])
        new = "new " if pieces.baseline else ""
        yield f"{len(bad)} {new}finding(s) at or above {pieces.fail_on}: {said}."
    gaps = sum(cell.state == "not covered" and not cell.age for cell in settled.cells)
    if gaps and pieces.probed is not None:
        yield f"{gaps} cell(s) could not be tested{' that the baseline tested' if pieces.baseline else ''}."
    # What is open tells of the cell that was attacked too; to waive it says nothing of what else that cell may leak.
    leaks = [finding for finding in settled.findings if finding.source == "probe" and finding.status == "open"]
    untold = sum(c.state == "leak" and not any(attacks(leak, c) for leak in leaks) for c in settled.cells)
    if untold:
        yield f"{untold} cell(s) leak that no finding tells of."
    for waiver in settled.waivers:
        if waiver.status == "expired":
            yield f"The waiver for {waiver.matches} ended on {waiver.expires}: mend what it covers, or have it approved anew."
    yield from pieces.probed.not_tried if pieces.probed is not None else ()


def _sentence(
    verdict: Verdict, population: tuple[PopulationEntry, ...], settled: Settled, distrust: tuple[str, ...],
    fail_on: Severity, *, audit_only: bool,
) -> str:  # fmt: skip
    if verdict == "not trustworthy":
        return f"No verdict: {distrust[0]}"
    leaking = sum(entry.outcome == "leak" for entry in population)
    if leaking:
        return f"Tenant data is reachable across tenants in {leaking} of {len(population)} relations"
    waived = sum(finding.status == "waived" and finding.source == "probe" for finding in settled.findings)
    if verdict == "exceptions":
        bad = [f for f in settled.findings if _bad(f, fail_on)]
        if not bad:
            return "No leak was found, but not everything could be tested"
        return f"No leak was executed{' but waived ones' * bool(waived)}, but defects of severity {bad[0].severity} stand open"
    tested = sum(cell.state in ("held", "proven") for cell in settled.cells)
    if audit_only:
        return "The audit noted no exceptions; nothing was executed"
    if waived:
        return (
            f"No exceptions noted but {waived} waived: {tested} table, command and role combinations held or are proven"
        )
    return f"No exceptions noted: {tested} table, command and role combinations held or are proven"
