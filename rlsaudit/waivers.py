"""``rlsaudit-waivers.toml``: findings that somebody has approved to live with, for a time.

A waiver without a reason, an approver, the day of approval and the day it ends is no waiver.  One that has ended fails
the run, one that nothing matches is told of, and a leak that was executed is waived only by one that says
``accept_risk = true``.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

from rlsaudit.config_keys import Key
from rlsaudit.errors import UsageError
from rlsaudit.finding import Finding, named_like
from rlsaudit.report import WaiverEntry

FILENAME = "rlsaudit-waivers.toml"
_NEEDED = ("reason", "approver", "approved_on", "expires")
KEYS: Mapping[str, Key] = {
    "fingerprint": Key("string", "The finding's fingerprint; or rule and object."),
    "rule": Key("string", "`RLS202`, `PROBE-READ` and so on, as the report names it."),
    "object": Key("string", "As the report names it; `*` and `?` stand for any characters and any one."),
    "reason": Key("string", "Why. Needed."),
    "approver": Key("string", "Who answers for it. Needed."),
    "approved_on": Key("day", "Holds from this day on. Needed."),
    "expires": Key("day", "The last day on which it holds, at most a year later. Needed."),
    "ticket": Key("string", "Where it is followed up."),
    "accept_risk": Key("boolean", "A leak that was executed is waived only with `true`.", "false"),
}
_LAST_YEAR = 2999
_LONGEST = 366
"""Days that a waiver may last: a longer one is a decision about the design, which belongs into the configuration."""


@dataclass(frozen=True, slots=True)
class Waiver:
    """``[[waiver]]``: a fingerprint, or a rule (``RLS202``, ``PROBE-READ``) and an object."""

    fingerprint: str
    rule: str
    object: str
    """As findings name it; ``*`` and ``?`` stand for any characters and any one."""
    reason: str
    approver: str
    approved_on: date
    expires: date
    """The last day on which it holds."""
    ticket: str = ""
    accept_risk: bool = False

    @property
    def matches(self) -> str:
        return f"finding {self.fingerprint}" if self.fingerprint else f"{self.rule} on {self.object}"

    def covers(self, finding: Finding) -> bool:
        if self.fingerprint:
            return finding.fingerprint == self.fingerprint
        return finding.check == self.rule and named_like(finding.object, self.object)


def load(path: Path | None, directory: Path) -> tuple[Waiver, ...]:
    """The waivers of ``path``, or of rlsaudit-waivers.toml in ``directory`` where there is one.

    Raises UsageError: unreadable, not TOML, an unknown or missing key, a value of the wrong kind, a waiver of no end.
    """
    file = path or directory / FILENAME
    if path is None and not file.is_file():
        return ()
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: not valid TOML: {error}") from error
    listed = document.pop("waiver", [])
    if document:
        raise UsageError(f"{file}: unknown key {next(iter(document))}: give each exception as a [[waiver]]")
    tables = listed if isinstance(listed, list) else [listed]
    return tuple(_waiver(one, f"{file}: waiver[{number}]") for number, one in enumerate(tables, start=1))


def _waiver(table: object, place: str) -> Waiver:
    if not isinstance(table, dict):
        raise UsageError(f"{place} must be a table")
    for key in table:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(KEYS)}"
            raise UsageError(f"{place}: unknown key {key}: {hint}")
    missing = [key for key in _NEEDED if not str(table.get(key, "")).strip()]
    if missing:
        raise UsageError(f"{place}: {missing[0]} is missing; every waiver needs {', '.join(_NEEDED)}")
    fingerprint, rule, named = (_text(table, key, place) for key in ("fingerprint", "rule", "object"))
    if not (rule and named) if not fingerprint else rule or named:
        raise UsageError(f"{place}: give either fingerprint, or rule and object, as the report shows them")
    approved, expires = _day(table, "approved_on", place), _day(table, "expires", place)
    if expires.year > _LAST_YEAR:
        raise UsageError(f"{place}: expires must be a day of this age")
    if not 0 <= (expires - approved).days <= _LONGEST:
        raise UsageError(f"{place}: expires must lie at most a year after approved_on, and not before it")
    accept_risk = table.get("accept_risk", False)
    if not isinstance(accept_risk, bool):
        raise UsageError(f"{place}: accept_risk must be true or false")
    reason, approver, ticket = (_text(table, key, place) for key in ("reason", "approver", "ticket"))
    return Waiver(fingerprint, rule.upper(), named, reason, approver, approved, expires, ticket, accept_risk)


def _text(table: Mapping[str, object], key: str, place: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise UsageError(f"{place}: {key} must be a string")
    return value.strip()


def _day(table: Mapping[str, object], key: str, place: str) -> date:
    value = table[key]
    try:
        if isinstance(value, str):
            return date.fromisoformat(value)
        if isinstance(value, datetime):
            return value.date()
        if isinstance(value, date):
            return value
    except ValueError:
        pass
    raise UsageError(f"{place}: {key} must be a day such as 2026-11-30")


def apply(
    findings: Iterable[Finding], waivers: Iterable[Waiver], today: date
) -> tuple[tuple[Finding, ...], tuple[WaiverEntry, ...]]:
    """The findings, those that a waiver in force covers marked; and what became of each waiver."""
    marked = {finding.id: finding for finding in findings}
    entries = []
    for waiver in waivers:
        covered = [finding for finding in marked.values() if waiver.covers(finding)]
        executed = any(finding.source == "probe" for finding in covered)
        entry = WaiverEntry(
            "waiver",
            "stale" if not covered else "expired" if today > waiver.expires
            else "not yet" if today < waiver.approved_on
            else "refused" if executed and not waiver.accept_risk else "in force",
            waiver.matches, waiver.reason, waiver.approver, waiver.approved_on.isoformat(), waiver.expires.isoformat(),
            waiver.ticket, waiver.accept_risk, tuple(finding.id for finding in covered),
        )  # fmt: skip
        entries.append(entry)
        if entry.status == "in force":
            said = f"{waiver.reason} (approved by {waiver.approver}, until {entry.expires})"
            marked |= {one.id: replace(one, status="waived", status_reason=said) for one in covered}
    return tuple(marked.values()), tuple(entries)
