"""Proves, for each tenant relation, application role and command, that one session reaches rows of one tenant only.

The goal has two parts.  Any two rows that pass the policies in one session have the same tenant key, not NULL; and with
every setting unset, or every setting ``''``, no row passes.  For INSERT the rows are those WITH CHECK admits, for UPDATE
the old rows and the new ones and each against the other.  Only the command's own policies count, since a statement that
reads no column is not bound by the SELECT policies.

Sound for what is modelled: direct access under row security.  Views, functions, triggers and foreign keys are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, subquery_relations, walk
from rlsaudit.catalog.model import COMMANDS, Catalog, Column, Command, Policy
from rlsaudit.catalog.policies import policy_predicate, settings
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.prove.goals import Answer, Session, keys_agree, nothing_visible
from rlsaudit.tenancy.model import Classified, Tenancy

Verdict = Literal["proven", "refuted", "unknown"]
Side = Literal["old", "new"]

_SEVERITY: tuple[Verdict, ...] = ("proven", "unknown", "refuted")
_STATES: tuple[tuple[Literal["null", "empty"], str], ...] = (("null", "unset"), ("empty", "''"))


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of one relation × role × command."""

    relation: int
    role: int
    command: Command
    verdict: Verdict
    reason: str
    """Why, in a sentence; for ``refuted`` with the rows and settings that the solver found."""
    goal: str


@dataclass(frozen=True, slots=True)
class _Result:
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class _Question:
    """All that an answer depends on; equal questions of different tables and roles are asked once."""

    rows: tuple[tuple[Side, Expression | None], ...]
    """The combined predicates that bound rows; None when no permissive policy applies."""
    key: e.Column
    role: str | None
    null_allowed: bool
    constrained: bool
    """A constraint bounds the key, so an empty one may not exist."""
    context: frozenset[str]
    relations: frozenset[int]


def prove(catalog: Catalog, tenancy: Tenancy, visibility: Visibility) -> tuple[Proof, ...]:
    """One Proof for each tenant relation with a key column of its own × application role that row security binds ×
    command, in catalog order."""
    cache: dict[_Question, _Result] = {}
    return tuple(_proofs(catalog, tenancy, visibility, cache))


def _proofs(
    catalog: Catalog, tenancy: Tenancy, visibility: Visibility, cache: dict[_Question, _Result]
) -> Iterator[Proof]:
    for oid in tenancy.tenant_data():
        classified, relation = tenancy.of(oid), catalog.relation(oid)
        key = relation.column(classified.key) if classified.key and not classified.path else None
        if key is None or not relation.holds_rows:
            continue
        for role in tenancy.roles:
            if visibility.exempt(role.oid, relation) is not None:
                continue
            for command in COMMANDS:
                policies = visibility.policies(role.oid, relation, command)
                question = _question(catalog, classified, key, role.name, command, policies)
                if question not in cache:
                    cache[question] = _answer(catalog, question)
                result = cache[question]
                yield Proof(oid, role.oid, command, result.verdict, result.reason, _goal(command, key))


def _goal(command: Command, key: Column) -> str:
    rows = {
        "SELECT": "rows that a session sees",
        "INSERT": "rows that a session may create",
        "UPDATE": "rows that a session may change, and what they become,",
        "DELETE": "rows that a session may delete",
    }[command]
    return f"all {rows} have one {key.name}, and there are none while the context is missing"


def _question(
    catalog: Catalog, classified: Classified, key: Column, role: str, command: Command, policies: Iterable[Policy]
) -> _Question:
    policies = tuple(policies)
    sides: tuple[Side, ...] = {"SELECT": ("old",), "INSERT": ("new",), "DELETE": ("old",), "UPDATE": ("old", "new")}[
        command
    ]  # type: ignore[assignment]
    rows = tuple((side, combined(catalog, policies, side)) for side in sides)
    predicates = [predicate for _, predicate in rows if predicate is not None]
    parts = [part for predicate in predicates for part in walk(predicate)]
    uses_role = any(isinstance(part, e.SessionRole) for part in parts)
    return _Question(
        rows=rows,
        key=e.Column(key.name, key.number, 0, key.base_type, key.not_null, 1),
        role=role if uses_role else None,
        null_allowed=classified.shared_rows and command == "SELECT",
        constrained=_constrained(catalog, classified.relation, key),
        context=frozenset().union(*(settings(predicate, catalog) for predicate in predicates)),
        relations=frozenset().union(*(subquery_relations(predicate) for predicate in predicates)),
    )


