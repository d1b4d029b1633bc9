"""What is allowed, waived or known from a baseline: marks on findings, cells and properties.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rlsaudit import allow, baseline, waivers
from rlsaudit.finding import Cell, Finding, PropertyResult, concerns
from rlsaudit.pieces import Pieces
from rlsaudit.report import BaselineEntry, WaiverEntry


@dataclass(frozen=True, slots=True)
class Settled:
    """What the report shows, each exception marked."""

    findings: tuple[Finding, ...]
    cells: tuple[Cell, ...]
    properties: tuple[PropertyResult, ...]
    waivers: tuple[WaiverEntry, ...]
    baseline: BaselineEntry | None
    notes: tuple[str, ...]


def settle(
    findings: tuple[Finding, ...], cells: tuple[Cell, ...], properties: tuple[PropertyResult, ...], pieces: Pieces
) -> Settled:
    """Apply the allow-list, the waivers as of the day the run began, and the baseline."""
    marked, allowed = allow.apply(findings, pieces.allowed)
    marked, waived = waivers.apply(marked, pieces.waivers, pieces.started.date())
    marked, compared = baseline.compare(marked, pieces.baseline, probed=pieces.probed is not None)
    leaks = [finding for finding in marked if finding.source == "probe"]
    known = pieces.baseline.gaps if pieces.baseline else frozenset()
    return Settled(
        marked,
        tuple(_cell(cell, leaks, known) for cell in cells),
        tuple(_property(one, leaks) for one in properties),
        (*waived, *allowed),
        compared,
        tuple(_notes((*waived, *allowed))),
    )


def _cell(cell: Cell, leaks: Sequence[Finding], known: frozenset[tuple[str, str, str]]) -> Cell:
    """A leaking cell all of whose leaks are waived, or were there before; a gap that was one before."""
    if cell.state == "not covered" and (cell.relation, cell.role, cell.command) in known:
        return replace(cell, age="carried")
    if cell.state != "leak":
        return cell
    about = [leak for leak in leaks if concerns(leak, cell)]
    standing = [leak for leak in about if leak.status == "open"]
    if about and not standing:
        return replace(cell, state="waived", reason=f"{cell.reason}; {about[0].status_reason}")
    if standing and all(leak.age == "carried" for leak in standing):
        return replace(cell, age="carried")
    return cell


def _property(result: PropertyResult, leaks: Sequence[Finding]) -> PropertyResult:
    """A broken property all of whose leaks are waived, or were there before; what is open without a context is told
    with the leak that has one."""
    if result.outcome != "leak":
        return result
    mine = [leak for leak in leaks if result.role in ("", leak.role, *leak.roles) or not leak.role]
    about = [leak for leak in mine if leak.property == result.property] or (mine if result.property == "closed" else [])
    standing = [leak for leak in about if leak.status == "open"]
    if about and not standing:
        return replace(result, outcome="waived", reason=f"{result.reason}; {about[0].status_reason}")
    if standing and all(leak.age == "carried" for leak in standing):
        return replace(result, age="carried")
    return result


def _notes(entries: Sequence[WaiverEntry]) -> Iterator[str]:
    for one in entries:
        if one.status == "stale":
            yield f"The {one.kind} has {one.matches}, which nothing matches any more: remove it."
        elif one.status == "not yet":
            yield f"The waiver for {one.matches} begins on {one.approved_on}; until then what it covers counts."
        elif one.status == "refused":
            yield (
                f"The waiver for {one.matches} covers a leak that was executed ({', '.join(one.findings)}), so it needs "
                "accept_risk = true; the leak counts."
            )
