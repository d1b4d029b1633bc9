"""Everything a Report is made of, as the scan hands it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rlsaudit.allow import Allowed
from rlsaudit.baseline import Baseline
from rlsaudit.catalog.model import Catalog
from rlsaudit.finding import Finding, Severity
from rlsaudit.probe.result import ProbeResult
from rlsaudit.prove.prove import Proof
from rlsaudit.report import HistoryEntry
from rlsaudit.tenancy.model import Tenancy
from rlsaudit.waivers import Waiver


@dataclass(frozen=True)
class Pieces:
    """Everything a Report is made of."""

    catalog: Catalog
    tenancy: Tenancy
    findings: tuple[Finding, ...]
    proofs: tuple[Proof, ...]
    probed: ProbeResult | None
    notes: tuple[str, ...]
    source: str
    command: tuple[str, ...]
    configuration_hash: str
    seed: int
    fail_on: Severity
    scratch_version: str
    started: datetime
    seconds: float
    phases: tuple[tuple[str, float], ...]
    allowed: tuple[Allowed, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    baseline: Baseline | None = None
    history: tuple[HistoryEntry, ...] = ()
    places: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Where the SQL of the source last defined an object: its identity → file and line."""

    @property
    def interrupted(self) -> bool:
        """Whether a signal or a lost server ended the attack; what is here was found until then."""
        return self.probed is not None and self.probed.interrupted
