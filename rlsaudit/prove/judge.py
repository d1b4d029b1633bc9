"""One question, one verdict: are the rows that some policies admit in a session those of one tenant?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, comparisons, depends_on_row, walk
from rlsaudit.prove.goals import Answer, Session, Side, Witness, columns_overlap, keys_agree, nothing_visible
from rlsaudit.prove.tables import NO_WORLD, Key, World
from rlsaudit.prove.values import kind_of

Verdict = Literal["proven", "refuted", "unknown"]
Bound = tuple[Side, Expression]

_WORSE: tuple[Verdict, ...] = ("proven", "unknown", "refuted")
_STATES: tuple[tuple[Literal["null", "empty"], str], ...] = (("null", "unset"), ("empty", "''"))


@dataclass(frozen=True, slots=True)
class Question:
    """All that a verdict depends on, so that equal questions of different tables and roles are asked once."""

    bounds: tuple[Bound, ...]
    """The combined condition on old and on new rows; empty when no permissive policy admits any."""
    key: Key
    role: str | None
    """Name of the role, when the policies read it."""
    null_allowed: bool
    """A NULL key means a row that is shared and may be read."""
    constrained: bool
    """A constraint bounds the key, so that an empty one may not exist."""
    guarded: str
    """Why a new row that the policies admit may be refused all the same."""
    principals: tuple[e.Column, ...]
    """Columns that bind rows to the acting user instead of a tenant."""
    context: frozenset[str]
    defaults: frozenset[str]
    """Settings of ``context`` that have a default for the role, so that they are never missing."""
    through: tuple[str, ...]
    """Relations that subqueries read."""
    world: World = NO_WORLD


@dataclass(frozen=True, slots=True)
class Result:
    verdict: Verdict
    reason: str
    witness: Witness | None = None
    """Of a refutation."""
    relies: tuple[int, ...] = ()
    """Relations of members whose rows say which tenants the acting user has."""


def judge(question: Question) -> Result:
    """The verdict on a question: the worst of its parts."""
    if not question.bounds:
        return Result("proven", "no policy applies: default deny")
    results = [_agreement(question, one, other) for one, other in _pairs(question.bounds)]
    if all(result.verdict == "proven" for result in results):
        results += [_closed(question, side, predicate) for side, predicate in question.bounds]
        results += [_silent(question, predicate) for side, predicate in question.bounds if side == "old"]
    return max(results, key=lambda result: _WORSE.index(result.verdict))


def _pairs(bounds: tuple[Bound, ...]) -> Iterator[tuple[Bound, Bound]]:
    for i, first in enumerate(bounds):
        for second in bounds[i:]:
            if first is second or first[1] != second[1]:
                yield first, second


def _agreement(question: Question, first: Bound, second: Bound) -> Result:
    """Two rows of one session have one key, or keys of which the acting user is a member."""
    alone = replace(question.world, members=(), own=())
    answer = _agree(question, first, second, Session(role=question.role, world=alone))
    if answer.verdict == "holds":
        return _whoever_runs_it(question, first, second, Result("proven", _bounded_by(question)))
    if alone != question.world:
        answer = _agree(question, first, second, Session(role=question.role, world=question.world))
        if answer.verdict == "holds":
            relies = tuple(oid for oid, _ in question.world.members)
            return _whoever_runs_it(question, first, second, Result("proven", _members_of(question), relies=relies))
    if answer.verdict == "unknown":
        return _undecided(question, answer)
    return _disagreement(question, first, second, answer)


def _agree(question: Question, first: Bound, second: Bound, session: Session, *, bounded: bool = False) -> Answer:
    replaced = next((predicate for side, predicate in question.bounds if side == "old"), None)
    return keys_agree(
        first[1], second[1], question.key, session, null_allowed=question.null_allowed, sides=(first[0], second[0]),
        bounded=bounded, replaced=replaced,
    )  # fmt: skip


def _whoever_runs_it(question: Question, first: Bound, second: Bound, result: Result) -> Result:
    """Inside a SECURITY DEFINER function current_user is another role."""
    if question.role is None:
        return result
    if _agree(question, first, second, Session(world=question.world)).verdict == "holds":
        return result
    return Result("unknown", f"holds while current_user is {question.role}, not for code that runs as others")


def _disagreement(question: Question, first: Bound, second: Bound, answer: Answer) -> Result:
    new = "new" in (first[0], second[0])
    if question.through:
        session = Session(role=question.role, world=question.world)
        if _agree(question, first, second, session, bounded=True).verdict == "holds":
            return Result(
                "unknown", f"rows are bounded through {', '.join(question.through)}, not known to hold members"
            )
    if new and question.guarded:
        return Result("unknown", f"the policies do not bound new rows, but {question.guarded} may: {answer.witness}")
    session = Session(role=question.role, world=question.world)
    if first == second and not (new and question.world.own):
        parties = _parties(question, first[1])
        if len(parties) > 1 and columns_overlap(first[1], parties, session).verdict == "holds":
            names = ", ".join(column.name for column in parties)
            return Result("unknown", f"a row belongs to whoever is named in one of {names}")
        for principal in question.principals:
            if keys_agree(first[1], second[1], Key((), principal), session).verdict == "holds":
                return Result("unknown", f"rows are bound to {principal.name}, whose rows may be of several tenants")
    what = "rows" if first == second else "an old row and what it becomes"
    return Result("refuted", f"one session reaches {what} of two tenants: {answer.witness}", answer.witness)


def _parties(question: Question, predicate: Expression) -> tuple[e.Column, ...]:
    """The key and other columns of its type that are compared with the session's own tenant; empty without
    the key."""
    found = {
        comparison.column.number: comparison.column
        for comparison in comparisons(predicate)
        if comparison.exact
        and kind_of(comparison.column.type) == kind_of(question.key.column.type)
        and not depends_on_row(comparison.other)
        and not isinstance(comparison.other, e.Constant)
    }
    return tuple(found.values()) if question.key.number in found else ()


def _closed(question: Question, side: Side, predicate: Expression) -> Result:
    """No row while the context is missing."""
    if not question.context and any(isinstance(part, e.SessionRole) for part in walk(predicate)):
        return Result("proven", f"{question.key.name} is bound to the session's role")
    worst = Result("proven", _bounded_by(question))
    for state, shown in _STATES:
        session = Session(role=question.role, state=state, world=question.world)
        answer = nothing_visible(predicate, question.key, session, null_allowed=question.null_allowed)
        if answer.verdict == "holds":
            continue
        if answer.verdict == "unknown":
            worst = _undecided(question, answer)
            continue
        if not question.context:
            return Result("unknown", "one tenant's rows for every session of the role: no context is read")
        others = nothing_visible(
            predicate, question.key, session, null_allowed=question.null_allowed, empty_allowed=True
        )
        if others.verdict == "holds" and (question.constrained or question.through):
            what = "row or one looked up" if question.through else "row"
            worst = Result("unknown", f"a {what} with an empty key would pass while the context is ''")
            continue
        if side == "new" and question.guarded:
            worst = Result("unknown", f"without context the policies admit a new row, but {question.guarded} may not")
            continue
        what = "is admitted" if side == "new" else "is reached"
        return Result("refuted", f"with the context {shown} a row {what}: {answer.witness}", answer.witness)
    if question.defaults and worst.verdict == "proven":
        names = ", ".join(sorted(question.defaults))
        return Result("unknown", f"{names} has a default for the role, so a session without context acts for a tenant")
    return worst


def _silent(question: Question, predicate: Expression) -> Result:
    """No error that could print another tenant's value, since the server chooses the order of evaluation."""
    risk = next(_risks(predicate, question.key), None)
    if risk is None:
        return Result("proven", _bounded_by(question))
    return Result("unknown", f"{risk} may fail on another tenant's row, with its value in the error message")


