"""What to scan and how, as the command line and the configuration say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rlsaudit.allow import Allowed
from rlsaudit.baseline import Baseline
from rlsaudit.finding import Severity
from rlsaudit.own import OwnStatement
from rlsaudit.probe.detector.planting import Mode
from rlsaudit.report import HistoryEntry
from rlsaudit.shards import Shard
from rlsaudit.tenancy.infer import Declared
from rlsaudit.waivers import Waiver

Progress = Callable[[str, int, int], None]
"""Takes what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Options:
    """What to scan and how."""

    source: str
    stdin: BinaryIO
    declared: Declared = field(default_factory=Declared)
    allowed: tuple[Allowed, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    baseline: Baseline | None = None
    """The earlier run whose findings do not fail this one."""
    history: tuple[HistoryEntry, ...] = ()
    pg_bin: Path | None = None
    scratch_on_target: bool = False
    """Whether a live database is copied into databases of ours on its own cluster."""
    in_place: bool = False
    """Whether a live database is attacked itself, in one transaction that is rolled back."""
    agreed: bool = False
    """Whether that may be done although the database looks like production."""
    preset: str = ""
    """Platform whose schemas and roles are made before the SQL of the source is loaded."""
    seed: int = 0
    budget: float = 5.0
    jobs: int = 0
    """Sessions that sweep at once; 0 for one per core, four at most."""
    examples: Path | None = None
    """Directory in which random workloads keep their hard examples and what they learnt for the next run."""
    fail_on: Severity = "medium"
    auditing: bool = True
    probing: bool = True
    shard: Shard | None = None
    """The part of the relations that is attacked; then there is no verdict."""
    own: tuple[OwnStatement, ...] = ()
    """Statements of the application that the probe runs as they are."""
    recorded: bool = False
    """Whether those that the target's pg_stat_statements has seen are run too."""
    detector: Mode = "sample"
    """Whether rlsaudit plants one leak of its own in each cell, or every kind that applies."""
    plans: bool = False
    """Whether queries are planned on a scratch copy as if the tables were large."""
    command: tuple[str, ...] = ()
    configuration_hash: str = ""
