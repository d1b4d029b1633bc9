"""AND, OR, NOT, tests and choices between values, each as the server evaluates it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rlsaudit.catalog import expression as e
from rlsaudit.prove import smt
from rlsaudit.prove.smt import FALSE, Term
from rlsaudit.prove.values import Row, Value

if TYPE_CHECKING:
    from rlsaudit.prove.encode import Encoder


def distinct(encoder: Encoder, distinct: e.Distinct, row: Row) -> Value:
    left, right = encoder.encode(distinct.left, row), encoder.encode(distinct.right, row)
    if not distinct.exact or left.kind != right.kind:
        return encoder.unknown("IS DISTINCT FROM", "boolean", [left, right])
    differ = smt.negation(smt.equal(left.value, right.value))
    value = smt.choice(left.null, smt.negation(right.null), smt.disjunction([right.null, differ]))
    return Value(smt.disjunction([left.error, right.error]), FALSE, value, "boolean")


def conjunction(encoder: Encoder, conjunction: e.And, row: Row) -> Value:
    return _and([encoder.condition(argument, row) for argument in conjunction.arguments])


def disjunction(encoder: Encoder, disjunction: e.Or, row: Row) -> Value:
    return _or([encoder.condition(argument, row) for argument in disjunction.arguments])


def negation(encoder: Encoder, negation: e.Not, row: Row) -> Value:
    return _not(encoder.condition(negation.argument, row))


def null_test(encoder: Encoder, test: e.NullTest, row: Row) -> Value:
    value = encoder.encode(test.argument, row)
    return Value(value.error, FALSE, value.null if test.is_null else smt.negation(value.null), "boolean")


def boolean_test(encoder: Encoder, test: e.BooleanTest, row: Row) -> Value:
    value = encoder.condition(test.argument, row)
    result = {None: value.null, True: value.is_true, False: value.is_false}[test.value]
    return Value(value.error, FALSE, smt.negation(result) if test.negated else result, "boolean")


def _chosen(encoder: Encoder, condition: Term, then: Value, otherwise: Value) -> Value:
    if then.kind != otherwise.kind:
        return encoder.unknown("values of several types", then.kind)
    return Value(
        smt.choice(condition, then.error, otherwise.error),
        smt.choice(condition, then.null, otherwise.null),
        smt.choice(condition, then.value, otherwise.value),
        then.kind,
    )


def coalesce(encoder: Encoder, coalesce: e.Coalesce, row: Row) -> Value:
    *values, result = encoder.all(coalesce.arguments, row)
    for value in reversed(values):
        result = _chosen(encoder, value.is_null, result, value)
    return result


def null_if(encoder: Encoder, null_if: e.NullIf, row: Row) -> Value:
    left, right = encoder.encode(null_if.left, row), encoder.encode(null_if.right, row)
    if not null_if.exact or left.kind != right.kind:
        unknown = encoder.unknown("NULLIF", left.kind, [left, right])
        return replace(unknown, null=smt.disjunction([unknown.null, left.null]))
    same = smt.conjunction([smt.negation(right.null), smt.equal(left.value, right.value)])
    # The planner takes a NULL on the left for the result and never looks at the right.
    error = smt.disjunction([left.error, smt.conjunction([right.error, smt.negation(left.null)])])
    return Value(error, smt.disjunction([left.null, same]), left.value, left.kind)


def case(encoder: Encoder, case: e.Case, row: Row) -> Value:
    result = encoder.encode(case.default, row)
    for condition, then in reversed(case.branches):
        tested = encoder.condition(condition, row)
        result = _chosen(encoder, tested.is_true, encoder.encode(then, row), result)
        result = replace(result, error=smt.disjunction([tested.error, result.error]))
    return result


def in_list(encoder: Encoder, in_list: e.InList, row: Row) -> Value:
    operand = encoder.encode(in_list.operand, row)
    items = encoder.all(in_list.items, row)
    found = [encoder.compared(in_list.operator, operand, item, in_list.exact) for item in items]
    return _or(found) if in_list.any else _and(found)


def _and(values: list[Value]) -> Value:
    false = smt.disjunction(v.is_false for v in values)
    error = smt.conjunction([smt.negation(false), smt.disjunction(v.error for v in values)])
    null = smt.conjunction([smt.negation(false), smt.disjunction(v.is_null for v in values)])
    return Value(error, null, smt.negation(false), "boolean")


def _or(values: list[Value]) -> Value:
    return _not(_and([_not(value) for value in values]))


def _not(value: Value) -> Value:
    return Value(value.error, value.null, smt.negation(value.value), "boolean")
