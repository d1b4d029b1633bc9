"""``rlsaudit.prom``: figures of the last run for the textfile collector of Prometheus' node exporter.

Every series is there in every run, with 0 where there is nothing, so that an alert can be written on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta

from rlsaudit.finding import SEVERITIES, Finding
from rlsaudit.report import Report, format_

from ._text import STATES, instant, tally, visible

_STATUSES = ("open", "carried", "waived")
_OUTCOMES = ("leak", "not covered", "waived", "isolated", "no app privilege", "not tenant data")
_VERDICTS = ("clean", "exceptions", "not trustworthy")
Samples = Iterable[tuple[Mapping[str, str], float]]


@format_("prometheus", filename="rlsaudit.prom", description="figures, for the textfile collector of Prometheus")
def prometheus(report: Report) -> str:
    return "".join(f"{line}\n" for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    run = report.provenance
    findings = Counter((finding.severity, _status(finding)) for finding in report.findings)
    outcomes: Counter[str] = Counter(entry.outcome for entry in report.population)
    started = instant(report.timing.started).timestamp()
    build = {"version": run.tool_version, "server_version": run.server_version, "database": run.database}
    yield from _metric("build_info", "What ran, and against what.", [(build, 1)])
    yield from _metric("run_timestamp_seconds", "When the run started.", [({}, started)])
    yield from _metric("run_duration_seconds", "How long the run took.", [({}, report.timing.seconds)])
    yield from _metric("exit_code", "0 clean, 1 exceptions, 3 not trustworthy.", [({}, report.exit_code)])
    yield from _metric(
        "verdict", "1 for the verdict of the run.", [({"verdict": one}, one == report.verdict) for one in _VERDICTS]
    )
    yield from _metric(
        "findings", "Findings; carried ones stood in the baseline already.",
        [({"severity": severity, "status": status}, findings[severity, status])
         for severity in SEVERITIES for status in _STATUSES],
    )  # fmt: skip
    counts = tally(report.cells)
    yield from _metric(
        "cells", "Combinations of relation, role and command.", [({"state": one}, counts[one]) for one in STATES]
    )
    yield from _metric(
        "relations", "Relations of the catalog.", [({"outcome": one}, outcomes[one]) for one in _OUTCOMES]
    )
    yield from _metric("statements", "Statements that the probe ran.", [({}, report.statements)])
    yield from _metric(
        "waiver_expiry_timestamp_seconds", "When a waiver ends.",
        [({"waiver": name}, moment) for name, moment in _expiries(report)],
    )  # fmt: skip


def _metric(name: str, text: str, samples: Samples) -> Iterator[str]:
    yield f"# HELP rlsaudit_{name} {text}"
    yield f"# TYPE rlsaudit_{name} gauge"
    for labels, value in samples:
        told = ",".join(f'{label}="{_label(said)}"' for label, said in labels.items())
        yield f"rlsaudit_{name}{{{told}}} {float(value):.15g}" if told else f"rlsaudit_{name} {float(value):.15g}"


def _label(text: str) -> str:
    return visible(text).replace("\\", "\\\\").replace('"', '\\"')


def _status(finding: Finding) -> str:
    return finding.status if finding.status == "waived" else "carried" if finding.age == "carried" else "open"


def _expiries(report: Report) -> Iterator[tuple[str, float]]:
    """The end of the last day of each waiver; of two for the same thing, the one that ends first."""
    ends: dict[str, str] = {}
    for waiver in report.waivers:
        if waiver.expires:
            ends[waiver.matches] = min(waiver.expires, ends.get(waiver.matches, waiver.expires))
    for name, day in ends.items():
        yield name, (instant(f"{day}T00:00:00+00:00") + timedelta(days=1)).timestamp()
