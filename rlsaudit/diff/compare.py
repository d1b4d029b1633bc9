"""From two states of a schema, and what was found in each, to the changes that bear on isolation.  Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rlsaudit.baseline import Baseline, compare
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.diff.change import LEVELS, Change, Level, order
from rlsaudit.diff.objects import Changes, Object, Side
from rlsaudit.diff.policies import Compared, Comparison
from rlsaudit.diff.roles import role_paths
from rlsaudit.finding import Cell, Finding, Severity, concerns
from rlsaudit.probe.attacks.reach import touches
from rlsaudit.prove.prove import Proof
from rlsaudit.report import Report

CellName = tuple[str, str, str]
_LEVELS: Mapping[Severity, Level] = {"critical": "dangerous", "high": "dangerous", "medium": "review"}
_CALLED_BY_THE_SERVER = frozenset({"trigger", "event_trigger", "fdw_handler", "language_handler", "index_am_handler"})
_SUMMARIES = ("new relation", "changed")


@dataclass(frozen=True)
class Looked:
    """What was found on one side."""

    side: Side
    report: Report
    proofs: Mapping[CellName, Proof] = field(default_factory=dict)
    ordinary: Callable[[Proof], bool] = lambda proof: True
    """Whether the session of a proof's witness is one that tenants have."""
    probed: frozenset[Object] = frozenset()
    """What was attacked; nothing when nothing was."""


def differences(base: Looked, head: Looked, changes: Changes) -> tuple[Change, ...]:
    """Everything that is not as it was, the worst first."""
    base = replace(
        base, report=_renamed(base.report, changes), proofs={_cell(n, changes): p for n, p in base.proofs.items()}
    )
    found = [*_findings(base, head, changes)]
    told = {(name, change.level) for change in found for name in (change.object, change.relation)}
    cells = [*_cells(base, head, changes), *_relations(base, head, changes), *_functions(head, changes)]
    found += role_paths(base.side, head.side, changes)
    found += _common(head, changes)
    found += _extensions(base.side, head.side)
    found += (one for one in _grouped(cells) if one.kind not in _SUMMARIES or not _told_of(one, told, cells))
    return tuple(sorted(found, key=order))


def _told_of(one: Change, told: set[tuple[str, Level]], cells: list[Change]) -> bool:
    """Whether something no less bad is said of it that says more."""
    others = [
        other for other in cells if other.object == one.object and other.kind not in _SUMMARIES
        if LEVELS.index(other.level) <= LEVELS.index(one.level)
    ]  # fmt: skip
    worse = LEVELS[: LEVELS.index(one.level) + 1] if one.level != "note" else LEVELS[:2]
    return any((one.object, level) in told for level in worse) or (one.kind == "changed" and bool(others))


def _sentence(text: str) -> str:
    return f" {text.rstrip('.')}." if text else ""


def _renamed(report: Report, changes: Changes) -> Report:
    """BASE's report with the names that HEAD has for its relations."""

    def named(text: str) -> str:
        for old, new in changes.renamed.items():
            text = re.sub(rf"(?<![\w.$]){re.escape(old)}(?![\w$])", lambda _, new=new: new, text)  # type: ignore[misc]
        return text

    def of(one: Finding) -> Finding:
        also = tuple(map(named, one.also))
        return replace(
            one, object=named(one.object), relation=named(one.relation), message=named(one.message), also=also
        )

    cells = tuple(replace(cell, relation=changes.named(cell.relation)) for cell in report.cells)
    return replace(report, findings=tuple(map(of, report.findings)), cells=cells) if changes.renamed else report


def _cell(name: CellName, changes: Changes) -> CellName:
    return changes.named(name[0]), name[1], name[2]


def _findings(base: Looked, head: Looked, changes: Changes) -> Iterator[Change]:
    before = Baseline(base.report.provenance.source, "", base.report)
    still = {name for name in head.side.relations if ("relation", name) not in changes.affected}
    for one in findings_opened(before, head.report, probed=bool(base.probed) or not head.probed):
        # What did not change is attacked to see by, and leaks in BASE as well.
        if not (one.check.startswith("PROBE") and {one.object, one.relation} <= still):
            yield one


