"""What a probe gives, and what it needs of a scratch server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import psycopg

from rlsaudit.doubt import CellName, Settled
from rlsaudit.finding import Cell, Finding, PropertyResult

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done and how many there are."""


class Scratch(Protocol):
    """What the probe needs of a scratch server; ``rlsaudit.source.server.ScratchServer`` is one."""

    @property
    def shared(self) -> bool:
        """Whether the cluster is the user's, whose roles stay as they are."""
        ...

    def conninfo(self, dbname: str = ..., user: str = ...) -> str: ...
    def connect(
        self, dbname: str = ..., user: str = ..., autocommit: bool = ...
    ) -> psycopg.Connection[tuple[object, ...]]: ...
    def create_database(self, name: str, template: str | None = ...) -> None: ...
    def drop_database(self, name: str) -> None: ...
    def dump_schema(self, dbname: str, *, data: bool) -> str: ...
    def run_psql(self, dbname: str, script: str, *, timeout: float) -> tuple[int, str]: ...
    def await_back(self) -> None:
        """Wait until it takes connections, where it may come back.  Raises ServerLost."""
        ...


@dataclass(frozen=True)
class ProbeResult:
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...]
    properties: tuple[PropertyResult, ...]
    notes: tuple[str, ...]
    schema: str
    """``schema.sql`` that replay scripts read."""
    statements: int
    programs: int
    tenants: int
    blind: bool
    """The detector found nothing that it should have: the run is not trustworthy."""
    unseeded: str = ""
    """Why no tenant at all could be seeded."""
    interrupted: bool = False
    """Cut short by a signal, or because the server was lost: what is here was found until then."""
    lost: str = ""
    """What was said when the server was lost."""
    settled: Mapping[CellName, Settled] = field(default_factory=dict)
    """Refuted cells whose witness brought nothing about."""
    not_tried: tuple[str, ...] = ()
    """What this way of probing leaves out altogether, in sentences; then nothing is called clean."""
