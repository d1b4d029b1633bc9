"""Two ``evidence.json`` held against each other: what the runs found, without the schemas behind them.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from rlsaudit import baseline, evidence
from rlsaudit.baseline import Baseline
from rlsaudit.diff.change import Change, Level
from rlsaudit.diff.compare import findings_opened
from rlsaudit.errors import UsageError
from rlsaudit.finding import Cell
from rlsaudit.report import PolicyEntry, Report

_PASSED = ("held", "proven")


def is_evidence(source: str) -> bool:
    """Whether the source is the record of a run, and not the snapshot of a catalog."""
    if not source.lower().endswith(".json"):
        return False
    try:
        document = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "schema_version" in document


def reports(base: str, head: str) -> tuple[Baseline, Report]:
    """Both records.  Raises UsageError: one of them is none, cannot be read, or gave no verdict."""
    if not (is_evidence(base) and is_evidence(head)):
        raise UsageError("an evidence.json can be compared with another one only: give two of them, or two SOURCEs")
    before = baseline.load(Path(base))
    assert before is not None
    return before, evidence.parse(Path(head).read_text(encoding="utf-8"), head)


def changes(before: Baseline, head: Report) -> Iterator[Change]:
    """What the later run found that the earlier one did not, and the other way round."""
    base = before.report
    probed = head.statements > 0 and base.statements > 0
    yield from findings_opened(before, head, probed=probed)
    old = {(cell.relation, cell.role, cell.command): cell for cell in base.cells}
    new = {entry.relation for entry in head.population} - {entry.relation for entry in base.population}
    told = {finding.place for finding in head.findings} | {one for finding in head.findings for one in finding.also}
    for cell in head.cells:
        was = old.get((cell.relation, cell.role, cell.command))
        if cell.relation not in new and (change := _cell(was, cell, probed=probed, told=cell.relation in told)):
            yield change
    yield from _population(head, new)
    yield from _policies(_by_relation(base), _by_relation(head), new)
    exempt = {role.name for role in base.roles if role.exempt}
    for role in head.roles:
        if role.exempt and role.name not in exempt:
            level: Level = "dangerous" if role.application or role.login else "review"
            title = f"Row security does not bind it: {role.exempt}"
            yield Change("new role path", level, f"role {role.name}", title, roles=(role.name,))


def _cell(was: Cell | None, now: Cell, *, probed: bool, told: bool) -> Change | None:
    place = (now.relation, (now.role,), (now.command,))
    if now.state == "leak" and not told and (was is None or was.state != "leak"):
        return Change("opened", "dangerous", now.relation, "Leaks", now.reason, *place)
    if was is None or was.state in ("no privilege", "waived"):
        if now.state in ("not covered", "held") and was is not None:
            return Change("new role path", "review", now.relation, "Privilege granted", now.reason, *place)
        return None
    if was.state == "proven" and now.state not in ("proven", "leak", "no privilege"):
        return Change("weakened", "review", now.relation, "Proof lost", f"{now.state}: {now.reason}", *place)
    if was.state == "held" and now.state == "not covered" and probed:
        return Change("weakened", "review", now.relation, "No longer covered", now.reason, *place)
    if was.state == "leak" and now.state in _PASSED:
        return Change("closed", "note", now.relation, "Leaks no longer", now.reason, *place)
    return None


def _population(head: Report, new: set[str]) -> Iterator[Change]:
    levels: Mapping[str, Level] = {"leak": "dangerous", "not covered": "review"}
    for entry in head.population:
        if entry.relation in new:
            level: Level = "review" if entry.class_ == "unclassified" else levels.get(entry.outcome, "note")
            yield Change("new relation", level, entry.relation, f"New, {entry.class_}: {entry.outcome}", entry.why)


def _by_relation(report: Report) -> dict[str, set[PolicyEntry]]:
    found: dict[str, set[PolicyEntry]] = {entry.relation: set() for entry in report.population}
    for policy in report.policies:
        found.setdefault(policy.relation, set()).add(policy)
    return found


def _policies(
    base: Mapping[str, set[PolicyEntry]], head: Mapping[str, set[PolicyEntry]], new: set[str]
) -> Iterator[Change]:
    for relation in sorted(head.keys() & base.keys() - new):
        if head[relation] != base[relation]:
            detail = "Whether they admit more rows is for the prover, which needs the schemas: give two SOURCEs."
            yield Change("undecided", "review", relation, "Policies changed", detail, relation)
