"""What the policy checks share: who is at risk through a way, and what else may stop a forged row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rlsaudit.checks._binding import Kind, Reach
from rlsaudit.checks._fixes import in_order, listed
from rlsaudit.checks._guards import always, overwritten, refuses
from rlsaudit.checks._operators import operators
from rlsaudit.checks._people import user_ids
from rlsaudit.checks._reading import Use, one_of_each_shape, same_condition, uses_of
from rlsaudit.checks._settings import sources

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.outcome import Way
from rlsaudit.catalog.policies import settings, settings_read
from rlsaudit.catalog.relations import Policy, Relation, Trigger
from rlsaudit.check import Subject, kept
from rlsaudit.finding import SEVERITIES, Severity
from rlsaudit.tenancy import words
from rlsaudit.tenancy.people import one_for_each

_LOOSE: frozenset[Kind] = frozenset({"open", "setting", "party", "gate", "person", "role"})
"""Ways that a role may take to rows that are not its tenant's, see ``severity_of``."""


@dataclass(frozen=True)
class Opening:
    """A way through a policy that admits rows of other tenants."""

    use: Use
    reach: Reach
    severity: Severity


@dataclass(frozen=True)
class Group:
    """The openings of one policy, over roles and commands."""

    relation: Relation
    policy: Policy
    openings: tuple[Opening, ...]

    @property
    def first(self) -> Opening:
        """The worst."""
        return min(self.openings, key=lambda one: SEVERITIES.index(one.severity))

    @property
    def commands(self) -> str:
        return listed(in_order({one.use.command for one in self.openings}))

    @property
    def roles(self) -> str:
        return listed(one.use.role.name for one in self.openings)


def grouped(openings: Iterable[Opening]) -> tuple[Group, ...]:
    """Openings by policy, in order of appearance."""
    found: dict[int, list[Opening]] = {}
    for one in openings:
        found.setdefault(one.use.policy.oid, []).append(one)
    return tuple(Group(ones[0].use.relation, ones[0].use.policy, tuple(ones)) for ones in found.values())


def trivial(use: Use, way: Way) -> bool:
    """Whether the way holds for every row: it asks for nothing, or only for what NOT NULL columns have anyway."""
    return all(
        condition.value is True
        and isinstance(condition.atom, e.NullTest)
        and not condition.atom.is_null
        and isinstance(column := condition.atom.argument, e.Column)
        and column.not_null
        and column.level == 0
        and column.name != use.place.key
        for condition in way
    )


def severity_of(subject: Subject, use: Use, reach: Reach) -> Severity | None:
    """How bad a way is that does not compare the tenant; None when the role cannot take it."""
    lesser = use.classified.kind in ("registry", "principal")
    match reach.kind:
        case "open":
            return "high" if lesser else "critical"
        case "setting":
            # With nothing but the tenant's own setting every session passes.
            names = set(reach.detail.split(", "))
            if all(name.startswith("request.") for name in names):
                return "medium"  # PostgREST fills these from a signed token
            return "critical" if names <= tenant_settings(subject) and not lesser else "high"
        case "party":
            if _unique(subject, use, reach.detail):
                return "low"  # who knows a secret finds its row
            return "high" if _tenant_elsewhere(subject, use) or lesser else "critical"
        case "gate":
            return "medium" if reach.detail else "high"
        case "person":
            return "low" if use.classified.kind == "registry" else _as_person(subject, use, reach.detail)
        case "role":
            return _as_role(subject, use, reach.detail)
    return None


def _as_person(subject: Subject, use: Use, name: str) -> Severity:
    """A way that asks for the user and not for the tenant."""
    ids = user_ids(subject, use, name)
    writes = use.policy.command in ("ALL", "UPDATE") and same_condition(use.policy)
    if ids == "tied" or (ids == "of one tenant" and use.side == "old" and not writes):
        return "low"
    return "high" if ids == "within a tenant" or _tenant_elsewhere(subject, use) else "medium"


def _as_role(subject: Subject, use: Use, name: str) -> Severity | None:
    """A way that is open while ``current_user`` is ``name``."""
    role = subject.catalog.role_named(name)
    if role is None:
        return None
    if role.oid in subject.visibility.becomes(use.role.oid):
        return "critical"
    functions = (f for f in subject.catalog.functions if f.security_definer and f.owner == role.oid)
    if any(subject.visibility.may_execute(use.role.oid, function) for function in functions):
        return "critical"
    return "low"


def _unique(subject: Subject, use: Use, name: str) -> bool:
    """Whether the column is one that tells a single row, and is held against something else than the tenant."""
    column = use.relation.column(name)
    indexes = subject.catalog.indexes_of(use.relation.oid)
    if column is None or not any(one.unique and one.columns == (column.number,) for one in indexes):
        return False
    read = {
        source
        for comparison in e.comparisons(use.predicate)
        if comparison.column.name == name
        for source in sources(subject, comparison.other)
    }
    tenants = tenant_settings(subject)
    return bool(read) and not any(words.tenant_like(one.name) if one.path else one.setting in tenants for one in read)


def _his_own(subject: Subject, use: Use, name: str) -> bool:
    """Whether rows found by the user are about the user: his account, his memberships."""
    tied = one_for_each(subject.catalog, use.relation, use.place.key or "", name)
    if use.classified.kind not in ("membership", "principal") and not tied:
        return False
    return user_ids(subject, use, name) != "within a tenant"


def _tenant_elsewhere(subject: Subject, use: Use) -> bool:
    return (use.relation.oid, use.role.oid, use.command) in _bound_commands(subject)


@kept
def _bound_commands(subject: Subject) -> frozenset[tuple[int, int, str]]:
    """(relation, role, command) for which some policy compares the tenant."""
    return frozenset(
        (use.relation.oid, use.role.oid, use.command)
        for use in uses_of(subject, "tenant")
        if use.side == "old" or use.command == "INSERT"
    )


