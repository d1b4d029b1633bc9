"""The allow-list of the configuration: findings of checks that a team has looked at and lives with, each with a reason.

Only what a check read off the catalog can be allowed; a leak that was executed needs a waiver.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from rlsaudit.errors import UsageError
from rlsaudit.finding import Finding


@dataclass(frozen=True, slots=True)
class Allowed:
    """``[[allow]]`` of the configuration."""

    check: str
    object: str
    """As findings name it; ``*`` and ``?`` stand for any characters and any one."""
    reason: str

    @property
    def said(self) -> str:
        return f"{self.check} on {self.object}: {self.reason} (allow-list of the configuration)"


@dataclass(frozen=True)
class Sorted:
    """Findings with what is allowed marked, and what the report says of the list."""

    findings: tuple[Finding, ...]
    waivers: tuple[str, ...]
    notes: tuple[str, ...]


def require_known(allowed: Iterable[Allowed], checks: Collection[str]) -> None:
    """Raises UsageError for an entry that names no check."""
    for one in allowed:
        if one.check not in checks:
            near = difflib.get_close_matches(one.check, checks, n=1)
            raise UsageError(
                f"allow: no check {one.check!r}; {f'did you mean {near[0]}?' if near else 'rlsaudit checks lists them'}"
            )


def apply(findings: Iterable[Finding], allowed: tuple[Allowed, ...]) -> Sorted:
    """Mark findings that an entry covers; say which entries cover nothing any more."""
    used: set[Allowed] = set()
    marked = []
    for finding in findings:
        entry = next((one for one in allowed if _covers(one, finding)), None)
        if entry is not None:
            used.add(entry)
            finding = replace(finding, status="waived", status_reason=entry.reason)  # noqa: PLW2901
        marked.append(finding)
    return Sorted(
        tuple(marked),
        tuple(one.said for one in allowed if one in used),
        tuple(f"The allow-list has {one.check} on {one.object}, which nothing matches any more: remove it."
              for one in allowed if one not in used),
    )  # fmt: skip


def _covers(one: Allowed, finding: Finding) -> bool:
    return finding.source == "check" and finding.check == one.check and fnmatchcase(finding.object, one.object)
