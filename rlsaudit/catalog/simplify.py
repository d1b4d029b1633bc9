"""Partial evaluation of predicates: constants folded, function bodies put in, settings missing.

Without a solver, for checks.  What cannot be evaluated stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Literal
from uuid import UUID

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.folding import TEXT_FUNCTIONS, matched

State = Literal["any", "null", "empty"]
"""What is known of the settings that an application makes up (their names have a dot): nothing, all missing, all ''."""

TRUE = e.Constant("true", "boolean")
FALSE = e.Constant("false", "boolean")
UNKNOWN = e.Constant(None, "boolean")
RAISES = e.Opaque("raises an error", volatile=False)
"""Stands for an evaluation that ends the statement: no row passes."""

_INTEGERS = ("smallint", "integer", "bigint", "oid")
_TEXTS = ("text", "character varying", "name")


@lru_cache(maxsize=65536)
def simplify(part: Expression, state: State = "any") -> Expression:
    """The expression with constants folded, function bodies put in and the settings of ``state`` known."""
    handler = _SIMPLER.get(type(part))
    return part if handler is None else handler(part, state)


def _all(parts: tuple[Expression, ...], state: State) -> tuple[Expression, ...]:
    return tuple(simplify(part, state) for part in parts)


def _is_null(part: Expression) -> bool:
    return isinstance(part, e.Constant) and part.value is None


def _known(part: Expression) -> str | None:
    return part.value if isinstance(part, e.Constant) else None


def _s_setting(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.Setting)
    if state == "any" or "." not in part.name:
        return part
    if state == "empty":
        return e.Constant("", "text")
    return e.Constant(None, "text") if part.missing_ok else RAISES


def _s_cast(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.Cast)
    inner = simplify(part.argument, state)
    if inner == RAISES:
        return RAISES
    if isinstance(inner, e.Constant) and inner.type in (*_TEXTS, *_INTEGERS, "uuid", "boolean"):
        return _converted(inner, part.type)
    return replace(part, argument=inner)


def _converted(value: e.Constant, target: str) -> Expression:
    """A constant in another type; RAISES for what is no value of it."""
    if value.value is None or target == value.type or target in _TEXTS:
        return e.Constant(value.value, target)
    text = value.value.strip()
    try:
        if target in _INTEGERS:
            return e.Constant(str(int(text)), target)
        if target == "uuid":
            return e.Constant(str(UUID(text)), target)
    except ValueError:
        return RAISES
    if target == "boolean":
        word = text.lower()
        if word in ("t", "true", "on", "yes", "1"):
            return TRUE
        return FALSE if word in ("f", "false", "off", "no", "0") else RAISES if not word else e.Cast(value, target)
    if (
        not text
        and not target.endswith("[]")
        and target in ("numeric", "json", "jsonb", "real", "double precision", "date")
    ):
        return RAISES
    return e.Cast(value, target)


def _s_compare(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.Compare)
    left, right = simplify(part.left, state), simplify(part.right, state)
    if RAISES in (left, right):
        return RAISES
    if part.strict and (_is_null(left) or _is_null(right)):
        return UNKNOWN
    decided = _compared(part.operator, left, right) if part.exact or part.operator not in ("=", "<>") else None
    if decided is None and part.strict and not part.exact:
        decided = _matched(part.operator, left, right)
    if decided is not None:
        return TRUE if decided else FALSE
    if left == right and not e.is_volatile(left) and part.strict and part.exact and part.operator == "=":
        return e.Or((e.NullTest(left, False), UNKNOWN))  # true for all but NULL
    return replace(part, left=left, right=right)


def _compared(operator: str, left: Expression, right: Expression) -> bool | None:
    if not isinstance(left, e.Constant) or not isinstance(right, e.Constant):
        return None
    if left.value is None or right.value is None:
        return None
    if left.type in _INTEGERS and right.type in _INTEGERS:
        a, b = int(left.value), int(right.value)
        return {"=": a == b, "<>": a != b, "<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b}.get(operator)
    alike = left.type == right.type or (left.type in _TEXTS and right.type in _TEXTS)
    if alike and left.type in (*_TEXTS, "uuid", "boolean"):
        return {"=": left.value == right.value, "<>": left.value != right.value}.get(operator)
    return None


def _matched(operator: str, left: Expression, right: Expression) -> bool | None:
    text, pattern = _text(left), _text(right)
    return None if text is None or pattern is None else matched(operator, text, pattern)


def _text(part: Expression) -> str | None:
    return part.value if isinstance(part, e.Constant) and part.type in _TEXTS else None


def _s_distinct(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.Distinct)
    left, right = simplify(part.left, state), simplify(part.right, state)
    if RAISES in (left, right):
        return RAISES
    if _is_null(right):
        return simplify(e.NullTest(left, False), state)
    if _is_null(left):
        return simplify(e.NullTest(right, False), state)
    decided = _compared("<>", left, right)
    if decided is not None:
        return TRUE if decided else FALSE
    if left == right and not e.is_volatile(left):
        return FALSE
    return replace(part, left=left, right=right)


def _s_and(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.And)
    parts = [one for one in _all(part.arguments, state) if one != TRUE]
    if FALSE in parts:
        return FALSE
    if RAISES in parts:
        return RAISES
    return TRUE if not parts else parts[0] if len(parts) == 1 else e.And(tuple(parts))


def _s_or(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.Or)
    parts = [one for one in _all(part.arguments, state) if one != FALSE]
    if TRUE in parts:
        return TRUE
    return FALSE if not parts else parts[0] if len(parts) == 1 else e.Or(tuple(parts))


def _s_not(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.Not)
    inner = simplify(part.argument, state)
    if inner == RAISES or _is_null(inner):
        return inner
    return FALSE if inner == TRUE else TRUE if inner == FALSE else e.Not(inner)


def _s_null_test(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.NullTest)
    inner = simplify(part.argument, state)
    if inner == RAISES:
        return RAISES
    if isinstance(inner, e.Constant):
        return TRUE if (inner.value is None) == part.is_null else FALSE
    if isinstance(inner, e.Column) and inner.not_null and inner.level == 0 and part.is_null:
        return FALSE
    return replace(part, argument=inner)


def _s_boolean_test(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.BooleanTest)
    inner = simplify(part.argument, state)
    if inner == RAISES:
        return RAISES
    if isinstance(inner, e.Constant):
        value = None if inner.value is None else inner.value == "true"
        return TRUE if (value is part.value) != part.negated else FALSE
    return replace(part, argument=inner)


def _s_coalesce(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.Coalesce)
    parts: list[Expression] = []
    for one in _all(part.arguments, state):
        if one == RAISES and not parts:
            return RAISES
        if _is_null(one):
            continue
        parts.append(one)
        if isinstance(one, e.Constant):
            break
    if not parts:
        return e.Constant(None, part.type)
    return parts[0] if len(parts) == 1 else replace(part, arguments=tuple(parts))


def _s_null_if(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.NullIf)
    left, right = simplify(part.left, state), simplify(part.right, state)
    if RAISES in (left, right):
        return RAISES
    if _is_null(left) or _is_null(right):
        return left
    same = _compared("=", left, right)
    if same is not None:
        return e.Constant(None, part.type) if same else left
    return replace(part, left=left, right=right)


def _s_case(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.Case)
    branches: list[tuple[Expression, Expression]] = []
    for condition, result in part.branches:
        found = simplify(condition, state)
        if found == RAISES and not branches:
            return RAISES
        if found == FALSE or _is_null(found):
            continue
        if found == TRUE:
            return _cases(branches, simplify(result, state), part)
        branches.append((found, simplify(result, state)))
    return _cases(branches, simplify(part.default, state), part)


def _cases(branches: list[tuple[Expression, Expression]], default: Expression, part: e.Case) -> Expression:
    return replace(part, branches=tuple(branches), default=default) if branches else default


def _s_in_list(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.InList)
    operand, items = simplify(part.operand, state), _all(part.items, state)
    if operand == RAISES:
        return RAISES
    if _is_null(operand):
        return UNKNOWN
    if part.any and part.operator == "=" and part.exact:
        if any(_compared("=", operand, item) for item in items):
            return TRUE
        items = tuple(i for i in items if i != RAISES and not _is_null(i) and _compared("=", operand, i) is None)
        if not items:
            return UNKNOWN
    return replace(part, operand=operand, items=items)


def _s_any_array(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.AnyArray)
    operand, array = simplify(part.operand, state), simplify(part.array, state)
    if RAISES in (operand, array):
        return RAISES
    if _is_null(operand) or _is_null(array):
        return UNKNOWN
    return replace(part, operand=operand, array=array)


def _s_json(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.Json)
    document, key = simplify(part.document, state), simplify(part.key, state)
    if RAISES in (document, key):
        return RAISES
    if _is_null(document) or _is_null(key):
        return e.Constant(None, part.type)
    found = _looked_up(document, key, part)
    return replace(part, document=document, key=key) if found is None else found


def _looked_up(document: Expression, key: Expression, part: e.Json) -> Expression | None:
    """What a constant document has under a key; None when that cannot be told."""
    if not isinstance(document, e.Cast) or not isinstance(text := document.argument, e.Constant):
        return None
    try:
        tree = json.loads(text.value or "")
    except ValueError:
        return RAISES
    if tree in ({}, []):
        return e.Constant(None, part.type)
    name = _known(key)
    if part.operator not in ("->", "->>") or not isinstance(tree, dict) or name is None or key.type not in _TEXTS:
        return None
    value = tree.get(name)
    if value is None:
        return e.Constant(None, part.type) if part.operator == "->>" or name not in tree else None
    if part.operator == "->":
        return e.Cast(e.Constant(json.dumps(value), "text"), part.type)
    return e.Constant(value, "text") if isinstance(value, str) else None


def _s_call(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.Call)
    if part.inlined is not None:
        return simplify(part.inlined, state)
    arguments = _all(part.arguments, state)
    if RAISES in arguments:
        return RAISES
    if part.strict and any(_is_null(argument) for argument in arguments):
        return e.Constant(None, part.type)
    value = _folded(part, arguments)
    return replace(part, arguments=arguments) if value is None else e.Constant(value, part.type)


def _folded(part: e.Call, arguments: tuple[Expression, ...]) -> str | None:
    """What a built-in function of text gives for constants."""
    given = [one for one in arguments if isinstance(one, e.Constant) and one.type in (*_TEXTS, *_INTEGERS)]
    values = [
        int(one.value) if one.type in _INTEGERS else one.value
        for one in given
        if one.value is not None and one.value.isascii()
    ]
    function = None if part.user else TEXT_FUNCTIONS.get(part.name)
    text = bool(arguments) and arguments[0].type in _TEXTS
    if function is None or not text or len(values) != len(arguments):
        return None
    try:
        return function(*values)
    except (TypeError, ValueError):
        return None


def _s_subquery(part: Expression, state: State) -> Expression:
    assert isinstance(part, e.Subquery)
    if not part.plain:
        return part
    condition = simplify(part.condition, state) if part.condition is not None else None
    target = simplify(part.target, state) if part.target is not None else None
    test = simplify(part.test, state) if part.test is not None else None
    if not part.relations and condition is None:
        if part.kind == "exists":
            return TRUE
        if part.kind == "scalar" and target is not None:
            return target
        if part.kind == "any" and test is not None:
            return test
    if condition == RAISES:
        return RAISES
    none = condition is not None and (condition == FALSE or _never(condition))
    if none and part.kind in ("exists", "any"):
        return FALSE
    if none and part.kind == "scalar":
        return e.Constant(None, part.type)
    return replace(part, condition=condition, target=target, test=test)


def _never(condition: Expression) -> bool:
    """Whether a simplified condition is plainly never true."""
    if isinstance(condition, e.And):
        return any(_never(part) for part in condition.arguments)
    return condition == RAISES or (isinstance(condition, e.Constant) and condition != TRUE)


_SIMPLER: Mapping[type, Callable[[Expression, State], Expression]] = {
    e.Setting: _s_setting,
    e.Cast: _s_cast,
    e.Compare: _s_compare,
    e.Distinct: _s_distinct,
    e.And: _s_and,
    e.Or: _s_or,
    e.Not: _s_not,
    e.NullTest: _s_null_test,
    e.BooleanTest: _s_boolean_test,
    e.Coalesce: _s_coalesce,
    e.NullIf: _s_null_if,
    e.Case: _s_case,
    e.InList: _s_in_list,
    e.AnyArray: _s_any_array,
    e.Json: _s_json,
    e.Call: _s_call,
    e.Subquery: _s_subquery,
}
