"""What a scratch copy does not have as the target has it: its cells are not covered, whatever the copy showed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS
from rlsaudit.catalog.routines import Function
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.finding import Cell
from rlsaudit.probe.result import ProbeResult
from rlsaudit.source import difference
from rlsaudit.tenancy.model import Tenancy


@dataclass(frozen=True)
class Untested:
    """Differences between a target and its copy that bear on isolation."""

    relations: Mapping[str, str] = field(default_factory=dict)
    """Qualified name → what is not the same."""
    functions: tuple[Function, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.relations or self.functions)


def untested(target: Catalog, copy: Catalog) -> Untested:
    """Hold a copy against its target."""
    return Untested(difference.relations(target, copy), difference.functions(target, copy))


def withheld(probed: ProbeResult, gaps: Untested, catalog: Catalog, tenancy: Tenancy) -> ProbeResult:
    """``probed`` without verdicts on relations that differ, and with cells for what the copy lacks.

    ``catalog`` and ``tenancy`` are the target's.
    """
    if not gaps:
        return probed
    kept = (cell for cell in probed.cells if cell.relation not in gaps.relations)
    cells = (*kept, *_relations(gaps.relations, catalog, tenancy), *_functions(gaps.functions, catalog, tenancy))
    findings = tuple(f for f in probed.findings if gaps.relations.keys().isdisjoint((f.relation, f.object)))
    return replace(probed, cells=cells, findings=findings)


def _relations(gaps: Mapping[str, str], catalog: Catalog, tenancy: Tenancy) -> Iterator[Cell]:
    visibility = visibility_of(catalog)
    for relation in catalog.relations:
        if relation.qualified not in gaps or relation.kind == "sequence":
            continue
        reason = f"the scratch copy is not as the target is: {gaps[relation.qualified]}"
        for role in tenancy.roles:
            for command in COMMANDS:
                may = visibility.may(role.oid, relation, command)
                yield Cell(
                    relation.qualified,
                    role.name,
                    command,
                    "not covered" if may else "no privilege",
                    0,
                    reason if may else "",
                )


def _functions(gaps: Iterable[Function], catalog: Catalog, tenancy: Tenancy) -> Iterator[Cell]:
    visibility = visibility_of(catalog)
    for function in gaps:
        if function.returns in ("trigger", "event_trigger"):
            continue
        for role in tenancy.roles:
            if visibility.may_execute(role.oid, function):
                reason = f"the function (language {function.language}) could not be made in the scratch copy"
                yield Cell(function.signature, role.name, "EXECUTE", "not covered", 0, reason)