def _risks(expression: Expression, key: Key) -> Iterator[str]:
    if isinstance(expression, e.Case):
        guarded = False
        for condition, result in expression.branches:
            if not guarded:
                yield from _risks(condition, key)
            guarded = guarded or any(c.exact and c.column.number == key.number for c in comparisons(condition))
            if not guarded:
                yield from _risks(result, key)
        if not guarded:
            yield from _risks(expression.default, key)
        return
    if isinstance(expression, e.Cast) and depends_on_row(expression.argument):
        source, target = expression.argument.type, kind_of(expression.type)
        if target != "text" and (kind_of(source) == "text" or source in ("json", "jsonb")):
            yield f"the cast from {source} to {expression.type}"
    for child in e.children(expression):
        yield from _risks(child, key)


def _bounded_by(question: Question) -> str:
    note = " (rows without a key are shared)" if question.null_allowed else ""
    return f"{question.key.name} is bound to {', '.join(sorted(question.context)) or 'one value'}{note}"


def _members_of(question: Question) -> str:
    places = [question.world.name(oid) for oid, _ in question.world.members]
    where = f"a member by {' or '.join(places)}" if places else "named"
    return f"{question.key.name} is that of a tenant in which the acting user is {where}"


def _undecided(question: Question, answer: Answer) -> Result:
    through = f"; rows are bounded through {', '.join(question.through)}" if question.through else ""
    why = ", ".join(answer.unknowns[:4]) or "something the solver could not settle"
    return Result("unknown", f"depends on {why}{through}")
