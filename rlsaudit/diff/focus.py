"""What is attacked: what changed, what depends on it, and one relation that did not change, to see by.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rlsaudit.diff.objects import Changes, Object, Side
from rlsaudit.doubt import CellName
from rlsaudit.finding import Finding
from rlsaudit.probe.attacks.reach import touches
from rlsaudit.probe.attacks.sweep import Focus
from rlsaudit.prove.prove import Proof
from rlsaudit.report import Report


def confined(head: Side, changes: Changes, proofs: Iterable[Proof]) -> Focus | None:
    """What of HEAD to attack; None when nothing that changed bears on tenant data."""
    relations = frozenset(name for kind, name in changes.affected if kind == "relation" and _bears(head, name))
    functions = frozenset(name for kind, name in changes.affected if kind == "function" and _called(head, name))
    if not relations and not functions:
        return None
    proven = {head.catalog.relation(one.relation).qualified for one in proofs if one.verdict == "proven"}
    controls = _controls(head)
    seen = relations & proven & controls
    control = () if seen else sorted(controls - relations, key=lambda name: (name not in proven, name))[:1]
    return Focus(relations | frozenset(control), functions)


def objects(focus: Focus) -> frozenset[Object]:
    return frozenset(
        [("relation", name) for name in focus.relations] + [("function", name) for name in focus.functions]
    )


def on_base(report: Report, changes: Changes, base: Side, proofs: Mapping[CellName, Proof]) -> Focus | None:
    """Where BASE has to be asked whether it was so there already; None where HEAD shows nothing that could be old.

    What ``proofs`` of BASE rule out need not be asked.
    """
    before = {changes.named(name): name for name in base.relations}
    proven = {
        (changes.named(name), role, command)
        for (name, role, command), proof in proofs.items()
        if proof.verdict == "proven" and not _rewritten(base, name)
    }
    open_ = (cell for cell in report.cells if cell.state in ("leak", "not covered"))
    places = {cell.relation for cell in open_ if (cell.relation, cell.role, cell.command) not in proven}
    for one in report.findings:
        if one.source == "probe" and not _ruled_out(one, proven):
            places |= {one.object, one.relation, *one.also}
    relations = frozenset(before[name] for name in places if name in before)
    functions = frozenset(name for name in places if name in base.functions)
    return Focus(relations, functions) if relations or functions else None


def _ruled_out(one: Finding, proven: set[CellName]) -> bool:
    """Whether the leak goes through policies that kept tenants apart in BASE."""
    direct = one.object == one.relation and not one.also and one.property in ("read", "write", "forge", "closed")
    roles, commands = one.roles or (one.role,), one.commands or (one.command,)
    return direct and all((one.relation, role, command) in proven for role in roles for command in commands)


def _rewritten(side: Side, name: str) -> bool:
    """Whether triggers or rules make something else of a statement, of which proofs know nothing."""
    oid = side.relations[name].oid
    return bool(side.catalog.triggers_of(oid)) or any(rule.relation == oid for rule in side.catalog.rules)


def _bears(head: Side, name: str) -> bool:
    """Whether its rows may be tenants': of what is global nothing can cross."""
    relation = head.relations.get(name)
    return relation is not None and head.tenancy.of(relation.oid).kind not in ("global", "infrastructure")


def _called(head: Side, name: str) -> bool:
    function = head.functions.get(name)
    if function is None or not any(head.visibility.may_execute(role.oid, function) for role in head.tenancy.roles):
        return False
    return function.security_definer or touches(head.catalog, head.tenancy, function).tenant_data


def _controls(head: Side) -> set[str]:
    return {
        name
        for name, one in head.relations.items()
        if one.kind == "table" and one.rls_enabled and head.tenancy.of(one.oid).tenant_data
        if any(head.visibility.may(role.oid, one, "SELECT") for role in head.tenancy.roles)
    }