def _constrained(catalog: Catalog, relation: int, key: Column) -> bool:
    bounding = [
        c for c in catalog.constraints_of(relation) if c.kind in ("check", "foreign key") and key.number in c.columns
    ]
    return bool(bounding or key.domain_checks)


def combined(catalog: Catalog, policies: Iterable[Policy], side: Side) -> Expression | None:
    """The condition that the server applies: permissive policies ORed, restrictive ones ANDed; None admits no row.

    New rows are held against WITH CHECK, or USING where there is none.  A policy without either bounds nothing.
    """
    permissive: list[Expression] = []
    restrictive: list[Expression] = []
    for policy in policies:
        predicate = policy_predicate(catalog, policy, "check") if side == "new" else None
        if predicate is None:
            predicate = policy_predicate(catalog, policy, "using")
        if predicate is not None:
            (permissive if policy.permissive else restrictive).append(predicate)
    if not permissive:
        return None
    allowed = permissive[0] if len(permissive) == 1 else e.Or(tuple(permissive))
    return e.And((allowed, *restrictive)) if restrictive else allowed


def _answer(catalog: Catalog, question: _Question) -> _Result:
    present = [(side, predicate) for side, predicate in question.rows if predicate is not None]
    if not present:
        return _Result("proven", "no policy applies: default deny")
    if question.rows[0][1] is None:
        return _Result("proven", "no policy admits a row to start from: default deny")
    results = [_agreement(catalog, question, a, b) for a, b in _pairs(present)]
    if all(result.verdict == "proven" for result in results):
        results += [_closed(catalog, question, side, predicate) for side, predicate in present]
    return max(results, key=lambda result: _SEVERITY.index(result.verdict))


Bound = tuple[Side, Expression]


def _pairs(present: list[Bound]) -> Iterator[tuple[Bound, Bound]]:
    for i, first in enumerate(present):
        for second in present[i:]:
            if first == second or first[1] != second[1]:
                yield first, second


def _agreement(catalog: Catalog, question: _Question, first: Bound, second: Bound) -> _Result:
    session = Session(role=question.role)
    answer = keys_agree(first[1], second[1], question.key, session, null_allowed=question.null_allowed)
    if answer.verdict == "holds":
        return _Result("proven", _bounded_by(question))
    what = "rows" if first == second else "an old row and what it becomes"
    if answer.verdict == "violated":
        return _Result("refuted", f"one session reaches {what} of two tenants: {answer.witness}")
    return _undecided(catalog, question, answer)


def _closed(catalog: Catalog, question: _Question, side: Side, predicate: Expression) -> _Result:
    """No row while the context is missing."""
    if any(isinstance(part, e.SessionRole) for part in walk(predicate)) and not question.context:
        return _Result("proven", f"{question.key.name} is bound to the session's role")
    worst = _Result("proven", _bounded_by(question))
    for state, shown in _STATES:
        session = Session(role=question.role, state=state)
        answer = nothing_visible(predicate, question.key, session, null_allowed=question.null_allowed)
        if answer.verdict == "holds":
            continue
        if answer.verdict == "unknown":
            worst = _undecided(catalog, question, answer)
            continue
        if not question.context:
            return _Result("unknown", "one tenant's rows for every session of the role: no context is read")
        others = nothing_visible(
            predicate, question.key, session, null_allowed=question.null_allowed, empty_allowed=True
        )
        if question.constrained and others.verdict == "holds":
            worst = _Result("unknown", f"a row with an empty {question.key.name} would pass while the context is ''")
            continue
        what = "is admitted" if side == "new" else "is reached"
        return _Result("refuted", f"with the context {shown} a row {what}: {answer.witness}")
    return worst


def _bounded_by(question: _Question) -> str:
    note = " (rows without a key are shared)" if question.null_allowed else ""
    context = ", ".join(sorted(question.context))
    return f"{question.key.name} is bound to {context or 'one value'}{note}"


def _undecided(catalog: Catalog, question: _Question, answer: Answer) -> _Result:
    names = sorted(
        relation.qualified for oid in question.relations if (relation := catalog.find_relation(oid)) is not None
    )
    through = f"; rows are bounded through {', '.join(names)}" if names else ""
    why = ", ".join(answer.unknowns[:4]) or "the solver gave no answer"
    return _Result("unknown", f"depends on {why}{through}")


