"""What views show past row security, and whether their own conditions keep tenants apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rlsaudit.checks._binding import Place, Reach
from rlsaudit.checks._openings import tenant_settings
from rlsaudit.checks._reading import Reading

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.policies import policy_predicate, settings, view_branches
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.viewtree import Branch, Read
from rlsaudit.check import Subject, kept
from rlsaudit.finding import SEVERITIES, Severity
from rlsaudit.tenancy import words
from rlsaudit.tenancy.model import Classified


@dataclass(frozen=True)
class Shown:
    """Rows of one relation that a view reads past row security."""

    relation: Relation
    why: str
    """Why no policy binds whoever reads it."""
    reader: int
    """OID of the role with whose rights it is read."""
    severity: Severity | None
    """None: the view's own conditions keep tenants apart."""
    reach: Reach
    sealed: bool
    """A security_barrier stands above the conditions that keep tenants apart."""


def shown(subject: Subject, view: Relation) -> tuple[Shown, ...]:
    """What the view or materialized view shows past row security, through the views below it."""
    known = _kept_shown(subject)
    if view.oid not in known:
        found = view_branches(subject.catalog, view)
        if view.kind == "materialized view":
            known[view.oid] = _stored(subject, view)
        elif found is None:
            known[view.oid] = _unread(subject, view, frozenset())
        else:
            reads = ((branch, read) for branch in found for read in branch.reads if read.shown)
            known[view.oid] = tuple(one for branch, read in reads if (one := _shown(subject, branch, read)) is not None)
    return known[view.oid]


@kept
def _kept_shown(subject: Subject) -> dict[int, tuple[Shown, ...]]:
    return {}


def _stored(subject: Subject, copy: Relation) -> tuple[Shown, ...]:
    """A materialized view holds what its owner saw when it was refreshed, whoever reads it."""
    waiting, seen, found = [copy.oid], set[int](), list[Shown]()
    while waiting:
        oid = waiting.pop()
        relation = subject.catalog.find_relation(oid)
        if relation is None or oid in seen:
            continue
        seen.add(oid)
        if relation.kind in ("view", "materialized view"):
            waiting += subject.catalog.mentions("relation", oid, "relation")
        elif subject.tenancy.of(oid).tenant_data and relation.holds_rows:
            severity: Severity = "high" if subject.tenancy.of(oid).kind in ("registry", "principal") else "critical"
            found.append(Shown(relation, "a stored copy", copy.owner, severity, Reach("open"), False))
    return tuple(found)


def _shown(subject: Subject, branch: Branch, read: Read) -> Shown | None:
    relation, reader = subject.catalog.find_relation(read.relation), reader_of(subject, read)
    if relation is None or reader is None:
        return None
    why = exemption(subject, reader, relation)
    if why is None:
        return None
    reading = reading_of(subject, branch, read, reader)
    severity, reach = _judged(subject, reading)
    if severity == "critical" and subject.tenancy.of(relation.oid).kind in ("registry", "principal"):
        severity = "high"
    sealed = False
    for position, oid in enumerate(read.chain):
        view = subject.catalog.find_relation(oid)
        if view is not None and view.security_barrier:
            below = reading_of(subject, branch, read, reader, lambda at, least=position: at >= least)  # type: ignore[misc]
            sealed = _judged(subject, below)[0] is None
            break
    return Shown(relation, why, reader, severity, reach, sealed)


def reader_of(subject: Subject, read: Read) -> int | None:
    """The role with whose rights a relation is read; None for the session's own.

    None below an invoker view too: the session needs the privilege on the view under it, which is looked at by itself.
    """
    views = [subject.catalog.find_relation(oid) for oid in read.chain]
    if any(view is None or view.security_invoker for view in views):
        return None
    return views[-1].owner if views[-1] else None


def exemption(subject: Subject, reader: int, relation: Relation) -> str | None:
    """Why row security keeps no tenants apart when ``reader`` reads the relation; None when it does or need not."""
    if not subject.tenancy.of(relation.oid).tenant_data:
        return None
    if relation.kind == "materialized view":
        return "a stored copy" if any(one.severity for one in shown(subject, relation)) else None
    if not relation.holds_rows:
        return None
    return subject.visibility.exempt(reader, relation) or _open_policy(subject, reader, relation)


