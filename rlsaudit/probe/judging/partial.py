"""What stands when a probe is interrupted: the leaks that were seen, and nothing that reads like a pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rlsaudit.finding import Cell, Finding, PropertyResult
from rlsaudit.probe.attacks.sweep import Arena, CellKey
from rlsaudit.probe.ground.leak import Leak, Tried, shortest
from rlsaudit.probe.judging import judge
from rlsaudit.probe.judging.findings import as_finding
from rlsaudit.probe.judging.opening import openers, told_apart
from rlsaudit.probe.judging.telling import worth_telling
from rlsaudit.probe.replay.script import SeedRow, Stage, script
from rlsaudit.tenancy.model import ApplicationRole

_MOST_ROWS = 300
"""In a script that nobody has shrunk: hundreds of scripts with thousands of rows each are nobody's report."""
REASON = "the run was interrupted before this could be judged"


def leaks(
    arena: Arena, roles: Iterable[ApplicationRole], tried: Mapping[CellKey, Tried], known: Sequence[Leak]
) -> tuple[Leak, ...]:
    """``known``, and of roles whose sweep was cut short what it had seen by then."""
    found = list(known)
    for role in roles:
        if not any(leak.role == role.name for leak in known):
            swept = [leak for key, one in tried.items() if key[1] == role.name for leak in one.leaks]
            found += told_apart(swept, openers(arena, tried, role.name))
    return shortest(found)


def cells(
    arena: Arena, roles: tuple[ApplicationRole, ...], tried: Mapping[CellKey, Tried], found: tuple[Leak, ...]
) -> tuple[Cell, ...]:
    """Leaks stay leaks; everything else that was or would have been tried is not covered."""
    judged = judge.cells(arena, roles, tried, frozenset(), found)
    return tuple(
        one if one.state in ("leak", "no privilege") else replace(one, state="not covered", reason=REASON)
        for one in judged
    )


def properties(results: Iterable[PropertyResult]) -> tuple[PropertyResult, ...]:
    """No property holds because the first half of its statements crossed nowhere."""
    return tuple(
        replace(one, outcome="not covered", reason=REASON) if one.outcome == "held" and one.property != "alive" else one
        for one in results
    )


def findings(stage: Stage, found: tuple[Leak, ...], rows: Sequence[SeedRow]) -> tuple[Finding, ...]:
    """Leaks with scripts that nobody has run yet, with all the rows or, of a large schema, those that are about them.

    What compares two worlds takes more than a script to tell, and is left out.
    """
    told = (one for one in worth_telling(stage.catalog, found) if one.leak.breaks != "interference")
    made = (as_finding(stage.catalog, one, script(stage, one.leak, _wanted(stage, one.leak, rows))) for one in told)
    said = " The run was interrupted before psql had replayed it."
    return tuple(replace(one, confirmed=False, message=one.message + said) for one in made)


def _wanted(stage: Stage, leak: Leak, rows: Sequence[SeedRow]) -> Sequence[SeedRow]:
    return stage.near(leak, rows) if len(rows) > _MOST_ROWS else rows
