"""What makes a predicate true: the ways through its ORs, also with settings missing.

Three-valued and without a solver, for checks.  Errs on the side of more ways: a way that cannot really happen may be
listed, one that can is never left out (``ways`` gives None instead).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import TypeAlias

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.simplify import FALSE, RAISES, TRUE, State, simplify

Truth: TypeAlias = bool | None

MOST_WAYS = 256


@dataclass(frozen=True, slots=True)
class Condition:
    """``atom`` has this truth value; an atom is a part that is no AND, OR, NOT or CASE."""

    atom: Expression
    value: Truth


Way: TypeAlias = frozenset[Condition]
"""Conditions that all hold; the empty way holds always."""


@lru_cache(maxsize=65536)
def ways(predicate: Expression, value: Truth = True, state: State = "any") -> tuple[Way, ...] | None:
    """Every way in which the predicate can have ``value``, settings in ``state``; None when there are too many.

    ``1 = 1 OR tenant_id = 3`` has one way, the empty one; ``false`` has none.
    """
    try:
        found = tuple(dict.fromkeys(_ways(simplify(predicate, state), value)))
    except _TooManyError:
        return None
    return (frozenset(),) if frozenset() in found else found


class _TooManyError(Exception):
    pass


def _ways(part: Expression, value: Truth) -> list[Way]:
    """Ways in which an already simplified expression has the value."""
    if part == RAISES:
        return []
    if isinstance(part, e.Constant):
        return [frozenset()] if part.value == {True: "true", False: "false", None: None}[value] else []
    handler = _WAYS.get(type(part))
    found = handler(part, value) if handler is not None else None
    return [frozenset({Condition(part, value)})] if found is None else found


def _both(*alternatives: list[Way]) -> list[Way]:
    """All combinations, one from each."""
    count = 1
    for one in alternatives:
        count *= len(one)
    if count > MOST_WAYS:
        raise _TooManyError
    return [frozenset[Condition]().union(*chosen) for chosen in product(*alternatives)]


def _either(*alternatives: list[Way]) -> list[Way]:
    found = [way for one in alternatives for way in one]
    if len(found) > MOST_WAYS:
        raise _TooManyError
    return found


def _and(part: Expression, value: Truth) -> list[Way] | None:
    assert isinstance(part, e.And)
    if value is True:
        return _both(*(_ways(a, True) for a in part.arguments))
    if value is False:
        return _either(*(_ways(a, False) for a in part.arguments))
    return _either(*(_ways(a, None) for a in part.arguments))


def _or(part: Expression, value: Truth) -> list[Way] | None:
    assert isinstance(part, e.Or)
    if value is False:
        return _both(*(_ways(a, False) for a in part.arguments))
    return _either(*(_ways(a, value) for a in part.arguments))


def _not(part: Expression, value: Truth) -> list[Way] | None:
    assert isinstance(part, e.Not)
    return _ways(part.argument, None if value is None else not value)


def _null_test(part: Expression, value: Truth) -> list[Way] | None:
    assert isinstance(part, e.NullTest)
    if value is None:
        return []
    if part.is_null != value:
        return [frozenset({Condition(e.NullTest(part.argument, False), True)})]
    if part.argument.type == "boolean":
        return _ways(part.argument, None)
    if isinstance(part.argument, e.Column) and part.argument.not_null and part.argument.level == 0:
        return []
    return [frozenset({Condition(e.NullTest(part.argument, True), True)})]


def _boolean_test(part: Expression, value: Truth) -> list[Way] | None:
    assert isinstance(part, e.BooleanTest)
    if value is None:
        return []
    wanted: tuple[Truth, ...] = (part.value,)
    if part.negated == value:
        wanted = tuple(one for one in (True, False, None) if one is not part.value)
    return _either(*(_ways(part.argument, one) for one in wanted))


def _case(part: Expression, value: Truth) -> list[Way] | None:
    assert isinstance(part, e.Case)
    found: list[Way] = []
    before: list[Way] = [frozenset()]
    for condition, result in part.branches:
        found = _either(found, _both(before, _ways(condition, True), _ways(result, value)))
        before = _both(before, _either(_ways(condition, False), _ways(condition, None)))
    return _either(found, _both(before, _ways(part.default, value)))


def _coalesce(part: Expression, value: Truth) -> list[Way] | None:
    assert isinstance(part, e.Coalesce)
    found: list[Way] = []
    before: list[Way] = [frozenset()]
    for argument in part.arguments:
        if value is not None:
            found = _either(found, _both(before, _ways(argument, value)))
        before = _both(before, _ways(argument, None))
    return found if value is not None else before


def _compare(part: Expression, value: Truth) -> list[Way] | None:
    assert isinstance(part, e.Compare)
    if part.exact and part.operator in ("=", "<>") and value is not None:
        same = (part.operator == "=") == value
        for side, other in ((part.left, part.right), (part.right, part.left)):
            if other in (TRUE, FALSE) and side.type == "boolean":
                return _ways(side, (other == TRUE) == same)
        if part.left.type == "boolean" and (type(part.left) in _WAYS or type(part.right) in _WAYS):
            alike = ((True, True), (False, False)) if same else ((True, False), (False, True))
            return _either(*(_both(_ways(part.left, one), _ways(part.right, other)) for one, other in alike))
        return [frozenset({Condition(replace(part, operator="=" if same else "<>"), True)})]
    return None


def _distinct(part: Expression, value: Truth) -> list[Way] | None:
    assert isinstance(part, e.Distinct)
    return [] if value is None else None


def _in_list(part: Expression, value: Truth) -> list[Way] | None:
    """One way for each item that depends on the row or the session; a list of constants stays together."""
    assert isinstance(part, e.InList)
    if value is None or not part.any or value is False or all(isinstance(i, e.Constant) for i in part.items):
        return None
    return _either(*(_ways(_comparison(part, item), True) for item in part.items))


def _comparison(part: e.InList, item: Expression) -> Expression:
    return e.Compare(part.operator, part.operand, item, part.exact)


_WAYS: Mapping[type, Callable[[Expression, Truth], list[Way] | None]] = {
    e.And: _and,
    e.Or: _or,
    e.Not: _not,
    e.NullTest: _null_test,
    e.BooleanTest: _boolean_test,
    e.Case: _case,
    e.Coalesce: _coalesce,
    e.Compare: _compare,
    e.Distinct: _distinct,
    e.InList: _in_list,
}
