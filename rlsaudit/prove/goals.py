"""Questions about predicates, decided by the solver; each answer is one of holds, violated and unknown.

``holds`` is sound for everything the encoding models; ``violated`` comes with a model that uses nothing
opaque.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.prove import lookups, smt
from rlsaudit.prove.encode import Encoder, SettingsState
from rlsaudit.prove.smt import Term
from rlsaudit.prove.tables import NO_WORLD, Key, World
from rlsaudit.prove.values import Row, Value, kind_of, number_text

_BARE = re.compile(r"-?\d+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Outcome = Literal[True, False, None, "error"]
OUTCOMES: tuple[Outcome, ...] = (True, False, None, "error")


Side = Literal["old", "new"]


@dataclass(frozen=True, slots=True)
class Witness:
    """Rows and settings that break a goal, as text; None is NULL, or a setting that was never set."""

    rows: tuple[tuple[str, int, tuple[tuple[str, str | None], ...]], ...] = ()
    """``row 1`` or the like, its relation (0: the one under test), and its columns."""
    settings: tuple[tuple[str, str | None], ...] = ()
    state: SettingsState = "any"
    """``null`` or ``empty``: all settings are."""

    def __str__(self) -> str:
        shown = [
            f"{label}.{name} = {_quoted(value)}"
            for label, _, columns in self.rows
            if label.startswith("row")
            for name, value in columns
        ]
        shown += [f"setting {name} = {_quoted(value)}" for name, value in self.settings]
        if self.state != "any":
            shown.append("every setting unset" if self.state == "null" else "every setting ''")
        return ", ".join(shown)


@dataclass(frozen=True, slots=True)
class Answer:
    verdict: Literal["holds", "violated", "unknown"]
    witness: Witness = Witness()
    unknowns: tuple[str, ...] = field(default=())
    """What was not modelled and left the question open."""


@dataclass(frozen=True, slots=True)
class Session:
    """What is known of the session: the role it runs as, and the state of its settings."""

    role: str | None = None
    state: SettingsState = "any"
    not_null: frozenset[str] = frozenset()
    """Columns of the policy's relation assumed to hold a value."""
    world: World = NO_WORLD


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
    return Encoder(
        role=session.role, state=session.state, opaque=opaque, not_null=session.not_null, world=session.world
    )  # fmt: skip


def keys_agree(
    first: Expression,
    second: Expression,
    key: Key,
    session: Session,
    *,
    null_allowed: bool = False,
    sides: tuple[Side, Side] = ("old", "old"),
    bounded: bool = False,
    replaced: Expression | None = None,
) -> Answer:
    """Whether a row that fulfils ``first`` and one that fulfils ``second`` in one session have the same key,
    not NULL, or have keys of which the same user is a member.

    With ``null_allowed`` rows without a key are nobody's and are left out.  An old row may also be the user's own row
    of members.  With ``bounded`` any row that was looked up and has the key will do for a membership.  What new rows
    take the place of fulfils ``replaced``.
    """

    def violation(encoder: Encoder) -> Iterable[Term]:
        rows = Row("row 1"), Row("row 2")
        encoder.new = {row.label for row, side in zip(rows, sides, strict=True) if side == "new"}
        keys = [lookups.tenant(encoder, key, row) for row in rows]
        differ = smt.negation(smt.equal(keys[0].value, keys[1].value))
        nulls = smt.disjunction(value.null for value in keys)
        yield encoder.condition(first, rows[0]).is_true
        yield encoder.condition(second, rows[1]).is_true
        if null_allowed:
            yield smt.conjunction([smt.negation(nulls), differ])
        else:
            yield smt.disjunction([nulls, differ])
        if replaced is not None and encoder.new:
            yield encoder.condition(replaced, Row("row before")).is_true  # new rows come from rows that may be changed
            yield from lookups.replacing(encoder, replaced)
        if bounded:
            for value, row in zip(keys, rows, strict=True):
                yield smt.negation(smt.disjunction(lookups.holders(encoder, value, row.label)))
            return
        members = [_members(encoder, value, row) for value, row in zip(keys, rows, strict=True)]
        for here, one in members[0]:
            for there, other in members[1]:
                same = [here, there, smt.equal(one.value, other.value)] if one.kind == other.kind else [smt.FALSE]
                yield smt.negation(smt.conjunction(same))

    return refute(violation, session)


