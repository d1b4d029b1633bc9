"""What a run says of each control of the map in controls.toml; never that a control is met."""

from __future__ import annotations

import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from rlsaudit.finding import Finding, concerns
from rlsaudit.report import Report

from ._text import index_findings, property_of

Conclusion = Literal[
    "exceptions noted",
    "exception, waived",
    "no conclusion",
    "partly tested, no exceptions noted",
    "no exceptions noted",
]


@dataclass(frozen=True, slots=True)
class Control:
    """A control in our own words, and which part of it the evidence of a run speaks to."""

    name: str
    title: str = ""
    speaks_to: str = ""


@dataclass(frozen=True, slots=True)
class ControlMap:
    version: str
    controls: Mapping[str, Control]
    properties: Mapping[str, tuple[str, ...]]
    """Controls that each property of the isolation contract is evidence for."""


@dataclass(frozen=True, slots=True)
class ControlResult:
    control: Control
    conclusion: Conclusion
    checks: tuple[str, ...]
    """Checks of the run that are mapped to it."""
    exceptions: tuple[Finding, ...]
    waived: tuple[Finding, ...]
    observed: tuple[Finding, ...]
    """Open findings of severity info, which are no exceptions."""
    crashed: tuple[str, ...]
    tested: int
    """Cells and run-level results of its properties that were tested."""
    gaps: int
    """Those that could not be."""


@cache
def control_map() -> ControlMap:
    """The map as it is shipped."""
    document = tomllib.loads((Path(__file__).parent / "controls.toml").read_text(encoding="utf-8"))
    return ControlMap(
        document["version"],
        {name: Control(name, **entry) for name, entry in document["controls"].items()},
        {name: tuple(listed) for name, listed in document["properties"].items()},
    )


def controls_of(finding: Finding) -> tuple[str, ...]:
    """Names of the controls that a finding is about: those its check names, then those of the property it breaks."""
    return tuple(dict.fromkeys((*finding.standards, *control_map().properties.get(finding.property, ()))))


def control_results(report: Report) -> tuple[ControlResult, ...]:
    """A result for each control that a check, a cell, a property or a finding of the run is about, by name."""
    checks = {entry.standard: entry.checks for entry in report.standards}
    found: dict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        for name in controls_of(finding):
            found[name].append(finding)
    outcomes = _outcomes(report)
    names = sorted({*checks, *found, *outcomes}, key=_natural)
    return tuple(_result(name, checks.get(name, ()), found[name], outcomes[name], report) for name in names)


def _outcomes(report: Report) -> dict[str, Counter[str]]:
    """How the cells and run-level results of each control came out; a finding says best what its leak breaks."""
    by_place = index_findings(report.findings)
    counts: Counter[tuple[str, str]] = Counter()
    for cell in report.cells:
        told = cell.state == "leak" and any(concerns(finding, cell) for finding in by_place.get(cell.relation, ()))
        if cell.state != "no privilege":
            counts[property_of(cell), "told by a finding" if told else cell.state] += 1
    counts.update((result.property, result.outcome) for result in report.properties)
    by_control: dict[str, Counter[str]] = defaultdict(Counter)
    for (name, outcome), number in counts.items():
        for control in control_map().properties.get(name, ()):
            by_control[control][outcome] += number
    return by_control


def _result(
    name: str, checks: tuple[str, ...], found: Iterable[Finding], outcomes: Counter[str], report: Report
) -> ControlResult:
    standing = [finding for finding in found if finding.status == "open"]
    exceptions = tuple(finding for finding in standing if finding.severity != "info")
    waived = tuple(finding for finding in found if finding.status == "waived")
    crashes = {finding.check for finding in report.findings if finding.object == f"check {finding.check}"}
    crashed = tuple(sorted(crashes.intersection(checks)))
    conclusion: Conclusion = (
        "exceptions noted" if exceptions or outcomes["leak"]
        else "exception, waived" if waived
        else "no conclusion" if crashed or report.verdict == "not trustworthy"
        else "partly tested, no exceptions noted" if outcomes["not covered"]
        else "no exceptions noted"
    )  # fmt: skip
    observed = tuple(finding for finding in standing if finding.severity == "info")
    control = control_map().controls.get(name, Control(name))
    gaps = outcomes["not covered"]
    return ControlResult(
        control, conclusion, checks, exceptions, waived, observed, crashed, outcomes.total() - gaps, gaps
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """``A.8.3`` before ``A.8.12``."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
