"""Built-in functions and operators: the same for the same operands, known for samples; and lists that a session holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, walk
from rlsaudit.prove import samples, smt
from rlsaudit.prove.samples import Sample
from rlsaudit.prove.smt import FALSE, Term
from rlsaudit.prove.values import Row, Value, number_text, sort_of

if TYPE_CHECKING:
    from rlsaudit.prove.encode import Encoder

MODELLED = frozenset({"integer", "text", "boolean", "uuid"})
"""Kinds whose equal values are the same value: no function can tell them apart."""

_EMPTY = (None, "", "{}", "[]")


def applied(encoder: Encoder, name: str, key: str, why: str, operands: list[Value], kind: str) -> Value:
    """What a strict, immutable built-in gives; ``key`` names it among all others."""
    if not operands or any(one.kind not in MODELLED for one in operands):
        return encoder.unknown(why, kind, operands, strict=True)
    encoder.unknowns[why] = None
    arguments = [one.value for one in operands]
    value = smt.function(key, sort_of(kind), *arguments)
    if encoder.opaque == "any":
        nothing = smt.function(f"{key} is null", "Bool", *arguments)
        found = encoder.strict(operands, value, kind)
        return Value(found.error, smt.disjunction([found.null, nothing]), value, kind)
    known = list(_samples(encoder, name, key, operands, kind)) if encoder.samples else []
    found = encoder.strict(operands, value, kind)
    beyond = smt.conjunction([smt.negation(found.null), smt.negation(smt.disjunction(known))])
    return Value(smt.disjunction([found.error, beyond]), found.null, value, kind)


def _samples(encoder: Encoder, name: str, key: str, operands: list[Value], kind: str) -> Iterator[Term]:
    """The conditions under which the operands are a sample, with what is given for them made known."""
    results: dict[Sample, None] = {}
    tried = [_candidates(encoder, one, operands) for one in operands]
    for chosen, result in samples.outcomes(name, tried):
        numbers = [_term(encoder, one) for one in chosen]
        same = smt.conjunction(smt.equal(one.value, number) for one, number in zip(operands, numbers, strict=True))
        if same is FALSE:
            continue
        there = smt.function(key, sort_of(kind), *numbers)
        if kind == "boolean":
            encoder.constraints.append(there if result in (True, "true") else smt.negation(there))
        else:
            content = int(result) if kind == "integer" else str(result)
            results[content] = None
            encoder.constraints.append(smt.equal(there, _term(encoder, content)))
        yield same
    value = smt.function(key, sort_of(kind), *(one.value for one in operands))
    encoder.candidates[value] = tuple(results)


def _candidates(encoder: Encoder, operand: Value, beside: list[Value]) -> tuple[Sample, ...]:
    if operand.value in encoder.candidates:
        return encoder.candidates[operand.value]
    if smt.is_literal(operand.value):
        number = smt.number_of(operand.value)
        content = number_text(number) if operand.kind == "text" else number
        return () if content is None else (content,)
    if operand.kind == "text":
        return samples.texts(list(encoder.texts))
    if operand.kind != "integer":
        return ()
    steps = [smt.number_of(one.value) for one in beside if one.kind == "integer" and smt.is_literal(one.value)]
    return (*samples.NUMBERS, *(number + step for step in steps for number in samples.NUMBERS[:2]))


def _term(encoder: Encoder, content: Sample) -> Term:
    return encoder.text(content) if isinstance(content, str) else smt.literal(content)


def printed(encoder: Encoder, kind: str, term: Term) -> None:
    """What some numbers and uuids are as text."""
    shown = {n: str(n) for n in samples.NUMBERS} if kind == "integer" else {n: _uuid(n) for n in samples.UUIDS}
    for number, text in shown.items():
        there = smt.function(f"print {kind}", "Int", smt.literal(number))
        encoder.constraints.append(smt.equal(there, encoder.text(text)))
    encoder.candidates[term] = tuple(shown.values())


def _uuid(number: int) -> str:
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def is_list(expression: Expression) -> bool:
    """Whether it is a list that the session itself holds in a setting, with nothing added by the policy."""
    match expression:
        case e.Setting():
            return "." in expression.name
        case e.Cast():
            return is_list(expression.argument)
        case e.NullIf():
            return is_list(expression.left) and isinstance(expression.right, e.Constant)
        case e.Coalesce():
            return all(is_list(one) or _is_empty(one) for one in expression.arguments)
        case e.Json():
            return is_list(expression.document) and isinstance(expression.key, e.Constant)
        case e.Call() if expression.inlined is not None:
            return expression.volatility == "stable" and is_list(expression.inlined)
        case e.Call():
            first, *others = expression.arguments or (expression,)
            split = expression.name == "string_to_array" and not expression.user
            return split and is_list(first) and all(isinstance(one, e.Constant) for one in others)
        case e.Subquery():
            bare = expression.kind == "scalar" and expression.plain and not expression.relations
            return (
                bare and expression.condition is None and expression.target is not None and is_list(expression.target)
            )
    return False


def _is_empty(expression: Expression) -> bool:
    while isinstance(expression, e.Cast):
        expression = expression.argument
    return isinstance(expression, e.Constant) and expression.value in _EMPTY


def lists_in(expression: Expression) -> Iterator[Expression]:
    """The lists of the session that something is looked for in."""
    for part in walk(expression):
        if isinstance(part, e.AnyArray) and part.any and part.exact and part.operator == "=" and is_list(part.array):
            yield part.array
        elif isinstance(part, e.Compare) and part.operator == "?" and is_list(part.left):
            yield part.left


def listed(encoder: Encoder, expression: Expression, whole: Value, operand: Value, row: Row) -> Value:
    """Whether the session's list has the operand among its elements."""
    why = "the elements of a list in a setting"
    kind = encoder.lists.setdefault(expression, operand.kind)
    if encoder.opaque == "error" or kind != operand.kind or kind not in MODELLED:
        return encoder.unknown(why, "boolean", [whole], strict=True)
    encoder.unknowns[why] = None
    name = f"in list {list(encoder.lists).index(expression)}"
    has = smt.function(name, "Bool", operand.value)
    split = _split(expression)
    if split is not None:  # nothing split is an empty list
        text = encoder.encode(split, row)
        has = smt.conjunction([has, smt.negation(smt.equal(text.value, encoder.text("")))])
    # NULL is not in an empty list, and perhaps in any other; with a NULL in the list everything perhaps is.
    has = smt.conjunction([has, smt.negation(operand.null)])
    found = encoder.strict([whole], has, "boolean")
    error = smt.disjunction([found.error, smt.conjunction([smt.negation(found.null), operand.error])])
    perhaps = smt.conjunction([operand.is_null, encoder.fresh("boolean")])
    nothing = smt.function(f"{name} is null", "Bool", operand.value)
    return Value(error, smt.disjunction([found.null, perhaps, nothing]), found.value, "boolean")


def _split(expression: Expression) -> Expression | None:
    """The text that a list is split from."""
    while isinstance(expression, e.Cast):
        expression = expression.argument
    return expression.arguments[0] if isinstance(expression, e.Call) and expression.name == "string_to_array" else None


def together(encoder: Encoder, keys: list[Value]) -> Iterator[Term]:
    """Ways in which one list of the session has all the keys, as they are or as text."""
    for number, kind in enumerate(encoder.lists.values()):
        has = [
            smt.function(f"in list {number}", "Bool", key.value if key.kind == kind else _as_text(key))
            for key in keys
            if key.kind == kind or (kind == "text" and key.kind in ("integer", "uuid"))
        ]
        if len(has) == len(keys):
            yield smt.conjunction([*has, *(key.is_known for key in keys)])


def _as_text(key: Value) -> Term:
    return smt.function(f"print {key.kind}", "Int", key.value)
