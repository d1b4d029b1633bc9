"""Terms of three-valued logic over integers, and the few things wanted of the solver; nothing else touches it.

Terms are kept here and handed to the solver as SMT-LIB text: the library's own terms cost fifty times as much to make.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import z3

Sort = Literal["Bool", "Int"]

SolverError: type[Exception] = z3.Z3Exception
"""What the library raises for terms that do not fit together."""

MILLISECONDS = 2000
SEED = 7


class Term:
    """An operator, symbol or number of SMT-LIB, applied to terms.  One object is one term; equal ones may differ."""

    __slots__ = ("arguments", "name", "operator", "sort")

    def __init__(self, sort: Sort, operator: str, arguments: tuple[Term, ...] = (), name: str = "") -> None:
        self.sort, self.operator, self.arguments, self.name = sort, operator, arguments, name
        """``name`` makes the operator a variable or function of that name, any text."""


TRUE = Term("Bool", "true")
FALSE = Term("Bool", "false")


def conjunction(terms: Iterable[Term]) -> Term:
    kept: list[Term] = []
    for term in terms:
        if term is FALSE:
            return FALSE
        if term is not TRUE:
            kept.append(term)
    return TRUE if not kept else kept[0] if len(kept) == 1 else Term("Bool", "and", tuple(kept))


def disjunction(terms: Iterable[Term]) -> Term:
    kept: list[Term] = []
    for term in terms:
        if term is TRUE:
            return TRUE
        if term is not FALSE:
            kept.append(term)
    return FALSE if not kept else kept[0] if len(kept) == 1 else Term("Bool", "or", tuple(kept))


def negation(term: Term) -> Term:
    if term is TRUE:
        return FALSE
    if term is FALSE:
        return TRUE
    return term.arguments[0] if term.operator == "not" else Term("Bool", "not", (term,))


def implication(premise: Term, conclusion: Term) -> Term:
    return disjunction([negation(premise), conclusion])


def choice(condition: Term, then: Term, otherwise: Term) -> Term:
    if condition is TRUE or then is otherwise:
        return then
    if condition is FALSE:
        return otherwise
    return Term(then.sort, "ite", (condition, then, otherwise))


def equal(left: Term, right: Term) -> Term:
    return TRUE if left is right else Term("Bool", "=", (left, right))


def truth(name: str) -> Term:
    return Term("Bool", "", (), name)


def number(name: str) -> Term:
    return Term("Int", "", (), name)


def literal(value: int | bool) -> Term:
    if isinstance(value, bool):
        return TRUE if value else FALSE
    return Term("Int", str(value) if value >= 0 else f"(- {-value})")


def ordered(operator: str, left: Term, right: Term) -> Term:
    """``left operator right`` of integers, for ``<``, ``<=``, ``>``, ``>=``."""
    return Term("Bool", operator, (left, right))


def function(name: str, sort: Sort = "Int", *arguments: Term) -> Term:
    """What an uninterpreted function gives for the arguments."""
    return Term(sort, "", arguments, name)


@dataclass(frozen=True, slots=True)
class Model:
    """``holds`` False: no model.  None: the solver gave up.  ``values`` by variable name, as int or bool."""

    holds: bool | None
    values: Mapping[str, int | bool] = field(default_factory=dict)
    tables: Mapping[str, Mapping[int | None, int | bool]] = field(default_factory=dict)
    """Of functions of one number: argument → value, None for all other arguments."""


def solve(terms: Iterable[Term], milliseconds: int = MILLISECONDS) -> Model:
    """Whether all terms can hold at once, within the time given."""
    script = _Script()
    asserted = [script.told(term) for term in terms if term is not TRUE]
    if "false" in asserted:
        return Model(False)
    solver = z3.SolverFor("QF_UFLIA")
    solver.set("timeout", milliseconds)
    solver.set("random_seed", SEED)
    solver.from_string(script.whole(asserted))
    answer = solver.check()
    if answer == z3.unsat:
        return Model(False)
    if answer != z3.sat:
        return Model(None)
    model = solver.model()
    names = {symbol: key for key, symbol in script.symbols.items()}
    values: dict[str, int | bool] = {}
    tables: dict[str, dict[int | None, int | bool]] = {}
    for declared in model.decls():
        name, *sorts = names.get(declared.name(), ("",))
        if len(sorts) == 1 and (plain := _plain(model[declared])) is not None:
            values[name] = plain
        elif len(sorts) == 2:
            tables[name] = _table(model[declared])
    return Model(True, values, tables)


def _table(function: Any) -> dict[int | None, int | bool]:
    entries = [function.entry(number) for number in range(function.num_entries())]
    pairs = [(_plain(entry.arg_value(0)), _plain(entry.value())) for entry in entries]
    found: dict[int | None, int | bool] = {one: value for one, value in pairs if one is not None and value is not None}
    other = _plain(function.else_value())
    return found if other is None else {**found, None: other}


class _Script:
    """Declarations and definitions; each term is written out once."""

    def __init__(self) -> None:
        self.declared: list[str] = []
        self.defined: list[str] = []
        self.symbols: dict[tuple[str, ...], str] = {}
        self.written: dict[int, str] = {}
        self.kept: list[Term] = []

    def whole(self, asserted: list[str]) -> str:
        body = [*self.defined, "(and true ", *asserted, ")", ")" * len(self.defined)]
        return "\n".join([*self.declared, "(assert", *body, ")"])

    def told(self, term: Term) -> str:
        """The term as it is referred to."""
        known = self.written.get(id(term))
        if known is not None:
            return known
        operator = self._symbol(term) if term.name else term.operator
        if term.arguments:
            text = f"({operator} {' '.join([self.told(one) for one in term.arguments])})"
            operator = f"t{len(self.written)}"
            self.defined.append(f"(let (({operator} {text}))")
        self.written[id(term)] = operator
        self.kept.append(term)  # or its id could be given to another
        return operator

    def _symbol(self, term: Term) -> str:
        key = (term.name, *(one.sort for one in term.arguments), term.sort)
        if key not in self.symbols:
            self.symbols[key] = f"s{len(self.symbols)}"
            self.declared.append(f"(declare-fun {self.symbols[key]} ({' '.join(key[1:-1])}) {term.sort})")
        return self.symbols[key]


def _plain(term: Any) -> int | bool | None:
    if z3.is_int_value(term):
        value: int = term.as_long()
        return value
    if z3.is_true(term) or z3.is_false(term):
        return bool(z3.is_true(term))
    return None