def _open_policy(subject: Subject, reader: int, relation: Relation) -> str | None:
    """A policy that admits every row to the reader, who is no application role."""
    policies = subject.visibility.policies(reader, relation, "SELECT")
    restrictive = [one for one in policies if not one.permissive]
    place = _place(subject, relation, subject.tenancy.of(relation.oid), reader)
    for policy in policies:
        parts = [policy_predicate(subject.catalog, one, "using") for one in (policy, *restrictive)]
        present = tuple(one for one in parts if one is not None)
        if policy.permissive and present and _kinds(Reading(e.And(present), place)) & {"open"}:
            return f"policy {policy.name} admits every row"
    return None


def reading_of(
    subject: Subject, branch: Branch, read: Read, reader: int, counted: Callable[[int], bool] = lambda position: True
) -> Reading:
    """The conditions on the rows of ``read``, as of a policy on its relation."""
    relation = subject.catalog.relation(read.relation)
    classified = subject.tenancy.of(relation.oid)
    if relation.kind == "materialized view":
        classified = replace(classified, key=_key_of_copy(subject, relation), path=())
    predicate = branch.predicate(read, counted)
    return Reading(predicate, _place(subject, relation, classified, reader))


def _place(subject: Subject, relation: Relation, classified: Classified, reader: int) -> Place:
    principals = frozenset(subject.tenancy.principal_columns.get(relation.oid, ()))
    return Place(subject.catalog, subject.visibility, relation, classified, reader, principals)


def _key_of_copy(subject: Subject, copy: Relation) -> str | None:
    """The column of a materialized view that is the tenant key of what it was made from."""
    for branch in view_branches(subject.catalog, copy) or ():
        for column in copy.columns:
            origin = branch.origin(column.number)
            if origin is None or (read := origin[0]).relation not in subject.tenancy.relations:
                continue
            source = subject.catalog.relation(read.relation)
            below = subject.tenancy.of(read.relation)
            key = _key_of_copy(subject, source) if source.kind == "materialized view" else below.key
            if not below.path and origin[1] == key:
                return column.name
    return None


def bound_by(subject: Subject, reading: Reading) -> bool:
    """Whether the conditions hold every row against the session's tenant."""
    return _judged(subject, reading)[0] is None


def _judged(subject: Subject, reading: Reading) -> tuple[Severity | None, Reach]:
    """How bad the worst way through the conditions is, and what it asks for."""
    found = [(_severity(subject, reading, reach), reach) for _, reach in reading.reaches]
    found += [("high", reach) for _, reach in reading.missing if reach.kind == "open"]
    bad = [one for one in found if one[0] is not None]
    if not bad:
        return None, Reach("tenant")
    return min(bad, key=lambda one: SEVERITIES.index(one[0] or "info"))


def _kinds(reading: Reading) -> set[str]:
    return {reach.kind for _, reach in reading.reaches}


def _severity(subject: Subject, reading: Reading, reach: Reach) -> Severity | None:
    match reach.kind:
        case "open":
            return "critical"
        case "setting":
            return "critical" if set(reach.detail.split(", ")) <= tenant_settings(subject) else "high"
        case "gate":
            return "medium"
        case "role":
            return "low"
        case "party" if words.tenant_like(reach.detail):
            return "low"
        case "party":
            other = not settings(reading.predicate, subject.catalog) & tenant_settings(subject)
            return "low" if other and words.user_like(reach.detail) else "critical"
        case "person":
            return "low"
        case "undecided":
            return "low" if _looks(subject, reading.predicate) else "critical"
    return None


def _looks(subject: Subject, predicate: Expression) -> bool:
    """Whether the conditions look at the session at all."""
    parts = tuple(e.walk(predicate))
    called = any(isinstance(part, e.SessionRole) or (isinstance(part, e.Call) and part.user) for part in parts)
    return called or bool(settings(predicate, subject.catalog))


def _unread(subject: Subject, view: Relation, seen: frozenset[int]) -> tuple[Shown, ...]:
    """What a view mentions whose query cannot be read."""
    if view.oid in seen or view.security_invoker:
        return ()
    found: list[Shown] = []
    for oid in subject.catalog.mentions("relation", view.oid, "relation"):
        relation = subject.catalog.find_relation(oid)
        if relation is None:
            continue
        if relation.kind == "view":
            found += _unread(subject, relation, seen | {view.oid})
        elif why := exemption(subject, view.owner, relation):
            above = (subject.catalog.relation(oid).definition or "" for oid in seen)
            text = " ".join((view.definition or "", *above)).lower()
            looks = any(f"'{name}'" in text for name in tenant_settings(subject))
            severity: Severity = "low" if looks else "critical"
            found.append(Shown(relation, why, view.owner, severity, Reach("undecided"), view.security_barrier))
    return tuple(found)