def findings_opened(base: Baseline, head: Report, *, probed: bool) -> Iterator[Change]:
    """Findings that stand open in one report only; what BASE had already is no news."""
    aged, entry = compare(head.findings, base, probed=probed)
    known = {one.fingerprint for one in base.report.findings}
    for one in aged:
        level = _LEVELS.get(one.severity, "note")
        if one.status != "open" or one.age != "new" or (level == "note" and one.fingerprint in known):
            continue
        yield Change(
            "opened", level, one.object, one.title, one.message, one.relation,
            one.roles or ((one.role,) if one.role else ()), one.commands or ((one.command,) if one.command else ()),
            one.attack, one.check, one.severity, one.fix, one.file, one.line,
        )  # fmt: skip
    for severity, title, place in entry.fixed if entry else ():
        yield Change("closed", "note", place, title, severity=severity)


def _cells(base: Looked, head: Looked, changes: Changes) -> Iterator[Change]:
    """Relations that both sides have: what the policies admit, and what is known of it."""
    after = {(cell.relation, cell.role, cell.command): cell for cell in head.report.cells}
    before = {(cell.relation, cell.role, cell.command): cell for cell in base.report.cells}
    for one in Comparison(base.side, head.side, changes).cells():
        name = (one.relation, one.role, one.command)
        if not head.side.tenant_data(one.relation):
            continue
        was, now = base.proofs.get(name), head.proofs.get(name)
        change = _policy(one, was, now, head, after.get(name))
        if change is not None:
            yield change
        elif (
            one.way == "same"
            and was is not None
            and was.verdict == "proven"
            and (now is None or now.verdict != "proven")
        ):
            why = now.reason if now is not None else "there is no proof for it any more"
            yield _about(one, "weakened", "review", "Proof lost", f"It was proven that {was.goal}; now: {why}.")
        if head.probed and (state := after.get(name)) is not None:
            yield from _state(one, before.get(name), state, base, head)


def _state(one: Compared, then: Cell | None, state: Cell, base: Looked, head: Looked) -> Iterator[Change]:
    """A cell that leaks without a finding, or that can no longer be tested."""
    was = then.state if then is not None and base.probed else ""
    if (
        state.state == "leak"
        and was != "leak"
        and not any(concerns(finding, state) for finding in head.report.findings)
    ):
        yield _about(one, "opened", "dangerous", "Leaks", f"{state.reason}.")
    if state.state == "not covered" and was not in ("not covered", "leak", "waived"):
        yield _about(one, "weakened", "review", "Not covered", f"{state.reason}.")


def _policy(one: Compared, was: Proof | None, now: Proof | None, head: Looked, cell: Cell | None) -> Change | None:
    proven = now is not None and now.verdict == "proven"
    refuted = now is not None and now.verdict == "refuted" and head.ordinary(now)
    tried = cell is not None and head.probed and cell.state in ("held", "not covered")
    held = _sentence(f"The probe: {cell.state}, {cell.reason}") if cell is not None and tried else ""
    reason = _sentence(now.reason) if now is not None else ""
    match one.way:
        case "wider":
            if proven:
                detail = f"HEAD admits rows that BASE did not; they are still proven to be one tenant's.{reason}"
                return _about(one, "wider", "review", "Predicate wider within a tenant", detail, one.why)
            detail = f"HEAD admits rows that BASE did not.{reason}{held}"
            title = "Predicate wider, rows of two tenants admitted" if refuted else "Predicate wider"
            return _about(one, "wider", "dangerous" if refuted else "review", title, detail, one.why)
        case "unknown":
            level: Level = "note" if proven and was is not None and was.verdict == "proven" else "review"
            detail = (
                f"Whether HEAD admits rows that BASE did not cannot be decided: {one.why.rstrip('.')}.{reason}{held}"
            )
            return _about(one, "undecided", level, "Changed, and not decided", detail)
        case "unbound":
            detail = f"Row security no longer binds the role here: {one.why}. Every row is within its reach."
            return _about(one, "weakened", "dangerous", "Row security no longer applies", detail)
        case "granted":
            relation = head.side.relations[one.relation]
            tenancy = head.side.tenancy
            role = next(role for role in (*tenancy.roles, *tenancy.unmet) if role.name == one.role)
            free = head.side.visibility.exempt(role.oid, relation)
            level = "dangerous" if free is not None or refuted else "note" if proven else "review"
            detail = (
                f"The role had no such privilege.{f' Row security does not bind it: {free}.' if free else reason}{held}"
            )
            return _about(one, "new role path", level, "Privilege granted", detail)
        case "narrower" | "revoked":
            title = "Predicate narrower" if one.way == "narrower" else "Privilege taken away"
            return _about(one, "narrower", "note", title, "HEAD admits fewer rows than BASE did.")
    return None


