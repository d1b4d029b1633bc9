"""Questions about predicates, decided by the solver; each answer is one of holds, violated and unknown.

``holds`` is sound for everything the encoding models; ``violated`` comes with a model that uses nothing
opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.prove import applied, lookups, smt, solver
from rlsaudit.prove.applied import lists_in
from rlsaudit.prove.encode import Encoder, SettingsState
from rlsaudit.prove.smt import Term
from rlsaudit.prove.solver import Clock
from rlsaudit.prove.tables import NO_WORLD, Key, World
from rlsaudit.prove.values import Row, Value
from rlsaudit.prove.witness import Witness, witness_of

Side = Literal["old", "new"]


@dataclass(frozen=True, slots=True)
class Answer:
    verdict: Literal["holds", "violated", "unknown"]
    witness: Witness = field(default_factory=Witness)
    unknowns: tuple[str, ...] = field(default=())
    """What was not modelled and left the question open."""
    by: Literal["", "excuse", "bound"] = ""
    """What it rests on beside the rows' conditions."""


@dataclass(frozen=True, slots=True)
class Session:
    """What is known of the session: the role it runs as, and the state of its settings."""

    role: str | None = None
    held: frozenset[str] = frozenset()
    state: SettingsState = "any"
    not_null: frozenset[str] = frozenset()
    """Columns of the policy's relation assumed to hold a value."""
    world: World = NO_WORLD
    checks: tuple[Expression, ...] = ()
    """What is not false for any row under test."""
    samples: bool = False
    """Whether values may be taken from samples to show a violation."""
    clock: Clock = field(default_factory=Clock, compare=False)


Violation: TypeAlias = Callable[[Encoder], Iterable[Term]]


def refute(
    violation: Violation, session: Session, excused: Violation | None = None, bounded: Violation | None = None
) -> Answer:
    """Looks for a session and rows that fulfil ``violation``; first over all opaque values, then without them.

    Each of the others is what a violation must fulfil as well: to be ``excused`` makes it none, to be ``bounded`` leaves
    it open.
    """
    try:
        return _refute(violation, session, excused, bounded)
    except (solver.SolverError, RecursionError):
        return Answer("unknown", unknowns=("an expression that does not fit together",))


def _refute(violation: Violation, session: Session, excused: Violation | None, bounded: Violation | None) -> Answer:
    encoder = _encoder(session, "any")
    terms = list(violation(encoder))
    model = solver.solve([*terms, *encoder.facts()], session.clock)
    if model.holds is False:
        return Answer("holds")
    if excused is not None:
        excuse = list(excused(encoder))
        model = solver.solve([*terms, *excuse, *encoder.facts()], session.clock)
        if model.holds is False:
            return Answer("holds", by="excuse")
    if bounded is not None:
        bound = list(bounded(encoder))
        if solver.solve([*terms, *bound, *encoder.facts()], session.clock).holds is False:
            return Answer("unknown", by="bound")
    unknowns = tuple(encoder.unknowns)
    if unknowns and model.holds:
        encoder = _encoder(session, "error")
        terms = [*violation(encoder), *(excused(encoder) if excused is not None else ())]
        model = solver.solve([*terms, *encoder.facts()], session.clock)
    if model.holds is None:
        return Answer("unknown", unknowns=(session.clock.over, *unknowns))
    return (
        Answer("violated", witness_of(encoder, model.read())) if model.holds else Answer("unknown", unknowns=unknowns)
    )


def holds(violation: Violation, session: Session) -> bool:
    """Whether no session and rows fulfil ``violation``, whatever opaque values are."""
    encoder = _encoder(session, "any")
    try:
        return solver.solve([*violation(encoder), *encoder.facts()], session.clock).holds is False
    except (solver.SolverError, RecursionError):
        return False


