"""Findings over several runs: first seen, last seen, and shown to be gone.  Pure.

That a run does not name a finding is no proof that it is gone: only a run that gave a verdict and looked at the same
place in the same way closes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from rlsaudit.finding import SEVERITIES, Finding, Severity, concerns
from rlsaudit.report import Report

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Episode:
    """A finding from the run that showed it first to the one that showed it gone; what comes back is a new one."""

    system: str
    """What was tested, see ``system``."""
    fingerprint: str
    check: str
    title: str
    object: str
    severity: Severity
    """The worst it was."""
    first_seen: str
    """Start of the run, as in ``last_seen`` and ``fixed``."""
    last_seen: str
    fixed: str
    """Empty as long as no run has shown it gone."""
    state: Literal["open", "waived", "fixed", "not tested again"]
    older: bool
    """Whether the first run given for the system showed it already, so that it may be older than that."""
    days: float | None
    """From first seen to fixed."""


def system(report: Report) -> str:
    """What a run tested, the same for a file wherever it was checked out: its name, or the address of the database."""
    source = report.provenance.source
    return source if "://" in source or "=" in source else source.rstrip("/").rpartition("/")[2]


def episodes(reports: Sequence[Report]) -> tuple[Episode, ...]:
    """Every finding but those for information, over runs in the order of their start; the worst first."""
    done: list[Episode] = []
    standing: dict[tuple[str, str], tuple[Episode, Finding]] = {}
    begun: set[str] = set()
    for report in reports:
        where, when = system(report), report.timing.started
        shown = {one.fingerprint: one for one in report.findings if one.severity != "info"}
        for key, (episode, finding) in list(standing.items()):
            if key[0] != where or key[1] in shown:
                continue
            if _shows_gone(report, finding):
                done.append(replace(episode, fixed=when, state="fixed", days=_days(episode.first_seen, when)))
                del standing[key]
            elif report.verdict != "not trustworthy":
                standing[key] = (replace(episode, state="not tested again"), finding)
        for mark, finding in shown.items():
            old = standing.get((where, mark))
            standing[where, mark] = (
                _seen(old[0] if old else None, finding, where, when, first=where not in begun),
                finding,
            )
        begun.add(where)
    found = [*done, *(episode for episode, _ in standing.values())]
    return tuple(sorted(found, key=lambda one: (one.state == "fixed", SEVERITIES.index(one.severity), one.first_seen)))


def _seen(old: Episode | None, finding: Finding, where: str, when: str, *, first: bool) -> Episode:
    state: Literal["open", "waived"] = finding.status
    if old is None:
        return Episode(
            where, finding.fingerprint, finding.check, finding.title, finding.object, finding.severity,
            when, when, "", state, first, None,
        )  # fmt: skip
    worst = min(old.severity, finding.severity, key=SEVERITIES.index)
    return replace(old, last_seen=when, state=state, severity=worst)


def _shows_gone(report: Report, finding: Finding) -> bool:
    """Whether a run that does not name the finding looked where it was."""
    if report.verdict == "not trustworthy":
        return False
    if finding.source == "check":
        audited = "probe" not in report.provenance.command[1:2]
        if finding.check.startswith("RLS"):
            return audited and finding.check in report.provenance.checks
    about = [cell for cell in report.cells if concerns(finding, cell)]
    if about:
        return not any(cell.state in ("leak", "waived", "not covered") for cell in about)
    if finding.relation and finding.command != "EXECUTE":
        return finding.relation not in {entry.relation for entry in report.population}
    results = [one for one in report.properties if (one.property, one.role) == (finding.property, finding.role)]
    return bool(results) and all(one.outcome == "held" for one in results)


def _days(first: str, last: str) -> float:
    return round((datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds() / _DAY, 2)


def seen_within(found: Sequence[Episode], first: str, last: str) -> Iterator[Episode]:
    """Episodes that touch the days from ``first`` to ``last`` (ISO 8601): seen or fixed then, or standing open."""
    for one in found:
        end = (one.fixed or "9999")[:10]
        if one.first_seen[:10] <= last and end >= first:
            yield one
