"""What the alert lists of code hosts are told: findings, and whatever else keeps a run from being clean.

An empty list reads as a pass there, so a relation that could not be tested and a run without a verdict are alerts too.
No attack and no replay script is in them: those hold rows, be they synthetic.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count
from typing import Literal

from rlsaudit.finding import SEVERITIES, Cell, Finding, PropertyResult, Severity
from rlsaudit.report import Report

from ._controls import controls_of
from ._text import command_order, fails, lines, visible

CONFIGURATION = "rlsaudit.toml"
"""Where an alert without a place in the sources is shown."""
NOT_COVERED, NO_VERDICT = "NOT-COVERED", "VERDICT"
_REASONS = 3


@dataclass(frozen=True, slots=True)
class Alert:
    """One entry of an alert list; its texts are safe to show."""

    rule: str
    severity: Severity
    fails: bool
    """It makes the run exit with 1 or 3."""
    title: str
    object: str
    message: str
    fix: str
    rationale: str
    controls: tuple[str, ...]
    file: str
    """Relative, with slashes; rlsaudit.toml for what has no place in the sources."""
    line: int
    fingerprint: str
    """Stable from run to run and unique in this one."""
    status: Literal["open", "waived"] = "open"
    status_reason: str = ""
    age: Literal["", "new", "carried"] = ""
    executed: bool = False
    """It was seen to happen, not read off the catalog."""


def alerts(report: Report) -> list[Alert]:
    """Those that fail the run first, then by severity, otherwise in the report's order; waived ones last."""
    found = [_of_finding(finding, report) for finding in report.findings]
    if report.statements or any(cell.trials for cell in report.cells):  # an audit alone tests no cell, and says so
        found += _of_cells(report)
        found += [_of_property(result) for result in report.properties if result.outcome == "not covered"]
    if report.exit_code and (report.verdict == "not trustworthy" or not any(alert.fails for alert in found)):
        said = " ".join((f"{report.sentence.rstrip('.')}.", *report.reasons))
        found.append(_made(NO_VERDICT, "high", "The run does not pass", "this run", said, "", fails=True))
    found.sort(key=lambda one: (one.status == "waived", not one.fails, SEVERITIES.index(one.severity)))
    return list(_unique(found))


def _of_finding(finding: Finding, report: Report) -> Alert:
    return Alert(
        finding.check, finding.severity, fails(finding, report.fail_on), visible(finding.title), visible(finding.object),
        lines(finding.message), lines(finding.fix.strip()), lines(finding.rationale), controls_of(finding),
        _relative(finding.file, report.provenance.source) or CONFIGURATION,
        max(finding.line, 1) if finding.file else 1,
        finding.fingerprint, finding.status, lines(finding.status_reason), finding.age, finding.source == "probe",
    )  # fmt: skip


def _of_cells(report: Report) -> Iterator[Alert]:
    """An alert for each relation with cells that were not covered: new gaps apart from those of the baseline."""
    groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in report.cells:
        if cell.state == "not covered":
            groups[cell.relation, cell.age].append(cell)
    for (relation, age), cells in groups.items():
        roles = ", ".join(dict.fromkeys(cell.role for cell in cells))
        commands = ", ".join(command_order(cell.command for cell in cells))
        message = f"{relation}: {commands} as {roles} could not be tested: {_some(cell.reason for cell in cells)}"
        yield _made(
            NOT_COVERED, "medium", "Could not be tested", relation, message, age, fails=not age,
            compared=report.baseline is not None,
        )  # fmt: skip


def _of_property(result: PropertyResult) -> Alert:
    place = f"{result.property} as {result.role}" if result.role else result.property
    return _made(
        NOT_COVERED, "medium", "Could not be tested", place, f"{place} could not be tested: {result.reason}", "",
        fails=False,
    )  # fmt: skip


def _made(
    rule: str, severity: Severity, title: str, place: str, message: str, age: str, *, fails: bool, compared: bool = False
) -> Alert:  # fmt: skip
    rationale = "What was not tested is no pass: nothing is known about it." if rule == NOT_COVERED else ""
    mark = sha256(f"{rule}\x1f{place}".encode(errors="backslashreplace")).hexdigest()[:16]
    return Alert(
        rule, severity, fails, title, visible(place), lines(message), "", rationale, (), CONFIGURATION, 1, mark,
        age="carried" if age else "new" if compared else "",
    )  # fmt: skip


def _some(reasons: Iterable[str]) -> str:
    said = list(dict.fromkeys(reasons))
    more = f"; and {len(said) - _REASONS} more reasons" if len(said) > _REASONS else ""
    return "; ".join(said[:_REASONS]) + more


def _relative(file: str, source: str) -> str:
    """``file`` as a path from where rlsaudit was started, which is where CI has the repository.

    An absolute path (of an included file) is cut before the source's own, where it lies below it.
    """
    if not file:
        return ""
    path = posixpath.normpath(file.replace("\\", "/"))
    if path.startswith("/"):
        below = f"/{posixpath.normpath(source).strip('/')}/"
        path = path[path.rindex(below) :] if below in path else path
    return visible(path.lstrip("/"))


def _unique(found: Iterable[Alert]) -> Iterator[Alert]:
    """Code hosts drop the second of two alerts with one fingerprint without a word."""
    seen: set[str] = set()
    for alert in found:
        marks = (alert.fingerprint if n == 1 else f"{alert.fingerprint}-{n}" for n in count(1))
        mark = next(mark for mark in marks if mark not in seen)
        seen.add(mark)
        yield alert if mark == alert.fingerprint else replace(alert, fingerprint=mark)
