"""An earlier run to hold this one against: what is new, what is carried over, what is gone.

A baseline is not a waiver: what is carried over still stands open and is shown as such; it just does not fail the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from rlsaudit import __version__, evidence
from rlsaudit.errors import UsageError
from rlsaudit.finding import Finding, at_least
from rlsaudit.report import BaselineEntry, Report


@dataclass(frozen=True, slots=True)
class Baseline:
    """The report of an earlier run, and the file that holds it."""

    source: str
    sha256: str
    report: Report

    @property
    def gaps(self) -> frozenset[tuple[str, str, str]]:
        """Relation, role and command of the cells that were not covered then; an audit covers none and knows of none."""
        if not self.report.statements:
            return frozenset()
        return frozenset((c.relation, c.role, c.command) for c in self.report.cells if c.state == "not covered")


def load(path: Path | None) -> Baseline | None:
    """The baseline in an evidence file; None without one.

    Raises UsageError: unreadable, no evidence file, or that of a run that was not trustworthy and so says nothing.
    """
    if path is None:
        return None
    try:
        content = path.read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    report = evidence.parse(text, str(path))
    if report.verdict == "not trustworthy":
        raise UsageError(
            f"{path}: that run gave no verdict, so nothing can be held against it: take another as baseline"
        )
    return Baseline(str(path), hashlib.sha256(content).hexdigest(), report)


def compare(
    findings: Iterable[Finding], baseline: Baseline | None, *, probed: bool
) -> tuple[tuple[Finding, ...], BaselineEntry | None]:
    """The findings with their age, and the comparison; both as they are without a baseline.

    A finding that is worse than it was then is new; one that no way of looking of this run would show is not fixed.
    """
    findings = tuple(findings)
    if baseline is None:
        return findings, None
    then = {finding.fingerprint: finding for finding in baseline.report.findings if finding.status == "open"}
    alike = baseline.report.provenance.tool_version == __version__
    aged = tuple(
        replace(one, age="carried" if _stood(one, then.get(one.fingerprint), worded_alike=alike) else "new")
        for one in findings
    )
    now = {(finding.check, finding.object, finding.property) for finding in findings}
    gone = (old for old in then.values() if (old.check, old.object, old.property) not in now)
    fixed = tuple((old.severity, old.title, old.object) for old in gone if probed or old.source == "check")
    count = [finding.age for finding in aged if finding.status == "open"]
    entry = BaselineEntry(
        baseline.source, baseline.report.timing.started, baseline.report.verdict, baseline.sha256,
        count.count("new"), count.count("carried"), fixed,
    )  # fmt: skip
    return aged, entry


def _stood(now: Finding, then: Finding | None, *, worded_alike: bool) -> bool:
    """Whether it stood there then, no less bad.

    A check's finding that names several relations keeps its fingerprint when one joins them, so its words count too.
    """
    if then is None or not at_least(then.severity, now.severity) or (now.confirmed and not then.confirmed):
        return False
    return now.source != "check" or not worded_alike or now.message == then.message
