"""What the prover hands to the probe of a cell that it did not prove: plain values, named as the catalog names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlsaudit.catalog.relations import Command

CellName = tuple[str, str, str]
"""(relation, role, command)"""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One cell, and of a refuted one the rows and settings that break it, as text; None is NULL, or never set."""

    relation: str
    role: str
    command: Command
    why: str
    """The prover's reason."""
    rows: tuple[tuple[str, str, tuple[tuple[str, str | None], ...]], ...] = ()
    """``row 1`` or the like, its relation, and its columns; nothing when nothing is known."""
    settings: tuple[tuple[str, str | None], ...] = ()
    state: Literal["any", "null", "empty"] = "any"
    """``null`` or ``empty``: all settings are."""

    @property
    def cell(self) -> CellName:
        return self.relation, self.role, self.command


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of a doubt that no leak bore out."""

    said: str
    """What was tried, in words."""
    opened: bool = False
    """It takes a setting that an ordinary session does not have, which is a finding of its own."""