def _members(encoder: Encoder, key: Value, row: Row) -> list[tuple[Term, Value]]:
    found = list(lookups.users(encoder, key, row.label))
    for column in encoder.own if row.label not in encoder.new else ():
        user = encoder.column(column, row)
        found.append((smt.conjunction([key.is_known, user.is_known]), user))
    return found


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
    key: Key,
    session: Session,
    *,
    null_allowed: bool = False,
    empty_allowed: bool = False,
) -> Answer:
    """Whether no row fulfils the predicate; rows with a NULL key, or with an empty one or of an empty user, are left
    out if allowed."""

    def violation(encoder: Encoder) -> Iterable[Term]:
        row = Row("row 1")
        value = lookups.tenant(encoder, key, row)
        yield encoder.condition(predicate, row).is_true
        if null_allowed:
            yield smt.negation(value.null)
        if empty_allowed:
            others = [found for (label, _), found in encoder.columns.items() if label in encoder.relations]
            for one in (value, *others):
                if one.kind == "text":
                    yield smt.disjunction([one.null, smt.negation(smt.equal(one.value, encoder.text("")))])

    return refute(violation, session)


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


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    return value if value in ("true", "false") or _BARE.match(value) else f"'{value}'"


def _witness(encoder: Encoder, model: smt.Model) -> Witness:
    """Columns and settings of the model; every value is the solver's invention or a constant of a policy."""
    rows: dict[str, list[tuple[str, str | None]]] = {}
    for (label, _), value in sorted(encoder.columns.items(), key=lambda item: item[0]):
        if label.startswith("row") or _holds(model, _active(encoder, label)):
            name = value.value.name
            rows.setdefault(label, []).append((name.removeprefix(f"{label}."), _text(model, value.kind, name)))
    settings = sorted({n.removesuffix(" is null") for n in model.values if n.startswith("setting ")})
    return Witness(
        tuple((label, encoder.relations.get(label, 0), tuple(columns)) for label, columns in rows.items()),
        tuple((name.removeprefix("setting "), _text(model, "text", name)) for name in settings),
        encoder.state,
    )


def _active(encoder: Encoder, label: str) -> Term:
    return next((one.active for one in encoder.witnesses if label in dict(one.labels)), smt.FALSE)


def _holds(model: smt.Model, term: Term) -> bool:
    """The value of a term of AND, OR, NOT over variables."""
    match term.operator:
        case "and":
            return all(_holds(model, one) for one in term.arguments)
        case "or":
            return any(_holds(model, one) for one in term.arguments)
        case "not":
            return not _holds(model, term.arguments[0])
    return term is smt.TRUE or bool(model.values.get(term.name, False))


def _text(model: smt.Model, kind: str, name: str) -> str | None:
    """A value as the server would print it."""
    if model.values.get(f"{name} is null", False):
        return None
    found = model.values.get(name, 0)
    if kind == "boolean":
        return str(bool(found)).lower()
    if kind == "uuid":
        return str(UUID(int=found % 2**128))
    if kind == "integer":
        return str(found)
    text = number_text(found) if kind == "text" else None
    return _read_back(model, found) if text is None else text


def _read_back(model: smt.Model, number: int) -> str:
    """A text of which only is known what it reads as."""
    for type_name in ("uuid", "smallint", "integer", "bigint", "boolean"):
        kind = kind_of(type_name)
        valid, parsed = model.tables.get(f"valid {type_name}", {}), model.tables.get(f"parse {kind}", {})
        if valid.get(number, valid.get(None)) is True:
            value = parsed.get(number, parsed.get(None, 0))
            text = str(UUID(int=value % 2**128)) if kind == "uuid" else str(value).lower()
            printed = model.tables.get(f"print {kind}", {})
            # Another text than the one the value is printed as reads the same with a blank, or in braces.
            same = printed.get(int(value), printed.get(None, number)) == number
            return text if same else f" {text}" if kind == "integer" else f"{{{text}}}"
    return f"value {number}"