def _about(one: Compared, kind: str, level: Level, title: str, detail: str, witness: str = "") -> Change:
    return Change(kind, level, one.relation, title, detail, one.relation, (one.role,), (one.command,), witness)  # type: ignore[arg-type]


def _relations(base: Looked, head: Looked, changes: Changes) -> Iterator[Change]:
    """Relations that are new or gone, and those that are no longer what they were taken for."""
    for old, new in sorted(changes.renamed.items()):
        yield Change("changed", "note", new, "Renamed", f"It was {old}, and is otherwise the same.", new)
    for kind, name in sorted(changes.gone):
        if kind == "relation":
            yield Change("gone", "note", name, "No longer there", relation=name)
    before = {changes.named(name): one for name, one in base.side.relations.items()}
    for kind, name in sorted(changes.affected):
        if kind != "relation" or name not in head.side.relations:
            continue
        if ("relation", name) in changes.new:
            yield from _new(head, name)
        elif name in before:
            relation = head.side.relations[name]
            was = base.side.tenancy.of(before[name].oid)
            now = head.side.tenancy.of(relation.oid)
            if was.tenant_data and not now.tenant_data:
                detail = f"BASE took it for tenant data ({was.why}); in HEAD it is {now.kind}: {now.why}."
                yield Change("weakened", "review", name, "No longer taken for tenant data", detail, name)
            elif now.tenant_data and not was.tenant_data:
                yield from _new(head, name)
            elif now.tenant_data and ("relation", name) in changes.reached:
                guards = _guards(head.side, relation)
                moved = guards != _guards(base.side, before[name]) or any(
                    ("function", one) in changes.reached for _, one in guards
                )
                yield _touched(head, name, guarded=moved)


def _new(head: Looked, name: str) -> Iterator[Change]:
    relation = head.side.relations[name]
    classified = head.side.tenancy.of(relation.oid)
    if not classified.tenant_data:
        level: Level = "review" if classified.kind == "unclassified" else "note"
        title = "New, and not classified" if level == "review" else f"New, {classified.kind}: no tenant data"
        yield Change("new relation", level, name, title, f"{classified.why}.", name)
        return
    cells = {(c.role, c.command): c for c in head.report.cells if c.relation == name and c.state != "no privilege"}
    if not cells and not any(head.side.visibility.may(r.oid, relation, "SELECT") for r in head.side.tenancy.roles):
        yield Change("new relation", "note", name, "New tenant data", "No application role may touch it.", name)
    for (role, command), cell in cells.items():
        oid = next((one.oid for one in head.side.tenancy.roles if one.name == role), 0)
        free = head.side.visibility.exempt(oid, relation) if relation.holds_rows else None
        proof = head.proofs.get((name, role, command))
        refuted = proof is not None and proof.verdict == "refuted" and head.ordinary(proof)
        invoker = relation.kind == "view" and relation.security_invoker
        if free is not None or refuted or cell.state == "leak":
            level, title = "dangerous", "New tenant data, open to other tenants"
        elif cell.state == "proven" or (invoker and cell.state == "held") or cell.state == "waived":
            level, title = "note", f"New tenant data, {cell.state}"
        else:
            level, title = "review", f"New tenant data, {cell.state}, not proven"
        why = (
            f"Row security does not bind the role: {free}."
            if free
            else _sentence(proof.reason if proof else cell.reason)
        )
        witness = str(proof.witness) if refuted and proof is not None and proof.witness is not None else ""
        yield Change("new relation", level, name, title, why.strip(), name, (role,), (command,), witness)


def _common(head: Looked, changes: Changes) -> Iterator[Change]:
    for what in changes.common:
        detail = "Every tenant relation was attacked again." if head.probed else "Nothing was attacked again."
        level: Level = "note" if head.probed else "review"
        yield Change("changed", level, "every relation", f"{what[0].upper()}{what[1:]} changed", detail)


def _extensions(base: Side, head: Side) -> Iterator[Change]:
    """New extensions that may reach beyond what their caller may touch, as dblink does, and that application roles may use.

    PostgreSQL manual, 36.17.1: a trusted extension gives nobody access to what they could not reach.
    """
    known = {one.name for one in base.catalog.extensions}
    for one in head.catalog.extensions:
        if one.name in known or one.trusted is not False:
            continue
        own = [f for f in head.catalog.functions if f.extension == one.name and f.returns not in _CALLED_BY_THE_SERVER]
        roles = [r.name for r in head.tenancy.roles if any(head.visibility.may_execute(r.oid, f) for f in own)]
        if roles:
            detail = "It is not trusted: who calls its functions may reach what row security does not guard."
            yield Change(
                "new role path", "review", f"extension {one.name}", "New extension", detail, roles=tuple(roles)
            )


