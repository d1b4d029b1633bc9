"""The comparison of two states of a schema as one value, and its forms."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal

Level = Literal["dangerous", "review", "note"]
LEVELS: tuple[Level, ...] = ("dangerous", "review", "note")
Verdict = Literal["SAFE", "REVIEW", "DANGEROUS", "NOT TRUSTWORTHY"]
Kind = Literal[
    "opened", "wider", "weakened", "new relation", "new role path", "undecided", "changed", "narrower", "closed", "gone"
]
FORMATS = ("text", "markdown", "json", "github")
Format = Literal["text", "markdown", "json", "github"]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was, and what that does to isolation."""

    kind: Kind
    level: Level
    object: str
    """As people write it: ``public.invoices``, ``policy p on public.t``, ``role app``."""
    title: str
    detail: str = ""
    relation: str = ""
    roles: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    witness: str = ""
    """A row and settings that show it, or the statements that crossed."""
    check: str = ""
    """Of a finding: ``RLS001``, ``PROBE-READ``."""
    severity: str = ""
    fix: str = ""
    file: str = ""
    """Where HEAD defines it, or does what changes it; empty where no SQL file does."""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that bears on isolation and is not in HEAD as it is in BASE."""

    verdict: Verdict
    exit_code: int
    sentence: str
    base: str
    head: str
    changes: tuple[Change, ...]
    """The worst first."""
    distrust: tuple[str, ...]
    """Why there is no verdict, where there is none."""
    probed: tuple[str, ...]
    """Relations and functions that were attacked in HEAD."""
    unchanged: int
    """Tenant relations that nothing changed and that were not tested again: what BASE is, they are."""
    statements: int
    notes: tuple[str, ...]
    seconds: float
    phases: tuple[tuple[str, float], ...]


def order(one: Change) -> tuple[int, str, str, str]:
    """The worst first."""
    return LEVELS.index(one.level), one.object, one.kind, one.check


def rendered(difference: Difference, form: Format, width: int = 80, color: bool = False) -> str:
    """The text of one form, from the reports package, which nobody imports by name."""
    module = importlib.import_module("rlsaudit.reports._difference")
    return str(module.render(difference, form, width, color))
