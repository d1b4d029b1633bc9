"""What a report file imports: the finished Report, the writer decorator, and the registry of formats.

``evidence.json`` is the only serialised form of a Report; every other format is a pure function of it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Literal

from rlsaudit.errors import UsageError
from rlsaudit.finding import Cell, Finding, PropertyResult

SCHEMA_VERSION = "1.0"

Verdict = Literal["clean", "exceptions", "not trustworthy"]


@dataclass(frozen=True, slots=True)
class PopulationEntry:
    """One relation of the catalog: what it is and what became of it."""

    relation: str
    kind: str
    class_: str
    why: str
    owner: str
    outcome: Literal["leak", "not covered", "waived", "isolated", "no app privilege", "not tenant data"]


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """A policy as the server holds it."""

    relation: str
    name: str
    command: str
    permissive: bool
    roles: tuple[str, ...]
    using: str | None
    check: str | None


@dataclass(frozen=True, slots=True)
class RoleEntry:
    """A role that matters here, and what it may step around."""

    name: str
    login: bool
    application: bool
    superuser: bool
    bypassrls: bool
    owns: int
    """Tenant relations owned."""
    inherits: tuple[str, ...]
    may_set: tuple[str, ...]
    why: str = ""
    exempt: str = ""
    """Why row security does not bind it on some tenant relation, such as ``BYPASSRLS``; else empty."""


@dataclass(frozen=True, slots=True)
class StandardEntry:
    """A control of a standard, and the checks of this run that bear on it."""

    standard: str
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WaiverEntry:
    """An exception that somebody answers for, and what became of it in this run."""

    kind: Literal["waiver", "allow-list"]
    status: Literal["in force", "not yet", "expired", "stale", "refused"]
    """``refused``: it names an executed leak without accepting the risk; ``stale``: nothing matches it; ``not yet``: it
    was approved later than the run began."""
    matches: str
    """What it is for: a fingerprint, or a rule and an object."""
    reason: str
    approver: str = ""
    approved_on: str = ""
    """ISO 8601 date, as ``expires``."""
    expires: str = ""
    ticket: str = ""
    accept_risk: bool = False
    findings: tuple[str, ...] = ()
    """Identifiers of the findings that it covers."""


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """The earlier run that this one was held against."""

    source: str
    started: str
    verdict: Verdict
    sha256: str
    new: int
    carried: int
    fixed: tuple[tuple[str, str, str], ...]
    """Severity, title and object of what stood open then and is no longer found."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """An earlier run, as one mark in a row of them."""

    started: str
    verdict: Verdict
    leaks: int
    """Cells that leaked."""
    not_covered: int
    findings: int
    """Findings open then."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is needed to trust the record or to make it again; never a password."""

    tool_version: str
    source: str
    command: tuple[str, ...]
    configuration_hash: str
    server_version: str
    scratch_version: str
    system_identifier: str
    database: str
    session_role: str
    session_exempt: bool
    catalog_fingerprint: str
    seed: int
    runner_clock: str
    server_clock: str
    python_version: str
    checks: tuple[str, ...]
    started_by: str
    commit: str = ""
    """Commit that was tested, as the CI system says it."""
    package_hash: str = ""
    """sha256 over the files of the package that ran, by name."""


@dataclass(frozen=True, slots=True)
class Timing:
    started: str
    """ISO 8601, UTC."""
    seconds: float
    phases: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Report:
    verdict: Verdict
    exit_code: int
    sentence: str
    """The verdict in one sentence, for headings."""
    reasons: tuple[str, ...]
    """Why this exit code, each a sentence; empty when clean."""
    population: tuple[PopulationEntry, ...]
    population_counted: int
    """Relations as a second query counts them: len(population), or the run is not trustworthy."""
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...]
    properties: tuple[PropertyResult, ...]
    policies: tuple[PolicyEntry, ...]
    roles: tuple[RoleEntry, ...]
    context: tuple[str, ...]
    """How a session says for whom it acts, as lines: the statements of each persona, and their origin."""
    notes: tuple[str, ...]
    """What the run did on its own (roles it created, roles it allowed to log in …)."""
    limits: tuple[str, ...]
    """What was not tested, by design."""
    statements: int
    """Statements that the probe ran."""
    tenants: int
    provenance: Provenance
    timing: Timing
    fail_on: str = "medium"
    waivers: tuple[WaiverEntry, ...] = field(default=())
    baseline: BaselineEntry | None = None
    history: tuple[HistoryEntry, ...] = ()
    """Earlier runs, oldest first, where the run was given any."""
    standards: tuple[StandardEntry, ...] = field(default=())
    """Controls that the checks run map to, so that a report can also say where nothing was found."""


Writer = Callable[[Report], str]


@dataclass(frozen=True)
class Format:
    """An output format: ``write`` turns a Report into the text of ``filename``."""

    name: str
    filename: str
    write: Writer
    description: str


def format_(name: str, *, filename: str, description: str) -> Callable[[Writer], Format]:
    """Declare an output format in a file of reports/."""

    def declare(write: Writer) -> Format:
        return Format(name, filename, write, description)

    return declare


@cache
def formats() -> dict[str, Format]:
    """Every format by name: the files of rlsaudit.reports, and entry points of group ``rlsaudit.reports``."""
    package = importlib.import_module("rlsaudit.reports")
    modules = [importlib.import_module(f"rlsaudit.reports.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    found: Iterable[object] = [value for module in modules for value in vars(module).values()]
    found = [*found, *(entry.load() for entry in entry_points(group="rlsaudit.reports"))]
    return {one.name: one for one in found if isinstance(one, Format)}


def chosen(names: Iterable[str]) -> tuple[Format, ...]:
    """The formats with these names.  Raises UsageError for an unknown one, naming those there are."""
    known = formats()
    for name in names:
        if name not in known:
            raise UsageError(f"unknown format {name!r}: choose from {', '.join(sorted(known))}")
    return tuple(known[name] for name in names)


def terminal_summary(report: Report, width: int, color: bool, paths: Sequence[str]) -> str:
    """The summary for a terminal, from the reports package, which nobody imports by name."""
    module = importlib.import_module("rlsaudit.reports.terminal")
    return str(module.summary(report, width, color, paths))