def _guards(side: Side, relation: Relation) -> set[tuple[str, str]]:
    """What makes something else of a statement, triggers and rules: (definition, signature of the function)."""
    functions = {function.oid: name for name, function in side.functions.items()}
    triggers = side.catalog.triggers_of(relation.oid)
    found = {(f"{one.definition} {one.enabled}", functions.get(one.function, "")) for one in triggers}
    return found | {(one.definition, "") for one in side.catalog.rules if one.relation == relation.oid}


def _touched(head: Looked, name: str, *, guarded: bool) -> Change:
    """A relation that changed, or depends on what did, in something that its policies do not say.

    ``guarded`` when its triggers or rules are not what they were: they may be all that kept tenants apart.
    """
    relation, catalog = head.side.relations[name], head.side.catalog
    proofs = [p for (one, _, _), p in head.proofs.items() if one == name]
    if ("relation", name) in head.probed:
        level: Level = "note"
        detail = "It was attacked again; what came of it is said here."
        if guarded and relation.holds_rows and any(proof.verdict != "proven" for proof in proofs):
            detail = "It was attacked again. Its triggers or rules changed, and that its policies alone keep tenants apart is not proven."
            level = "review"
        return Change("changed", level, name, "Changed", detail, name)
    rewritten = catalog.triggers_of(relation.oid) or any(rule.relation == relation.oid for rule in catalog.rules)
    proven = proofs and relation.holds_rows and not rewritten and all(p.verdict == "proven" for p in proofs)
    detail = (
        "It was not attacked again: only what the proofs say is known, and they say nothing of triggers and functions."
    )
    return Change("changed", "note" if proven else "review", name, "Changed", detail, name)


def _functions(head: Looked, changes: Changes) -> Iterator[Change]:
    """New and changed functions that an application role may call and that may touch tenant data."""
    cells = {(c.relation, c.role): c for c in head.report.cells if c.command == "EXECUTE"}
    for kind, name in sorted(changes.new | changes.changed):
        function = head.side.functions.get(name) if kind == "function" else None
        if function is None or not function.security_definer:
            continue
        adjective = "New" if (kind, name) in changes.new else "Changed"
        title = f"{adjective} SECURITY DEFINER function"
        owner = head.side.catalog.role_name(function.owner)
        callers = [one for one in head.side.tenancy.roles if head.side.visibility.may_execute(one.oid, function)]
        others = () if callers else tuple(_logins(head.side, function))
        if others and touches(head.side.catalog, head.side.tenancy, function).tenant_data:
            detail = f"It runs with the rights of {owner}; no role that is tested may call it, so it was not called."
            yield Change("new role path", "review", name, title, detail, "", others, ("EXECUTE",))
        for role in callers:
            cell = cells.get((name, role.name))
            if head.probed and cell is None:
                continue  # nothing of tenants in it
            if cell is not None and cell.state == "leak":
                continue  # its finding tells
            what = f"{cell.state}, {cell.reason}" if cell is not None else "it was not called"
            detail = f"It runs with the rights of {owner}; {what}."
            yield Change("new role path", "review", name, title, detail, "", (role.name,), ("EXECUTE",))


def _logins(side: Side, function: Function) -> Iterator[str]:
    """Roles that log in, are bound by row security, and may call it."""
    for one in side.catalog.roles:
        if one.login and not one.superuser and not one.bypassrls and side.visibility.may_execute(one.oid, function):
            yield one.name


def _grouped(found: Iterable[Change]) -> Iterator[Change]:
    """Cells of one relation of which the same is to be said, in one."""
    groups: dict[Change, list[Change]] = {}
    for one in found:
        groups.setdefault(replace(one, roles=(), commands=(), detail="", witness=""), []).append(one)
    for many in groups.values():
        first = next((one for one in many if one.witness), many[0])
        roles = tuple(dict.fromkeys(role for one in many for role in one.roles))
        yield replace(first, roles=roles, commands=tuple(dict.fromkeys(c for one in many for c in one.commands)))
