"""The allow-list of the configuration: findings of checks that a team has looked at and lives with, each with a reason.

Only what a check read off the catalog can be allowed; a leak that was executed needs a waiver.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from rlsaudit.errors import UsageError
from rlsaudit.finding import Finding, named_like
from rlsaudit.report import WaiverEntry


@dataclass(frozen=True, slots=True)
class Allowed:
    """``[[allow]]`` of the configuration."""

    check: str
    object: str
    """As findings name it; ``*`` and ``?`` stand for any characters and any one."""
    reason: str


def require_known(allowed: Iterable[Allowed], checks: Collection[str]) -> None:
    """Raises UsageError for an entry that names no check."""
    for one in allowed:
        if one.check not in checks:
            near = difflib.get_close_matches(one.check, checks, n=1)
            raise UsageError(
                f"allow: no check {one.check!r}; {f'did you mean {near[0]}?' if near else 'rlsaudit checks lists them'}"
            )


def apply(
    findings: Iterable[Finding], allowed: tuple[Allowed, ...]
) -> tuple[tuple[Finding, ...], tuple[WaiverEntry, ...]]:
    """The findings, those that an entry covers marked; and what became of each entry."""
    covered: dict[Allowed, list[str]] = {one: [] for one in allowed}
    marked = []
    for finding in findings:
        entry = next((one for one in allowed if _covers(one, finding)), None)
        if entry is not None:
            covered[entry].append(finding.id)
            finding = replace(finding, status="waived", status_reason=entry.reason)  # noqa: PLW2901
        marked.append(finding)
    return tuple(marked), tuple(
        WaiverEntry(
            "allow-list",
            "in force" if ids else "stale",
            f"{one.check} on {one.object}",
            one.reason,
            findings=tuple(ids),
        )
        for one, ids in covered.items()
    )


def _covers(one: Allowed, finding: Finding) -> bool:
    return finding.source == "check" and finding.check == one.check and named_like(finding.object, one.object)
