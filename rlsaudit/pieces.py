"""Everything a Report is made of, as the scan hands it on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rlsaudit.catalog.model import Catalog
from rlsaudit.finding import Finding, Severity
from rlsaudit.probe.run import ProbeResult
from rlsaudit.prove.prove import Proof
from rlsaudit.tenancy.model import Tenancy


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
    waivers: tuple[str, ...] = ()
    """Exceptions in force, as lines."""
    interrupted: bool = False
    """A signal ended the run; what is here was found until then."""
