"""Terms of three-valued logic over integers, and what can be told of them without a solver.

Equal terms are one object as far as possible, and AND, OR and NOT simplify as they are made: most of what a policy says
folds away.  Nothing here rests on two terms being one object, only on what that saves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Sort = Literal["Bool", "Int"]

MOST_TERMS = 200_000
"""Terms that are remembered; after that many all are forgotten."""


class Term:
    """An operator, symbol or number of SMT-LIB, applied to terms."""

    __slots__ = ("_negated", "arguments", "name", "operator", "sort")

    def __init__(self, sort: Sort, operator: str, arguments: tuple[Term, ...] = (), name: str = "") -> None:
        self.sort, self.operator, self.arguments, self.name = sort, operator, arguments, name
        """``name`` makes the operator a variable or function of that name, any text."""
        self._negated: Term | None = None


_made: dict[tuple[str, str, tuple[Term, ...], str], Term] = {}


def _make(sort: Sort, operator: str, arguments: tuple[Term, ...] = (), name: str = "") -> Term:
    key = (sort, operator, arguments, name)
    found = _made.get(key)
    if found is None:
        if len(_made) > MOST_TERMS:
            _made.clear()
        found = _made[key] = Term(sort, operator, arguments, name)
    return found


TRUE = Term("Bool", "true")
FALSE = Term("Bool", "false")


def conjunction(terms: Iterable[Term]) -> Term:
    return _joined("and", "or", TRUE, FALSE, terms)


def disjunction(terms: Iterable[Term]) -> Term:
    return _joined("or", "and", FALSE, TRUE, terms)


def _joined(operator: str, dual: str, unit: Term, zero: Term, terms: Iterable[Term]) -> Term:
    """The terms under an operator: nested ones opened, and what follows from the others dropped."""
    kept: dict[Term, None] = {}
    duals = False
    for term in terms:
        if term is zero:
            return zero
        if term.operator == operator:
            kept.update(dict.fromkeys(term.arguments))
            duals = True
        elif term is not unit:
            kept[term] = None
            duals = duals or term.operator == dual
    if len(kept) < 2:
        return next(iter(kept), unit)
    for term in kept:
        if term._negated in kept:
            return zero
    if duals:
        for term in [one for one in kept if one.operator == dual]:
            if not kept.keys().isdisjoint(term.arguments):
                del kept[term]
                continue
            rest = [one for one in term.arguments if one._negated not in kept]
            if len(rest) < len(term.arguments):
                others = [one for one in kept if one is not term]
                return _joined(operator, dual, unit, zero, [*others, _joined(dual, operator, zero, unit, rest)])
    return next(iter(kept)) if len(kept) == 1 else _make("Bool", operator, tuple(kept))


def negation(term: Term) -> Term:
    if term._negated is None:
        term._negated = _negation(term)
        term._negated._negated = term
    return term._negated


def _negation(term: Term) -> Term:
    match term.operator:
        case "true":
            return FALSE
        case "false":
            return TRUE
        case "and":
            return disjunction([negation(one) for one in term.arguments])
        case "or":
            return conjunction([negation(one) for one in term.arguments])
    return _make("Bool", "not", (term,))


def implication(premise: Term, conclusion: Term) -> Term:
    return disjunction([negation(premise), conclusion])


def choice(condition: Term, then: Term, otherwise: Term) -> Term:
    if condition is TRUE or then is otherwise:
        return then
    if condition is FALSE:
        return otherwise
    if then.sort == "Bool":
        return conjunction([implication(condition, then), disjunction([condition, otherwise])])
    return _make(then.sort, "ite", (condition, then, otherwise))


def equal(left: Term, right: Term) -> Term:
    if left is right:
        return TRUE
    if left.sort == "Bool":
        return disjunction([conjunction([left, right]), conjunction([negation(left), negation(right)])])
    if is_literal(left):
        left, right = right, left
    if is_literal(left):
        return TRUE if left.operator == right.operator else FALSE
    swapped = _made.get(("Bool", "=", (right, left), ""))
    return swapped if swapped is not None else _make("Bool", "=", (left, right))


def truth(name: str) -> Term:
    return _make("Bool", "", (), name)


def number(name: str) -> Term:
    return _make("Int", "", (), name)


def literal(value: int | bool) -> Term:
    if isinstance(value, bool):
        return TRUE if value else FALSE
    return _make("Int", str(value) if value >= 0 else f"(- {-value})")


def is_literal(term: Term) -> bool:
    """Whether it is a number."""
    return term.sort == "Int" and not term.name and not term.arguments


def ordered(operator: str, left: Term, right: Term) -> Term:
    """``left operator right`` of integers, for ``<``, ``<=``, ``>``, ``>=``."""
    if is_literal(left) and is_literal(right):
        one, other = number_of(left), number_of(right)
        return literal({"<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other}[operator])
    return _make("Bool", operator, (left, right))


def number_of(term: Term) -> int:
    """The value of a literal."""
    return int(term.operator.strip("()").replace(" ", ""))


def function(name: str, sort: Sort = "Int", *arguments: Term) -> Term:
    """What an uninterpreted function gives for the arguments."""
    return _make(sort, "", arguments, name)


ROUNDS = 8


def settled(terms: Iterable[Term]) -> Term:
    """The conjunction, with all put in that its parts say by themselves; FALSE when it is plain that they contradict.

    It holds for the same values of all variables and functions.
    """
    whole = conjunction(terms)
    for _ in range(ROUNDS):
        before, parts = whole, whole.arguments if whole.operator == "and" else (whole,)
        known = _Known(parts)
        whole = FALSE if known.wrong else conjunction([known.put_into(part) for part in parts])
        if whole is before:
            break
    return whole


class _Known:
    """What the parts of a conjunction say by themselves: the truth of a term, or which variable or number it equals."""

    def __init__(self, parts: Iterable[Term]) -> None:
        self.wrong = False
        self.same: dict[Term, Term] = {}
        self.seen: dict[Term, Term] = {}
        for part in parts:
            if part.operator == "=":
                self._equate(*map(self._leader, part.arguments))
            elif part.operator == "not":
                self.seen[part.arguments[0]] = FALSE
            elif part.operator != "or":
                self.seen[part] = TRUE

    def _equate(self, left: Term, right: Term) -> None:
        if is_literal(left) or (right.arguments and not left.arguments):
            left, right = right, left
        self.wrong = self.wrong or equal(left, right) is FALSE
        if left is not right and not right.arguments:
            self.same[left] = right

    def _leader(self, term: Term) -> Term:
        while term in self.same:
            term = self.same[term]
        return term

    def put_into(self, part: Term) -> Term:
        """What else is known, put into a part.  What it says itself stays, or nothing would say it any more."""
        match part.operator:
            case "or":
                return self._everywhere(part)
            case "not":
                return negation(self._inside(part.arguments[0]))
            case "=":
                return equal(*map(self._inside, part.arguments))
        return self._inside(part)

    def _everywhere(self, term: Term) -> Term:
        found = self.seen.get(term)
        if found is None:
            rebuilt = self._inside(term)
            found = self.seen[term] = self._leader(self.seen.get(rebuilt, rebuilt))
        return found

    def _inside(self, term: Term) -> Term:
        """The term with what is known put into its operands."""
        if not term.arguments:
            return term
        operands = [self._everywhere(one) for one in term.arguments]
        match term.operator:
            case "and":
                return conjunction(operands)
            case "or":
                return disjunction(operands)
            case "not":
                return negation(operands[0])
            case "=":
                return equal(*operands)
            case "ite":
                return choice(*operands)
            case "":
                return function(term.name, term.sort, *operands)
        return ordered(term.operator, *operands)
