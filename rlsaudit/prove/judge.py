"""One question, one verdict: are the rows that some policies admit in a session those of one tenant?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, comparisons, depends_on_row, walk
from rlsaudit.prove.applied import lists_in
from rlsaudit.prove.goals import (
    Answer,
    Pair,
    Session,
    Side,
    columns_overlap,
    keys_agree,
    nothing_visible,
)
from rlsaudit.prove.tables import NO_WORLD, Key, World
from rlsaudit.prove.values import kind_of
from rlsaudit.prove.witness import Witness

Verdict = Literal["proven", "refuted", "unknown"]
Bound = tuple[Side, Expression]

_WORSE: tuple[Verdict, ...] = ("proven", "unknown", "refuted")
_STATES: tuple[tuple[Literal["null", "empty"], str], ...] = (("null", "unset"), ("empty", "''"))


@dataclass(frozen=True, slots=True)
class Question:
    """All that a verdict depends on, so that equal questions of different tables and roles are asked once."""

    bounds: tuple[Bound, ...]
    """The combined condition on old and on new rows; empty when no permissive policy admits any."""
    others: tuple[Bound, ...]
    """The same without the rows that are the acting user's own in a relation that ties users to tenants, when there are
    such."""
    key: Key
    role: str | None
    """Name of the role, when the policies read it."""
    held: frozenset[str]
    """Names of the roles whose rights it has, when the policies ask for them."""
    null_allowed: bool
    """A NULL key means a row that is shared and may be read."""
    constrained: bool
    """A constraint bounds the key, so that an empty one may not exist."""
    checks: tuple[Expression, ...]
    """What is not false for any row."""
    rewritten: bool
    """Something else than CHECKs may refuse or change values."""
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
    listed: str = ""
    """Settings that list the session's tenants."""


def judge(question: Question) -> Result:
    """The verdict on a question: the worst of its parts.  It is open where one tenant's rows are seen, and others that say
    to which tenants the acting user belongs."""
    if not question.bounds:
        return Result("proven", "no policy applies: default deny")
    session = _session(question)
    found = _agreeing(question, question.bounds, session)
    if found.verdict == "refuted" and question.others:
        found = _agreeing(question, question.others, session)
        if found.verdict == "proven":
            reason = "rows are one tenant's, or name the acting user as one to whom their tenant belongs"
            return max((replace(found, verdict="unknown", reason=reason), *_always(question, session)), key=_worse)
    if found.verdict != "proven":
        return found
    return max((found, *_always(question, session)), key=_worse)


def _always(question: Question, session: Session) -> Iterator[Result]:
    """What must hold beside: nothing without a context, and no error that tells."""
    for side, predicate in question.bounds:
        yield _closed(question, side, predicate, session)
    for side, predicate in question.bounds:
        if side == "old":
            yield _silent(question, predicate)


def _worse(result: Result) -> int:
    return _WORSE.index(result.verdict)


def _session(question: Question) -> Session:
    return Session(
        role=question.role,
        held=question.held,
        world=question.world,
        checks=question.checks,
        samples=not question.rewritten,
    )


def _agreeing(question: Question, bounds: tuple[Bound, ...], session: Session) -> Result:
    return max((_agreement(question, one, other, session) for one, other in _pairs(bounds)), key=_worse)


def _pairs(bounds: tuple[Bound, ...]) -> Iterator[tuple[Bound, Bound]]:
    for i, first in enumerate(bounds):
        for second in bounds[i:]:
            if first is second or first[1] != second[1]:
                yield first, second


def _agreement(question: Question, first: Bound, second: Bound, session: Session) -> Result:
    """Two rows of one session have one key, or keys of which the acting user is a member."""
    replaced = next((predicate for side, predicate in question.bounds if side == "old"), None)
    sides = first[0], second[0]
    pair = Pair(sides, first[1], second[1], replaced if "new" in sides else None)
    agree = partial(keys_agree, key=question.key, null_allowed=question.null_allowed, looked_up=bool(question.through))
    # Where no other rows matter, new rows that pass are as any that pass; what they replace only makes them fewer.
    alone = not (question.world.tables or question.world.own)
    answer = agree(replace(pair, sides=("old", "old"), replaced=None) if alone else pair, session=session)
    if alone and answer.verdict != "holds" and pair.replaced is not None:
        answer = agree(pair, session=session)
    through = ", ".join(question.through)
    if answer.by == "bound":
        return Result("unknown", f"rows are bounded through {through}, not known to hold members")
    if answer.verdict == "unknown":
        return _undecided(question, answer)
    if answer.verdict == "violated":
        return _disagreement(question, pair, answer, session)
    # Inside a SECURITY DEFINER function current_user is another role.
    if (
        question.role is not None
        and agree(pair, session=replace(session, role=None, held=frozenset())).verdict != "holds"
    ):
        return Result("unknown", f"holds while current_user is {question.role}, not for code that runs as others")
    if answer.by == "excuse":
        lists = {
            s.name for x in (*lists_in(pair.first), *lists_in(pair.second)) for s in walk(x) if isinstance(s, e.Setting)
        }
        relies = tuple(oid for oid, _ in question.world.members)
        if lists and not (relies or question.world.own):
            named = ", ".join(sorted(lists))
            return Result("proven", f"{question.key.name} is one of those that {named} lists", listed=named)
        return Result("proven", _members_of(question), relies=relies)
    return Result("proven", _bounded_by(question))


def _disagreement(question: Question, pair: Pair, answer: Answer, session: Session) -> Result:
    new = "new" in pair.sides
    alike = pair.sides[0] == pair.sides[1]
    if new and question.guarded:
        return Result("unknown", f"the policies do not bound new rows, but {question.guarded} may: {answer.witness}")
    if alike and not (new and question.world.own):
        parties = _parties(question, pair.first)
        if len(parties) > 1 and columns_overlap(pair.first, parties, session):
            names = ", ".join(column.name for column in parties)
            return Result("unknown", f"a row belongs to whoever is named in one of {names}")
        for principal in question.principals:
            if keys_agree(replace(pair, replaced=None), Key((), principal), session).verdict == "holds":
                return Result("unknown", f"rows are bound to {principal.name}, whose rows may be of several tenants")
    what = "rows" if alike else "an old row and what it becomes"
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


def _closed(question: Question, side: Side, predicate: Expression, session: Session) -> Result:
    """No row while the context is missing."""
    if not question.context and any(isinstance(part, e.SessionRole) for part in walk(predicate)):
        return Result("proven", f"{question.key.name} is bound to the session's role")
    worst = Result("proven", _bounded_by(question))
    for state, shown in _STATES:
        answer = nothing_visible(
            predicate, question.key, replace(session, state=state), null_allowed=question.null_allowed,
            empty_allowed=question.constrained or bool(question.through),
        )  # fmt: skip
        if answer.verdict == "holds":
            continue
        if not question.context:
            return Result("unknown", "one tenant's rows for every session of the role: no context is read")
        if answer.by == "bound":
            what = "row or one looked up" if question.through else "row"
            worst = Result("unknown", f"a {what} with an empty key would pass while the context is ''")
            continue
        if answer.verdict == "unknown":
            worst = _undecided(question, answer)
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
