"""The few things wanted of the solver, typed; nothing else in the package touches it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import z3

Term: TypeAlias = Any
"""A solver expression; the library carries no types."""

SolverError: type[Exception] = z3.Z3Exception
"""What the library raises for terms that do not fit together."""

MILLISECONDS = 2000
SEED = 7

TRUE: Term = z3.BoolVal(True)
FALSE: Term = z3.BoolVal(False)


def conjunction(terms: Iterable[Term]) -> Term:
    return z3.And(*terms)


def disjunction(terms: Iterable[Term]) -> Term:
    return z3.Or(*terms)


def negation(term: Term) -> Term:
    return z3.Not(term)


def implication(premise: Term, conclusion: Term) -> Term:
    return z3.Implies(premise, conclusion)


def choice(condition: Term, then: Term, otherwise: Term) -> Term:
    return z3.If(condition, then, otherwise)


def equal(left: Term, right: Term) -> Term:
    return left == right


def truth(name: str) -> Term:
    return z3.Bool(name)


def number(name: str) -> Term:
    return z3.Int(name)


def literal(value: int | bool) -> Term:
    return z3.BoolVal(value) if isinstance(value, bool) else z3.IntVal(value)


def ordered(operator: str, left: Term, right: Term) -> Term:
    """``left operator right`` of integers, for ``<``, ``<=``, ``>``, ``>=``."""
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator]


def function(name: str, *, to_truth: bool = False) -> Term:
    """An uninterpreted function of one number."""
    return z3.Function(name, z3.IntSort(), z3.BoolSort() if to_truth else z3.IntSort())


@dataclass(frozen=True, slots=True)
class Model:
    """``holds`` False: no model.  None: the solver gave up.  ``values`` by variable name, as int or bool."""

    holds: bool | None
    values: Mapping[str, int | bool] = field(default_factory=dict)


def solve(terms: Iterable[Term], milliseconds: int = MILLISECONDS) -> Model:
    """Whether all terms can hold at once, within the time given."""
    solver = z3.SolverFor("QF_UFLIA")
    solver.set("timeout", milliseconds)
    solver.set("random_seed", SEED)
    solver.add(*terms)
    answer = solver.check()
    if answer == z3.unsat:
        return Model(False)
    if answer != z3.sat:
        return Model(None)
    model = solver.model()
    values = {d.name(): _plain(model[d]) for d in model.decls() if d.arity() == 0}
    return Model(True, {name: value for name, value in values.items() if value is not None})


def _plain(term: Term) -> int | bool | None:
    if z3.is_int_value(term):
        value: int = term.as_long()
        return value
    if z3.is_true(term) or z3.is_false(term):
        return bool(z3.is_true(term))
    return None
