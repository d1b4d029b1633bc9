"""Questions about predicates, decided by the solver; each answer is one of holds, violated and unknown.

``holds`` is sound for everything the encoding models; ``violated`` comes with a model that uses nothing
opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal
from uuid import UUID

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.prove import smt
from rlsaudit.prove.encode import Encoder, SettingsState
from rlsaudit.prove.smt import Term
from rlsaudit.prove.values import Row, Value, number_text

Outcome = Literal[True, False, None, "error"]
OUTCOMES: tuple[Outcome, ...] = (True, False, None, "error")


@dataclass(frozen=True, slots=True)
class Answer:
    verdict: Literal["holds", "violated", "unknown"]
    witness: str = ""
    unknowns: tuple[str, ...] = field(default=())
    """What was not modelled and left the question open."""


@dataclass(frozen=True, slots=True)
class Session:
    """What is known of the session: the role it runs as, and the state of its settings."""

    role: str | None = None
    state: SettingsState = "any"
    not_null: frozenset[str] = frozenset()
    """Columns of the policy's relation assumed to hold a value."""


def refute(violation: Callable[[Encoder], Iterable[Term]], session: Session) -> Answer:
    """Looks for a session and rows that fulfil ``violation``; first over all opaque values, then without
    them."""
    try:
        return _refute(violation, session)
    except (smt.SolverError, RecursionError):
        return Answer("unknown", unknowns=("an expression that does not fit together",))


def _refute(violation: Callable[[Encoder], Iterable[Term]], session: Session) -> Answer:
    encoder = _encoder(session, "any")
    terms = list(violation(encoder))
    model = smt.solve([*terms, *encoder.facts()])
    if model.holds is False:
        return Answer("holds")
    unknowns = tuple(encoder.unknowns)
    if model.holds is None:
        return Answer("unknown", unknowns=("the solver's time limit", *unknowns))
    if unknowns:
        encoder = _encoder(session, "error")
        terms = list(violation(encoder))
        model = smt.solve([*terms, *encoder.facts()])
    if not model.holds:
        return Answer("unknown", unknowns=unknowns)
    return Answer("violated", _witness(encoder, model))


def _encoder(session: Session, opaque: Literal["any", "error"]) -> Encoder:
    return Encoder(role=session.role, state=session.state, opaque=opaque, not_null=session.not_null)


def keys_agree(
    first: Expression, second: Expression, key: e.Column, session: Session, *, null_allowed: bool = False
) -> Answer:
    """Whether a row that fulfils ``first`` and one that fulfils ``second`` in one session have the same key,
    not NULL.

    With ``null_allowed`` rows without a key are nobody's and are left out.
    """

    def violation(encoder: Encoder) -> Iterable[Term]:
        one, other = Row("row 1"), Row("row 2")
        keys = encoder.column(key, one), encoder.column(key, other)
        differ = smt.negation(smt.equal(keys[0].value, keys[1].value))
        nulls = smt.disjunction(value.null for value in keys)
        yield encoder.condition(first, one).is_true
        yield encoder.condition(second, other).is_true
        if null_allowed:
            yield smt.conjunction([smt.negation(nulls), differ])
        else:
            yield smt.disjunction([nulls, differ])

    return refute(violation, session)


def columns_overlap(predicate: Expression, columns: tuple[e.Column, ...], session: Session) -> Answer:
    """Whether any two rows that fulfil the predicate in one session share a value in some of ``columns``."""

    def violation(encoder: Encoder) -> Iterable[Term]:
        one, other = Row("row 1"), Row("row 2")
        values = [[encoder.column(column, row) for column in columns] for row in (one, other)]
        yield encoder.condition(predicate, one).is_true
        yield encoder.condition(predicate, other).is_true
        for left in values[0]:
            for right in values[1]:
                same = smt.conjunction(
                    [smt.negation(left.null), smt.negation(right.null), smt.equal(left.value, right.value)]
                )
                yield smt.negation(same)

    return refute(violation, session)


