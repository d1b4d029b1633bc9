"""From the directories of runs to the report on a period: which ran and which did not, what stood how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import median

from rlsaudit import __version__, evidence
from rlsaudit.bundle import chain
from rlsaudit.bundle.history import Episode, episodes, seen_within, system
from rlsaudit.bundle.period import Gap, Period, Population, RunEntry, WaiverSpan
from rlsaudit.bundle.verify import EVIDENCE, Part, Trust, Verified, verify
from rlsaudit.errors import UsageError
from rlsaudit.finding import SEVERITIES
from rlsaudit.report import Report


@dataclass(frozen=True, slots=True)
class Gathered:
    """A run that was given, looked at; ``report`` is None where its evidence.json cannot be read."""

    verified: Verified
    report: Report | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What the report is to be about."""

    first: date
    last: date
    every: int
    today: date


def gather(directory: Path, trust: Trust) -> Gathered:
    """Verify a run and read its evidence.  Raises UsageError for keys that are none."""
    verified, place = verify(directory, trust), directory / EVIDENCE
    try:
        return Gathered(verified, evidence.parse(place.read_text(encoding="utf-8"), str(place)))
    except (OSError, UnicodeDecodeError, UsageError):
        return Gathered(verified, None)


def assemble(gathered: Sequence[Gathered], asked: Asked, trust: Trust) -> Period:
    """The report on the runs given, of which those before the period tell since when a finding stood."""
    order = [run.directory for run in chain.ordered(one.verified.run for one in gathered if one.verified.run)]
    by_place = {one.verified.directory: one for one in gathered}
    until = [by_place[place] for place in order if _day(by_place[place]) <= asked.last.isoformat()]
    within = [one for one in until if _day(one) >= asked.first.isoformat()]
    links = list(chain.links(one.verified.run for one in gathered if one.verified.run))
    failures = [part for part in (*(p for one in gathered for p in one.verified.parts), *links) if part.state == "FAIL"]
    runs = tuple(_run(one, failures) for one in within)
    gaps = tuple(_gaps({run.started[:10] for run in runs}, asked))
    reports = [one.report for one in until if one.report]
    shown = [one.report for one in within if one.report]
    found = tuple(seen_within(episodes(reports), asked.first.isoformat(), asked.last.isoformat()))
    took = [one.days for one in found if one.days is not None]
    waivers = tuple(_waivers(shown, asked.last.isoformat()))
    exceptions = tuple(_exceptions(runs, gaps, found, waivers, failures))
    return Period(
        verdict="exceptions noted" if exceptions else "no exceptions noted",
        exceptions=exceptions,
        first=asked.first.isoformat(),
        last=asked.last.isoformat(),
        every=asked.every,
        made=asked.today.isoformat(),
        tool_version=__version__,
        runs=runs,
        gaps=gaps,
        findings=found,
        fixed=len(took),
        median_days=round(median(took), 2) if took else None,
        worst_days=max(took) if took else None,
        waivers=waivers,
        population=tuple(_population(shown)),
        links=sum(part.state == "ok" for part in links),
        failures=tuple(failures),
        notes=tuple(_notes(runs, links, asked, trust)),
    )


def _day(one: Gathered) -> str:
    return one.verified.run.manifest.started[:10] if one.verified.run else ""


def _run(one: Gathered, failures: Sequence[Part]) -> RunEntry:
    run, report = one.verified.run, one.report
    assert run is not None
    manifest, place = run.manifest, str(run.directory)
    states = Counter(cell.state for cell in report.cells) if report else Counter()
    open_ = Counter(f.severity for f in report.findings if f.status == "open") if report else Counter()
    return RunEntry(
        directory=place,
        started=manifest.started,
        verdict=manifest.verdict,
        exit_code=manifest.exit_code,
        sentence=report.sentence if report else f"{EVIDENCE} cannot be read",
        system=system(report) if report else "",
        command=" ".join(report.provenance.command[1:2]) if report else "",
        relations=len(report.population) if report else 0,
        cells=tuple(sorted(states.items())),
        findings=tuple((severity, open_[severity]) for severity in SEVERITIES if open_[severity]),
        failures=sum(part.place == place or part.place.startswith(f"{place}/") for part in failures),
    )


