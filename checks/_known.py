"""Facts of the catalog that the reading of a function's body rests on."""

from __future__ import annotations

import re
from itertools import chain

from rlsaudit.checks._openings import tenant_settings

from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.names import meant, search_path
from rlsaudit.catalog.outcome import ways
from rlsaudit.catalog.policies import policy_predicate, settings_read
from rlsaudit.catalog.relations import Relation, Trigger
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Subject, kept

_WORDS = re.compile(r"\b(session_user|pg_backend_pid|system_user)\b", re.IGNORECASE)
READABLE = frozenset({"sql", "plpgsql"})


def find_relation(subject: Subject, function: Function, name: tuple[str, ...]) -> Relation | None:
    """The relation that a name in the function's body stands for, as far as that can be told."""
    named = subject.catalog.relations_named(name[-1]) if name else {}
    path = (name[-2],) if len(name) > 1 else chain(search_path(function) or ("public", function.schema), named)
    found = (one for schema in path for one in named.get(schema, ()) if one.kind != "sequence")
    return next(found, None)


@kept
def session_functions(subject: Subject) -> frozenset[str]:
    """Names of user functions that look at who the session is."""
    context = set(subject.tenancy.context.settings) | tenant_settings(subject)
    return frozenset(
        one.name
        for one in subject.catalog.functions
        if one.returns != "trigger"
        and (
            _WORDS.search(one.source)
            or ((names := settings_read(subject.catalog, one.oid)) and (names & context or not context))
        )
    )


@kept
def enums(subject: Subject) -> frozenset[str]:
    """Names of the enum types of columns."""
    relations = subject.catalog.relations
    return frozenset(column.type for relation in relations for column in relation.columns if column.enum_labels)


@kept
def _kept_tied(subject: Subject) -> dict[int, frozenset[str]]:
    return {}


def tied(subject: Subject, relation: Relation) -> frozenset[str]:
    """Columns that say whose a row is, or which row it is."""
    known = _kept_tied(subject)
    if relation.oid not in known:
        known[relation.oid] = _tied(subject, relation)
    return known[relation.oid]


def _tied(subject: Subject, relation: Relation) -> frozenset[str]:
    classified = subject.tenancy.of(relation.oid)
    found = {classified.key} if classified.key and not classified.path else set()
    for step in classified.path[:1]:
        found.update(step.columns)
    numbers = {
        n
        for c in subject.catalog.constraints_of(relation.oid)
        if c.kind in ("primary key", "unique", "foreign key")
        for n in c.columns
    }
    if relation.kind in ("view", "materialized view"):
        found.update(name for name in subject.tenancy.key_columns if relation.column(name))
    return frozenset(x for x in found if x) | {c.name for c in relation.columns if c.number in numbers}


def anchored(subject: Subject, relation: Relation) -> frozenset[str]:
    """Columns of a table's new and old rows that policies or keys hold against the session's tenant."""
    classified, catalog = subject.tenancy.of(relation.oid), subject.catalog
    if not classified.tenant_data:
        return frozenset()
    keys = {classified.key} if classified.key and not classified.path else set()
    for step in classified.path[:1]:
        keys.update(step.columns)
    found = set(keys)
    by_number = {column.number: column.name for column in relation.columns}
    for constraint in catalog.constraints_of(relation.oid):
        names = {by_number.get(number, "") for number in constraint.columns}
        if constraint.kind == "foreign key" and names & keys and len(names) > 1:
            found |= names
        if constraint.kind in ("primary key", "unique") and len(names) == 1:
            found |= names
    for policy in catalog.policies_of(relation.oid):
        text = (policy.check or policy.using or "") if policy.command != "SELECT" and policy.permissive else ""
        if " SELECT " in text.replace("(", " "):
            found |= {c.name for c in relation.columns if re.search(rf"\b{re.escape(c.name)}\b", text)}
    return frozenset(name for name in found if name)


def exempted(subject: Subject, owner: int, relation: Relation, depth: int = 0) -> tuple[Relation, str] | None:
    """The tenant table that code running as ``owner`` reaches past its policies through the relation, and why."""
    if relation.kind not in ("view", "materialized view"):
        if not (relation.holds_rows and subject.tenancy.of(relation.oid).tenant_data):
            return None
        why = subject.visibility.exempt(owner, relation) or _open_to(subject, owner, relation)
        return (relation, why) if why else None
    if depth > 8 or any(f"'{name}'" in (relation.definition or "").lower() for name in tenant_settings(subject)):
        return None
    reader = owner if relation.security_invoker else relation.owner
    for oid in subject.catalog.mentions("relation", relation.oid, "relation"):
        inner = subject.catalog.find_relation(oid)
        found = exempted(subject, reader, inner, depth + 1) if inner is not None else None
        if found is not None:
            return found
    return None


@kept
def _kept_open(subject: Subject) -> dict[tuple[int, int], str]:
    return {}


def _open_to(subject: Subject, owner: int, relation: Relation) -> str:
    """How policies made for the owner let it see every row; empty when they do not.

    A policy for PUBLIC is a finding of its own.
    """
    known = _kept_open(subject)
    key = (owner, relation.oid)
    if key not in known:
        applied = subject.visibility.policies(owner, relation, "SELECT")
        name = ""
        for policy in applied if all(one.permissive for one in applied) else ():
            predicate = policy_predicate(subject.catalog, policy, "using")
            if PUBLIC not in policy.roles and predicate is not None and ways(predicate) == (frozenset(),):
                name = f"policy {quote(policy.name)} lets it see every row"
        known[key] = name
    return known[key]


def callers(subject: Subject, function: Function) -> list[str]:
    """Application roles that may call it."""
    roles = subject.tenancy.roles
    return [
        r.name
        for r in roles
        if not subject.catalog.role(r.oid).superuser and subject.visibility.may_execute(r.oid, function)
    ]


def named(subject: Subject, function: Function, name: tuple[str, ...]) -> tuple[Function, ...]:
    """User functions that a name in the function's body may stand for."""
    return meant(
        subject.catalog, function, subject.catalog.functions_named(name[-1]), name[-2] if len(name) > 1 else ""
    )


@kept
def _kept_fired(subject: Subject) -> dict[tuple[int, tuple[str, ...]], list[str]]:
    return {}


def fired_by(subject: Subject, trigger: Trigger) -> list[str]:
    """Application roles whose statements fire the trigger."""
    relation = subject.catalog.find_relation(trigger.relation)
    if relation is None or trigger.enabled not in ("origin", "always"):
        return []
    known = _kept_fired(subject)
    key = (relation.oid, trigger.events)
    if key not in known:
        known[key] = [
            role.name
            for role in subject.tenancy.roles
            if not subject.catalog.role(role.oid).superuser
            and any(subject.visibility.may(role.oid, relation, event) for event in trigger.events)
        ]
    return known[key]


@kept
def grantees(subject: Subject) -> dict[int, frozenset[int]]:
    """Who holds EXECUTE on each function."""
    held: dict[int, set[int]] = {}
    for grant in subject.catalog.grants_on("function"):
        held.setdefault(grant.object, set()).add(grant.grantee)
    return {oid: frozenset(roles) for oid, roles in held.items()}