def nothing_visible(
    predicate: Expression,
    key: e.Column,
    session: Session,
    *,
    null_allowed: bool = False,
    empty_allowed: bool = False,
) -> Answer:
    """Whether no row fulfils the predicate; rows with a NULL (or an empty) key are left out if allowed."""

    def violation(encoder: Encoder) -> Iterable[Term]:
        row = Row("row 1")
        value = encoder.column(key, row)
        yield encoder.condition(predicate, row).is_true
        if null_allowed:
            yield smt.negation(value.null)
        if empty_allowed and value.kind == "text":
            yield smt.disjunction([value.null, smt.negation(smt.equal(value.value, encoder.text("")))])

    return refute(violation, session)


@lru_cache(maxsize=4096)
def always_true(predicate: Expression, *, not_null: frozenset[str] = frozenset()) -> bool:
    """Proven true for every row and every session (``1 = 1``, ``key = key``); ``not_null`` columns are taken
    to hold one.

    False also when it cannot be decided.
    """

    def violation(encoder: Encoder) -> Iterable[Term]:
        yield smt.negation(encoder.condition(predicate, Row("row")).is_true)

    return refute(violation, Session(not_null=not_null)).verdict == "holds"


@lru_cache(maxsize=4096)
def true_without_context(predicate: Expression, state: SettingsState, *, key: str | None = None) -> bool | None:
    """Whether the predicate can be true while all settings are in ``state``, for a row whose ``key`` is not
    NULL.

    None when it depends on something not modelled.  For ``empty``, rows whose text key is itself '' are left
    out.
    """

    def violation(encoder: Encoder) -> Iterable[Term]:
        row = Row("row")
        yield encoder.condition(predicate, row).is_true
        column = next(
            (c for c in e.walk(predicate) if isinstance(c, e.Column) and c.level == 0 and c.name == key), None
        )
        if column is not None:
            value = encoder.column(column, row)
            yield smt.negation(value.null)
            if value.kind == "text":
                yield smt.negation(smt.equal(value.value, encoder.text("")))

    answer = refute(violation, Session(state=state))
    return {"holds": False, "violated": True, "unknown": None}[answer.verdict]


def outcome(predicate: Expression, state: SettingsState = "any") -> frozenset[Outcome]:
    """Every result the predicate may have, over all rows, settings in ``state``: a superset when not sure."""
    found = {result for result in OUTCOMES if _possible(predicate, state, result)}
    return frozenset(found)


def _possible(predicate: Expression, state: SettingsState, result: Outcome) -> bool:
    def violation(encoder: Encoder) -> Iterable[Term]:
        value = encoder.condition(predicate, Row("row"))
        if result is None:
            yield value.is_null
        elif result == "error":
            yield value.error
        else:
            yield value.is_true if result else value.is_false

    return refute(violation, Session(state=state)).verdict != "holds"


def _witness(encoder: Encoder, model: smt.Model) -> str:
    """Columns and settings of the model, as text; every value is the solver's invention or a constant of a
    policy."""
    parts = []
    for (label, _, _), value in sorted(encoder.columns.items(), key=lambda item: item[0]):
        name = str(value.value)
        if label.startswith("row"):
            parts.append(f"{name} = {_shown(model, value, name)}")
    settings = sorted({n.removesuffix(" is null") for n in model.values if n.startswith("setting ")})
    for name in settings:
        value = Value(smt.FALSE, smt.truth(f"{name} is null"), smt.number(name), "text")
        parts.append(f"{name} = {_shown(model, value, name)}")
    if encoder.state != "any":
        parts.append("every setting unset" if encoder.state == "null" else "every setting ''")
    return ", ".join(parts)


def _shown(model: smt.Model, value: Value, name: str) -> str:
    if model.values.get(f"{name} is null", False):
        return "NULL"
    found = model.values.get(name, 0)
    if value.kind == "boolean":
        return str(bool(found)).lower()
    if value.kind == "uuid":
        return str(UUID(int=found % 2**128))
    if value.kind == "integer":
        return str(found)
    text = number_text(found) if value.kind == "text" else None
    return f"value {found}" if text is None else f"'{text}'"