def _gaps(days: set[str], asked: Asked) -> Iterator[Gap]:
    """Stretches of ``every`` days, counted from the first, without a run; neighbours are one gap."""
    step, at = timedelta(days=asked.every), asked.first
    missing: list[date] = []
    while at <= asked.last:
        stretch = [day for n in range(asked.every) if (day := at + timedelta(days=n)) <= asked.last]
        # One that is not over yet, or is cut short by the end of the period, may still have its run.
        due = len(stretch) == asked.every and stretch[-1] < asked.today
        if due and not any(day.isoformat() in days for day in stretch):
            missing += stretch
        elif missing:
            yield Gap(missing[0].isoformat(), missing[-1].isoformat(), len(missing))
            missing = []
        at += step
    if missing:
        yield Gap(missing[0].isoformat(), missing[-1].isoformat(), len(missing))


def _waivers(reports: Sequence[Report], last: str) -> Iterator[WaiverSpan]:
    spans: dict[tuple[str, ...], WaiverSpan] = {}
    for report in reports:
        for one in report.waivers:
            key = (
                system(report),
                one.kind,
                one.matches,
                one.reason,
                one.approver,
                one.approved_on,
                one.expires,
                one.ticket,
            )
            first = spans[key].first_seen if key in spans else report.timing.started
            spans[key] = WaiverSpan(one, first, report.timing.started, "" < one.expires <= last)
    yield from sorted(spans.values(), key=lambda span: (span.waiver.status == "in force", span.waiver.expires))


def _population(reports: Sequence[Report]) -> Iterator[Population]:
    before: dict[str, set[str]] = {}
    for report in reports:
        where, names = system(report), {entry.relation for entry in report.population}
        old = before.get(where, names)
        yield Population(
            report.timing.started, where, len(report.population), report.population_counted,
            tuple(sorted(names - old)), tuple(sorted(old - names)),
        )  # fmt: skip
        before[where] = names


def _exceptions(
    runs: Sequence[RunEntry], gaps: Sequence[Gap], found: Sequence[Episode], waivers: Sequence[WaiverSpan],
    failures: Sequence[Part],
) -> Iterator[str]:  # fmt: skip
    if not runs:
        yield "No run started in the period, so nothing can be said of it."
    if gaps:
        yield f"{sum(gap.days for gap in gaps)} day(s) without a run that was due."
    verdicts = Counter(run.verdict for run in runs)
    if verdicts["exceptions"]:
        yield f"{verdicts['exceptions']} of {len(runs)} run(s) noted exceptions."
    if verdicts["not trustworthy"]:
        yield f"{verdicts['not trustworthy']} of {len(runs)} run(s) gave no verdict."
    if blind := sum(not run.system for run in runs):
        yield f"{blind} of {len(runs)} run(s) have no evidence.json that can be read."
    if standing := sum(one.state in ("open", "not tested again") for one in found):
        yield f"{standing} finding(s) were not shown to be fixed at the end of the period."
    if bad := sum(span.waiver.status in ("expired", "refused") for span in waivers):
        yield f"{bad} waiver(s) did not hold any more, or never did, and their findings counted."
    if failures:
        yield f"{len(failures)} hash(es), signature(s) or link(s) of the chain do not fit."


def _notes(runs: Sequence[RunEntry], links: Sequence[Part], asked: Asked, trust: Trust) -> Iterator[str]:
    systems = sorted({run.system for run in runs if run.system})
    if len(systems) > 1:
        yield f"The runs are of {len(systems)} systems ({', '.join(systems)}); a finding is fixed by a run of its own only."
    if audits := sum(run.command == "audit" for run in runs):
        yield f"{audits} of the runs only read the catalog (rlsaudit audit): nothing was executed in them."
    if not trust.given:
        yield "No signature was checked, as no public key was given: whoever can change the files can change their hashes."
    yield from (f"{part.place} {part.text}." for part in links if part.state == "note")
    if asked.last >= asked.today:
        yield "The period was not over when this was made."
    yield "A chain that is cut off at its end is whole: that the last runs are there is told by the days, not by the chain."