@kept
def loose_reads(subject: Subject) -> tuple[Opening, ...]:
    """Ways through USING that admit other tenants' rows and ask for something, missing context apart."""
    return tuple(_loose_reads(subject))


def _loose_reads(subject: Subject) -> Iterator[Opening]:
    for use in uses_of(subject, *_LOOSE):
        if use.side != "old":
            continue
        for way, reach in use.reaches:
            if reach.kind == "open" and trivial(use, way):
                continue
            if reach.kind == "person" and _his_own(subject, use, reach.detail):
                continue
            if reach.kind == "party" and _tenant_elsewhere(subject, use):
                continue
            if reach.kind in ("setting", "gate") and use.falls_open(way):
                continue
            severity = severity_of(subject, use, reach)
            if severity is not None:
                yield _opening(subject, use, way, Opening(use, reach, severity))


def loose_writes(subject: Subject, command: str) -> Iterable[Opening]:
    """Ways through WITH CHECK that admit new rows of other tenants, unless USING of the same policy is to blame."""
    blamed = _blamed(subject)
    # What is harmless to see may not be harmless to write.
    harmless = {_cause(one) for one in loose_reads(subject)} - blamed
    for use in uses_of(subject, *_LOOSE):
        if use.side != "new" or use.command != command:
            continue
        if not _may_choose(subject, use):
            continue
        same = same_condition(use.policy)
        for way, reach in use.reaches:
            own = reach.kind == "person" and use.classified.kind in ("membership", "principal")
            if same and (use.policy.oid, use.role.oid, reach.kind) in blamed:
                continue
            if reach.kind in ("setting", "gate") and use.falls_open(way):
                continue
            severity = "critical" if own and use.place.key else severity_of(subject, use, reach)
            if own and not use.place.key:
                continue
            if severity is None:
                continue
            found = _opening(subject, use, way, Opening(use, reach, severity))
            if not (same and found.severity == "low" and (use.policy.oid, use.role.oid, reach.kind) in harmless):
                yield found


def _opening(subject: Subject, use: Use, way: Way, found: Opening) -> Opening:
    """Operators of the whole service are let in on purpose, as long as nobody enrols himself."""
    lists = operators(subject, use, way) if found.reach.kind in ("open", "gate") else ()
    return replace(found, reach=Reach("gate", lists[0].qualified), severity="low") if lists else found


@kept
def _blamed(subject: Subject) -> set[tuple[int, int, str]]:
    """(policy, role, kind of way) that the checks of USING report."""
    found = {(use.policy.oid, use.role.oid, "open") for use in uses_of(subject, "open") if use.side == "old"}
    return found | {_cause(one) for one in loose_reads(subject) if one.severity != "low"}


def _cause(opening: Opening) -> tuple[int, int, str]:
    return opening.use.policy.oid, opening.use.role.oid, opening.reach.kind


def _may_choose(subject: Subject, use: Use) -> bool:
    """Whether the role may write the columns that say whose the row is."""
    if use.command == "INSERT":
        return True
    columns = subject.visibility.columns(use.role.oid, use.relation, use.command)
    if use.classified.path:
        return any(name in columns for name in use.classified.path[0].columns)
    return use.place.key is None or use.place.key in columns


def guard(subject: Subject, use: Use) -> str:
    """What besides policies holds a new row against the context, as far as the catalog tells; empty for nothing."""
    names = tenant_settings(subject)
    key = use.relation.column(use.place.key) if use.place.key else None
    triggers = [t for t in subject.catalog.triggers_of(use.relation.oid) if _fires(t, use.command)]
    for trigger in sorted(triggers, key=lambda t: t.name):
        if settings_read(subject.catalog, trigger.function) & names:
            name = key.name if key else ""
            gap = overwritten(subject.catalog, trigger, triggers, name) or not always(trigger, name, names)
            if not gap and refuses(subject.catalog, trigger, name):
                return f"the trigger {trigger.name} reads the context"
    for constraint in subject.catalog.constraints_of(use.relation.oid):
        text = (constraint.expression or "").lower()
        if constraint.kind == "check" and constraint.enforced and any(f"'{name}'" in text for name in names):
            return f"the constraint {constraint.name} reads the context"
    if use.command == "INSERT" and key is not None:
        columns = subject.visibility.columns(use.role.oid, use.relation, "INSERT")
        if key.name not in columns:
            return f"{use.role.name} may not write {key.name}"
    return ""


def _fires(trigger: Trigger, command: str) -> bool:
    return (
        trigger.timing == "BEFORE"
        and trigger.row_level
        and command in trigger.events
        and trigger.enabled in ("origin", "always")
    )


@kept
def tenant_settings(subject: Subject) -> frozenset[str]:
    """Settings that tenant keys are held against; all settings of the context when policies do not say."""
    names: set[str] = set()
    for use in one_of_each_shape(subject):
        for comparison in e.comparisons(use.predicate):
            if comparison.column.name == use.place.key:
                names |= settings(comparison.other, subject.catalog)
    return frozenset(names or subject.tenancy.context.settings)


def in_words(reach: Reach) -> str:
    """What a way asks for instead of the tenant."""
    return {
        "setting": f"a session that sets {reach.detail}, which every client can,"
        if not reach.detail.startswith("request.")
        else f"a session whose {reach.detail} says so",
        "gate": f"a session for which {reach.detail or 'a condition without the row'} answers true",
        "role": f"code that runs as {reach.detail}",
        "person": f"a session of the user named in {reach.detail}",
        "party": f"a session whose tenant is named in {reach.detail}",
    }.get(reach.kind, "a session of any tenant")
