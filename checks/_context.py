"""How this schema says for whom a session acts: functions that policies ask, settings that they read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from rlsaudit.checks._openings import tenant_settings
from rlsaudit.checks._reading import Use, one_of_each_reading, uses
from rlsaudit.checks._routines import calls, constant, reached, relations_read, tokens

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.identifiers import literal, quote
from rlsaudit.catalog.policies import policy_predicate, settings
from rlsaudit.catalog.relations import Policy, Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Subject, kept

_ROLES = frozenset({"current_user", "session_user", "current_role", "system_user"})


@dataclass(frozen=True)
class Asked:
    """A function that policies call, directly or through others, and where."""

    function: Function
    policies: tuple[tuple[Policy, Relation], ...]
    arguments: Literal["fixed", "row", "unknown"]
    """Whether its arguments are known before a row is: ``unknown`` when only its name in another function is seen."""
    relations: tuple[Relation, ...] = field(default=())


@kept
def predicates(subject: Subject) -> tuple[tuple[Policy, Relation, Expression], ...]:
    """Every policy condition of relations under row security."""
    return tuple(_predicates(subject))


def _predicates(subject: Subject) -> Iterator[tuple[Policy, Relation, Expression]]:
    for policy in subject.catalog.policies:
        relation = subject.catalog.find_relation(policy.relation)
        if relation is None or not relation.rls_enabled:
            continue
        for which in ("using", "check"):
            found = policy_predicate(subject.catalog, policy, "using" if which == "using" else "check")
            if found is not None:
                yield policy, relation, found


@kept
def asked(subject: Subject) -> tuple[Asked, ...]:
    """Functions that the policies of this schema ask, in order of appearance."""
    return tuple(_asked(subject))


def _asked(subject: Subject) -> Iterator[Asked]:
    where: dict[int, dict[int, tuple[Policy, Relation]]] = {}
    given: dict[int, set[bool]] = {}
    known_calls: dict[Expression, frozenset[int]] = {}
    for policy, relation, predicate in predicates(subject):
        called = known_calls.get(e.model(predicate))
        if called is None:
            parts = [part for part in e.walk(predicate) if isinstance(part, e.Call) and part.user]
            for part in parts:
                given.setdefault(part.function, set()).add(all(_fixed(one) for one in part.arguments))
            called = known_calls[e.model(predicate)] = frozenset(part.function for part in parts)
        for oid in called:
            for function in reached(subject, oid):
                where.setdefault(function.oid, {})[policy.oid] = (policy, relation)
    for oid, places in where.items():
        callee = subject.catalog.function(oid)
        if callee is None:
            continue
        known = given.get(oid)
        if known is not None:
            arguments: Literal["fixed", "row", "unknown"] = "fixed" if True in known else "row"
        else:
            arguments = "unknown" if callee.argument_types else "fixed"
        relations = {relation.oid: relation for _, relation in places.values()}
        yield Asked(callee, tuple(places.values()), arguments, tuple(relations.values()))


def _fixed(argument: Expression) -> bool:
    """Whether an argument is a constant before the statement runs."""
    parts = tuple(e.walk(argument))
    return all(isinstance(part, (e.Constant, e.Cast)) for part in parts)


def session_reads(subject: Subject, function: Function) -> tuple[str, ...]:
    """What a function and those it calls read of the session or of tenant data, in words."""
    found: dict[str, None] = {}
    for one in reached(subject, function.oid):
        for call in calls(one.source):
            if call.name == "current_setting" and call.schema in ("", "pg_catalog"):
                name = constant(call.arguments[0]) if call.arguments else None
                found[f"the setting {name.lower()}" if name else "a setting"] = None
            elif call.name in ("pg_backend_pid", "inet_client_addr", "pg_current_xact_id", "txid_current"):
                found[f"{call.name}()"] = None
        for token in tokens(one.source):
            if token.kind == "word" and token.text in _ROLES:
                found[token.text] = None
        for relation in relations_read(subject, one):
            if subject.tenancy.of(relation.oid).tenant_data:
                found[f"rows of {relation.qualified}"] = None
    return tuple(found)


def context_settings(subject: Subject) -> frozenset[str]:
    """Settings that policies read, with a dot in their names."""
    found = set(tenant_settings(subject)) | set(subject.tenancy.context.settings)
    for _, _, predicate in predicates(subject):
        found |= settings(predicate, subject.catalog)
    return frozenset(name for name in found if "." in name)


def tenant_relations(subject: Subject) -> tuple[Relation, ...]:
    """Relations on which policies keep tenants apart for some application role."""
    return tuple({use.relation.oid: use.relation for use in uses(subject)}.values())


@kept
def single_settings(subject: Subject) -> Counter[str]:
    """Settings that tenant keys are held against one value at a time, with the number of policies."""
    found: Counter[str] = Counter()
    for use in one_of_each_reading(subject):
        for part in e.walk(use.predicate):
            if isinstance(part, e.Compare) and part.operator == "=" and part.exact:
                for side, other in ((part.left, part.right), (part.right, part.left)):
                    column = e.bare(side)
                    if isinstance(column, e.Column) and column.level == 0 and column.name == use.place.key:
                        found.update(name for name in settings(other, subject.catalog) if "." in name)
    return found


def with_plain_key(subject: Subject, use: Use) -> str:
    """ALTER POLICY that puts the plain comparison of the key before the policy's own; DROP where no setting is known."""
    policy, column = use.policy, use.relation.column(use.place.key or "")
    known = single_settings(subject).most_common(1)
    if column is None or not known:
        return f"DROP POLICY {quote(policy.name)} ON {use.relation.qualified};"
    plain = f"{quote(column.name)} = NULLIF(current_setting({literal(known[0][0])}, true), '')::{column.type}"
    parts = []
    if policy.using is not None:
        parts.append(f"USING (({plain}) AND ({policy.using}))")
    if policy.check is not None:
        parts.append(f"WITH CHECK (({plain}) AND ({policy.check}))")
    return f"ALTER POLICY {quote(policy.name)} ON {use.relation.qualified} {' '.join(parts)};"
