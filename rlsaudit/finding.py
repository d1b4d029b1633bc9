"""What every way of looking produces: findings and cells, with the words of the isolation contract."""

from __future__ import annotations

import builtins
import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Severity = Literal["critical", "high", "medium", "low", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "high", "medium", "low", "info")

Property = Literal["read", "write", "forge", "closed", "carryover", "interference", "alive", "detector", ""]
"""The isolation contract; empty for a finding about configuration (a missing FORCE, say)."""

State = Literal["leak", "not covered", "waived", "held", "proven", "no privilege"]
Source = Literal["check", "prove", "probe"]


def at_least(severity: Severity, threshold: Severity) -> bool:
    """True when ``severity`` is as bad as ``threshold`` or worse."""
    return SEVERITIES.index(severity) <= SEVERITIES.index(threshold)


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect, with its evidence.  ``id`` is given by the report (F-1, F-2 …), everything else by the finder."""

    check: str
    """``RLS001`` of a check; ``PROBE-READ`` and the like of the probe; ``PROVE`` of the prover."""
    source: Source
    title: str
    """What is wrong in a few words, without names: the same for all findings of its kind."""
    severity: Severity
    object: str
    """The object at fault as people write it: ``public.invoices``, ``public.f(int)``, ``role app_user``."""
    message: str
    """What happened here and why it matters, in one or two sentences with this schema's names; no tenant values."""
    property: Property = ""
    relation: str = ""
    """Qualified relation whose rows are at stake, when there is one."""
    command: str = ""
    role: str = ""
    fix: str = ""
    """SQL that closes it."""
    attack: str = ""
    """The statements that cross, with the context they run under (probe only); their values are synthetic."""
    replay: str = ""
    """Text of the psql script that shows it (probe only)."""
    confirmed: bool = False
    """The replay script was run by psql and printed LEAK."""
    rationale: str = ""
    standards: tuple[str, ...] = ()
    id: str = ""
    status: Literal["open", "waived"] = "open"
    status_reason: str = ""
    """Why it does not count, when it is waived."""
    also: tuple[str, ...] = ()
    """Further relations that the same leak reaches."""
    roles: tuple[str, ...] = ()
    """Every role that shows the same leak; empty when it is ``role`` alone."""
    commands: tuple[str, ...] = ()
    """Every command that shows it; empty when it is ``command`` alone."""
    file: str = ""
    """File of the SQL source that last defined the object at fault; empty for a live database."""
    line: int = 0
    """Line of the statement there, from 1; 0 where it is not known."""
    age: Literal["", "new", "carried"] = ""
    """Against the baseline; empty without one."""

    @builtins.property  # the field above has the name
    def fingerprint(self) -> str:
        """Stable across runs: the kind and the place, not the wording."""
        named = (self.check, self.property, self.relation, self.object, self.command, self.role)
        parts = (*named, *self.also, *self.roles, *self.commands)
        return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @builtins.property
    def place(self) -> str:
        """What its cells are called: the relation at stake, or the function that was called."""
        return self.object if self.command == "EXECUTE" and self.source != "check" else self.relation


@dataclass(frozen=True, slots=True)
class Cell:
    """The state of one relation × role × command; ``reason`` says what was tried, or why nothing could be."""

    relation: str
    role: str
    command: str
    state: State
    trials: int = 0
    reason: str = ""
    age: Literal["", "carried"] = ""
    """``carried``: it leaked, or was not covered, in the baseline already."""


@dataclass(frozen=True, slots=True)
class PropertyResult:
    """One property of the isolation contract over the whole run, or for one role."""

    property: Property
    role: str
    outcome: Literal["held", "leak", "not covered", "waived"]
    trials: int
    reason: str
    age: Literal["", "carried"] = ""
    """``carried``: all of its leaks were there in the baseline already."""


def named_like(name: str, pattern: str) -> bool:
    """Whether an object's name fits a pattern in which ``*`` and ``?`` alone stand for others: arrays have brackets."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def concerns(finding: Finding, cell: Cell) -> bool:
    """Whether the finding is about this relation × role × command; an empty role or command means any."""
    return _at(finding, cell, (finding.place, *finding.also))


def attacks(finding: Finding, cell: Cell) -> bool:
    """Whether a leak was reached through this cell, be it that a trigger carried it on to another relation."""
    return _at(finding, cell, (finding.object, finding.place, *finding.also))


def _at(finding: Finding, cell: Cell, places: tuple[str, ...]) -> bool:
    return (
        cell.relation in places
        and (finding.role in ("", cell.role) or cell.role in finding.roles)
        and (finding.command in ("", "ALL", cell.command) or cell.command in finding.commands)
    )