def _encoder(session: Session, opaque: Literal["any", "error"]) -> Encoder:
    return Encoder(
        role=session.role, state=session.state, opaque=opaque, not_null=session.not_null, world=session.world,
        held=session.held, checks=session.checks, samples=session.samples,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows of one session; each fulfils the condition of its side."""

    sides: tuple[Side, Side]
    first: Expression
    second: Expression
    replaced: Expression | None = None
    """What the rows that new ones take the place of fulfil."""

    def rows(self, encoder: Encoder) -> Iterator[Term]:
        encoder.new = {row.label for row, side in zip(_ROWS, self.sides, strict=True) if side == "new"}
        yield encoder.condition(self.first, _ROWS[0]).is_true
        yield encoder.condition(self.second, _ROWS[1]).is_true
        for row in _ROWS:
            yield from encoder.checked(row)
        if self.replaced is not None and encoder.new:
            yield encoder.condition(self.replaced, Row("row before")).is_true
            yield from lookups.replacing(encoder, self.replaced)


_ROWS = Row("row 1"), Row("row 2")


@lru_cache(maxsize=1024)
def keys_agree(
    pair: Pair, key: Key, session: Session, *, null_allowed: bool = False, looked_up: bool = False
) -> Answer:
    """Whether both rows have the same key, not NULL, or (``excuse``) keys of which the same user is a member or
    that one list of the session has.

    With ``null_allowed`` rows without a key are nobody's and are left out.  An old row may also be the user's own row
    of members.  With ``looked_up`` it is open (``bound``) when rows that were looked up have the keys.
    """

    def violation(encoder: Encoder) -> Iterable[Term]:
        keys = [lookups.tenant(encoder, key, row) for row in _ROWS]
        yield from pair.rows(encoder)
        differ = smt.negation(smt.equal(keys[0].value, keys[1].value))
        nulls = smt.disjunction(value.null for value in keys)
        if null_allowed:
            yield smt.conjunction([smt.negation(nulls), differ])
        else:
            yield smt.disjunction([nulls, differ])

    def not_together(encoder: Encoder) -> Iterable[Term]:
        keys = [lookups.tenant(encoder, key, row) for row in _ROWS]
        members = [_members(encoder, value, row) for value, row in zip(keys, _ROWS, strict=True)]
        yield smt.negation(smt.disjunction(applied.together(encoder, keys)))
        for here, one in members[0]:
            for there, other in members[1]:
                same = [here, there, smt.equal(one.value, other.value)] if one.kind == other.kind else [smt.FALSE]
                yield smt.negation(smt.conjunction(same))

    def not_held(encoder: Encoder) -> Iterable[Term]:
        for row in _ROWS:
            yield smt.negation(smt.disjunction(lookups.holders(encoder, lookups.tenant(encoder, key, row), row.label)))

    known = session.world.members or session.world.own or any(lists_in(pair.first)) or any(lists_in(pair.second))
    return refute(violation, session, not_together if known else None, not_held if looked_up else None)


def _members(encoder: Encoder, key: Value, row: Row) -> list[tuple[Term, Value]]:
    found = list(lookups.users(encoder, key, row.label))
    for column in encoder.own if row.label not in encoder.new else ():
        user = encoder.column(column, row)
        found.append((smt.conjunction([key.is_known, user.is_known]), user))
    return found


def columns_overlap(predicate: Expression, columns: tuple[e.Column, ...], session: Session) -> bool:
    """Whether any two rows that fulfil the predicate in one session share a value in some of ``columns``."""

    def violation(encoder: Encoder) -> Iterable[Term]:
        values = [[encoder.column(column, row) for column in columns] for row in _ROWS]
        yield from Pair(("old", "old"), predicate, predicate).rows(encoder)
        for left in values[0]:
            for right in values[1]:
                yield smt.negation(
                    smt.conjunction(
                        [smt.negation(left.null), smt.negation(right.null), smt.equal(left.value, right.value)]
                    )
                )

    return holds(violation, session)


@lru_cache(maxsize=1024)
def nothing_visible(
    predicate: Expression, key: Key, session: Session, *, null_allowed: bool = False, empty_allowed: bool = False
) -> Answer:
    """Whether no row fulfils the predicate; rows with a NULL key are left out if allowed.

    With ``empty_allowed`` it is open (``bound``) when only rows with an empty key, or of an empty user, do.
    """

    def violation(encoder: Encoder) -> Iterable[Term]:
        value = lookups.tenant(encoder, key, _ROWS[0])
        yield encoder.condition(predicate, _ROWS[0]).is_true
        yield from encoder.checked(_ROWS[0])
        if null_allowed:
            yield smt.negation(value.null)

    def not_empty(encoder: Encoder) -> Iterable[Term]:
        others = [found for (label, _), found in encoder.columns.items() if label in encoder.relations]
        for one in (lookups.tenant(encoder, key, _ROWS[0]), *others):
            if one.kind == "text":
                yield smt.disjunction([one.null, smt.negation(smt.equal(one.value, encoder.text("")))])

    return refute(violation, session, bounded=not_empty if empty_allowed else None)
