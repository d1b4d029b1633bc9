"""The report on a period as one value, and its three forms."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal

from rlsaudit import evidence
from rlsaudit.bundle.history import Episode
from rlsaudit.bundle.verify import Part
from rlsaudit.report import Verdict, WaiverEntry


@dataclass(frozen=True, slots=True)
class RunEntry:
    directory: str
    started: str
    verdict: Verdict
    exit_code: int
    sentence: str
    system: str
    """What was tested; empty, as all below, for a run without a readable evidence.json."""
    command: str
    relations: int
    cells: tuple[tuple[str, int], ...]
    """State and number of cells, of those states that occur."""
    findings: tuple[tuple[str, int], ...]
    """Severity and number of open findings, of those that occur."""
    failures: int
    """Hashes, signatures and links of the chain that do not fit."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Days, both included, on which no run started although one was due."""

    first: str
    last: str
    days: int


@dataclass(frozen=True, slots=True)
class WaiverSpan:
    """One waiver, as approved, and the runs that knew it; with another end or approver it is another one."""

    waiver: WaiverEntry
    """As the last run has it."""
    first_seen: str
    last_seen: str
    ended: bool
    """It ended on or before the last day of the period."""


@dataclass(frozen=True, slots=True)
class Population:
    """The relations of one run; ``added`` and ``removed`` against the run of the same system before."""

    started: str
    system: str
    relations: int
    counted: int
    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Period:
    verdict: Literal["no exceptions noted", "exceptions noted"]
    exceptions: tuple[str, ...]
    """Each a sentence."""
    first: str
    """ISO 8601 date, as ``last``; both belong to the period, in UTC."""
    last: str
    every: int
    """A run is due in so many days."""
    made: str
    tool_version: str
    runs: tuple[RunEntry, ...]
    gaps: tuple[Gap, ...]
    findings: tuple[Episode, ...]
    fixed: int
    median_days: float | None
    """From first seen to shown gone, over the findings fixed within the period; None when none was."""
    worst_days: float | None
    waivers: tuple[WaiverSpan, ...]
    population: tuple[Population, ...]
    links: int
    """Links of the chain that fit."""
    failures: tuple[Part, ...]
    """Hashes, signatures and links that do not fit, of all runs given."""
    notes: tuple[str, ...]


def document(period: Period) -> str:
    """The text of ``period.json``."""
    return evidence.written({name: evidence.plain(getattr(period, name)) for name in Period.__slots__})


def page(period: Period) -> str:
    """The text of ``period.html``, from the reports package, which nobody imports by name."""
    return str(importlib.import_module("rlsaudit.reports._period").page(period))


def summary(period: Period, width: int) -> str:
    """The summary for a terminal; no line is wider than ``width`` (at least 72)."""
    return str(importlib.import_module("rlsaudit.reports._period").summary(period, width))
