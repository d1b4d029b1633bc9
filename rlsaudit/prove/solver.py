"""The few things wanted of the solver; nothing else touches it.

Terms are handed to it as SMT-LIB text: the library's own terms cost fifty times as much to make.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import z3

from rlsaudit.prove import smt
from rlsaudit.prove.smt import Term

SolverError: type[Exception] = z3.Z3Exception
"""What the library raises for terms that do not fit together."""

MILLISECONDS = 5000
"""For all that one question needs, processor time: a busy machine must not change verdicts."""

SEED = 7
_QUICK = 500_000
"""Steps, a fraction of a second: watching the clock costs more than most questions."""


@dataclass(frozen=True, slots=True)
class Model:
    """``values`` by variable name, as int or bool."""

    values: Mapping[str, int | bool] = field(default_factory=dict)
    tables: Mapping[str, Mapping[int | None, int | bool]] = field(default_factory=dict)
    """Of functions of one number: argument → value, None for all other arguments."""


@dataclass(frozen=True, slots=True)
class Solved:
    holds: bool | None
    """False: the terms contradict.  None: the solver gave up."""
    read: Callable[[], Model] = Model
    """One model of them, when they do hold."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The time that is left for a question."""

    limit: int = MILLISECONDS
    begun: float = field(default_factory=time.process_time)

    @property
    def spent(self) -> int:
        return round(1000 * (time.process_time() - self.begun))

    @property
    def over(self) -> str:
        return f"what the time limit left undecided ({self.spent:,} of {self.limit:,} ms spent)"


def solve(terms: Iterable[Term], clock: Clock) -> Solved:
    """Whether all terms can hold at once, within the time that is left."""
    if clock.spent >= clock.limit:
        return Solved(None)
    whole = smt.settled(terms)
    if whole is smt.FALSE:
        return Solved(False)
    script, solver = _Script(), z3.SimpleSolver()
    solver.set("random_seed", SEED)
    solver.from_string(script.whole(whole))
    solver.set("rlimit", _QUICK)
    answer = solver.check()
    if answer == z3.unknown and clock.spent < clock.limit:
        solver.set("rlimit", 0)
        solver.set("timeout", clock.limit - clock.spent)
        answer = solver.check()
    if answer == z3.sat:
        return Solved(True, lambda: script.read(solver.model()))
    return Solved(False if answer == z3.unsat else None)


class _Script:
    """Declarations and definitions; each term is written out once."""

    def __init__(self) -> None:
        self.declared: list[str] = []
        self.defined: list[str] = []
        self.symbols: dict[tuple[str, ...], str] = {}
        self.written: dict[Term, str] = {}

    def whole(self, term: Term) -> str:
        parts = term.arguments if term.operator == "and" else (term,)
        asserted = [self.told(part) for part in parts]
        body = [*self.defined, "(and true", *asserted, ")", ")" * len(self.defined)]
        return "\n".join([*self.declared, "(assert", *body, ")"])

    def told(self, term: Term) -> str:
        """The term as it is referred to."""
        known = self.written.get(term)
        if known is not None:
            return known
        operator = self._symbol(term) if term.name else term.operator
        if term.arguments:
            text = f"({operator} {' '.join([self.told(one) for one in term.arguments])})"
            operator = f"t{len(self.written)}"
            self.defined.append(f"(let (({operator} {text}))")
        self.written[term] = operator
        return operator

    def _symbol(self, term: Term) -> str:
        key = (term.name, *(one.sort for one in term.arguments), term.sort)
        if key not in self.symbols:
            self.symbols[key] = f"s{len(self.symbols)}"
            self.declared.append(f"(declare-fun {self.symbols[key]} ({' '.join(key[1:-1])}) {term.sort})")
        return self.symbols[key]

    def read(self, model: Any) -> Model:
        names = {symbol: key for key, symbol in self.symbols.items()}
        values: dict[str, int | bool] = {}
        tables: dict[str, dict[int | None, int | bool]] = {}
        for declared in model.decls():
            name, *sorts = names.get(declared.name(), ("",))
            if len(sorts) == 1 and (plain := _plain(model[declared])) is not None:
                values[name] = plain
            elif len(sorts) == 2:
                tables[name] = _table(model[declared])
        return Model(values, tables)


def _table(function: Any) -> dict[int | None, int | bool]:
    entries = [function.entry(number) for number in range(function.num_entries())]
    pairs = [(_plain(entry.arg_value(0)), _plain(entry.value())) for entry in entries]
    found: dict[int | None, int | bool] = {one: value for one, value in pairs if one is not None and value is not None}
    other = _plain(function.else_value())
    return found if other is None else {**found, None: other}


def _plain(term: Any) -> int | bool | None:
    if z3.is_int_value(term):
        value: int = term.as_long()
        return value
    if z3.is_true(term) or z3.is_false(term):
        return bool(z3.is_true(term))
    return None
