"""A small typed predicate language: what a policy says, with every identity resolved.

Made from expression trees by :mod:`rlsaudit.catalog.translate`.  What it cannot name becomes ``Opaque`` and
keeps the columns, settings and calls found inside, so that whoever reads it can fail closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

Volatility = Literal["", "immutable", "stable", "volatile"]


class _Part:
    """What is asked of an expression again and again, kept with it: a large schema repeats a few expressions."""

    __slots__ = ("_children", "_columns", "_comparisons", "_hash", "_model", "_read", "_relations", "_walked")

    _children: tuple[Expression, ...]
    _columns: frozenset[str]
    _comparisons: tuple[Comparison, ...]
    _hash: int
    _model: Expression
    _read: tuple[int, ...]
    _relations: frozenset[int]
    _walked: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Column(_Part):
    """A column.  Level 0 is the policy's own relation; level n is a relation of the n-th nested subquery."""

    name: str
    number: int
    level: int
    type: str
    """Base type, as ``Column.base_type`` of the catalog, or a type name."""
    not_null: bool = False
    source: int = 0
    """Range table index, unique within a level."""
    query: int = 0
    """Which subquery of the expression, to tell two subqueries of one level apart."""
    generated: bool = False
    """Computed from other columns of its row (and not just a copy of one)."""


@dataclass(frozen=True, slots=True)
class Constant(_Part):
    value: str | None
    """Text form; None is SQL NULL."""
    type: str


@dataclass(frozen=True, slots=True)
class Setting(_Part):
    """``current_setting(name, missing_ok)``; names are not case-sensitive and are kept in lower case."""

    name: str
    missing_ok: bool
    type: str = "text"


@dataclass(frozen=True, slots=True)
class SessionRole(_Part):
    """``current_user`` or ``session_user``."""

    which: Literal["current_user", "session_user"]
    type: str = "name"


@dataclass(frozen=True, slots=True)
class Cast(_Part):
    argument: Expression
    type: str


@dataclass(frozen=True, slots=True)
class Compare(_Part):
    """A binary operator that returns boolean; ``exact`` when it is the btree equality of its type (or its
    negation, when the name is ``<>``) under a deterministic collation."""

    operator: str
    left: Expression
    right: Expression
    exact: bool
    volatility: Volatility = "immutable"
    strict: bool = True
    """Known to be NULL for any NULL operand."""
    type: str = "boolean"
    collation: int = 0
    """The OID; -1 for an operator that is not built in."""


@dataclass(frozen=True, slots=True)
class Distinct(_Part):
    """``left IS DISTINCT FROM right``."""

    left: Expression
    right: Expression
    exact: bool
    type: str = "boolean"


@dataclass(frozen=True, slots=True)
class And(_Part):
    arguments: tuple[Expression, ...]
    type: str = "boolean"


@dataclass(frozen=True, slots=True)
class Or(_Part):
    arguments: tuple[Expression, ...]
    type: str = "boolean"


@dataclass(frozen=True, slots=True)
class Not(_Part):
    argument: Expression
    type: str = "boolean"


@dataclass(frozen=True, slots=True)
class NullTest(_Part):
    argument: Expression
    is_null: bool
    type: str = "boolean"


@dataclass(frozen=True, slots=True)
class BooleanTest(_Part):
    """``argument IS [NOT] TRUE/FALSE/UNKNOWN``; ``value`` None stands for UNKNOWN."""

    argument: Expression
    value: bool | None
    negated: bool
    type: str = "boolean"


@dataclass(frozen=True, slots=True)
class Coalesce(_Part):
    arguments: tuple[Expression, ...]
    type: str


@dataclass(frozen=True, slots=True)
class NullIf(_Part):
    left: Expression
    right: Expression
    exact: bool
    type: str


@dataclass(frozen=True, slots=True)
class Case(_Part):
    """Searched CASE; the simple form is rewritten to it."""

    branches: tuple[tuple[Expression, Expression], ...]
    default: Expression
    type: str


@dataclass(frozen=True, slots=True)
class InList(_Part):
    """``operand = ANY (ARRAY[...])`` and IN over a list (``any``), or ``<> ALL`` (not ``any``)."""

    operator: str
    operand: Expression
    items: tuple[Expression, ...]
    any: bool
    exact: bool
    type: str = "boolean"


@dataclass(frozen=True, slots=True)
class AnyArray(_Part):
    """``operand op ANY/ALL (array)`` over an array that is not written out."""

    operator: str
    operand: Expression
    array: Expression
    any: bool
    exact: bool
    type: str = "boolean"


@dataclass(frozen=True, slots=True)
class Json(_Part):
    """``document -> key``, ``->>``, ``#>``, ``#>>``."""

    operator: str
    document: Expression
    key: Expression
    type: str


@dataclass(frozen=True, slots=True)
class Call(_Part):
    """A function or another operator.  ``inlined`` is the body of a user function, arguments put in."""

    name: str
    function: int
    """OID of the function; of the implementing function for an operator."""
    schema: str
    arguments: tuple[Expression, ...]
    volatility: Volatility
    type: str
    user: bool = False
    """User-defined, so only trusted as far as ``inlined`` says."""
    strict: bool = False
    """Known to return NULL for any NULL argument."""
    inlined: Expression | None = None
    collation: int = 0


@dataclass(frozen=True, slots=True)
class Subquery(_Part):
    """A sublink: ``exists``, ``any`` (IN), ``all`` (NOT IN has ``any`` under Not), ``scalar``, ``array``.

    ``plain``: inner joins of relations, conditions in ``condition``, no aggregate, set operation, offset or
    CTE; then a row for which ``condition`` (and ``test``) holds exists when the sublink is true or not null.
    """

    kind: Literal["exists", "any", "all", "scalar", "array"]
    relations: tuple[int, ...]
    condition: Expression | None
    target: Expression | None
    test: Expression | None
    """The comparison of IN, with the select list put in."""
    plain: bool
    type: str
    parts: tuple[Expression, ...] = ()
    """What else it mentions when it is not plain."""
    query: int = 0
    """``Column.query`` of its own columns."""
    tables: tuple[tuple[int, int], ...] = ()
    """``Column.source`` of its own columns → OID of the relation they are of."""
    definer: bool = False
    """Runs as the owner of a SECURITY DEFINER function, so that other policies apply to what it reads."""


@dataclass(frozen=True, slots=True)
class Opaque(_Part):
    """Something this language does not model."""

    why: str
    parts: tuple[Expression, ...] = ()
    type: str = "unknown"
    volatile: bool = True


Expression: TypeAlias = (
    Column
    | Constant
    | Setting
    | SessionRole
    | Cast
    | Compare
    | Distinct
    | And
    | Or
    | Not
    | NullTest
    | BooleanTest
    | Coalesce
    | NullIf
    | Case
    | InList
    | AnyArray
    | Json
    | Call
    | Subquery
    | Opaque
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column of the policy's own relation against something else, anywhere in the policy."""

    column: Column
    other: Expression
    operator: str
    exact: bool
    """True equality of the type, with nothing but value-preserving casts around the column."""


_PARTS: Mapping[type, tuple[str, ...]] = {
    kind: tuple(one.name for one in fields(kind) if "Expression" in str(one.type)) for kind in get_args(Expression)
}
"""Fields of each class that may hold expressions, by their annotations."""

_FIELDS: Mapping[type, tuple[str, ...]] = {kind: tuple(one.name for one in fields(kind)) for kind in _PARTS}
_POSITIONS: Mapping[type, tuple[int, ...]] = {
    kind: tuple(names.index(name) for name in _PARTS[kind]) for kind, names in _FIELDS.items()
}
"""Where among its fields those are that may hold expressions."""

_RELATIONS = _FIELDS[Subquery].index("relations")
_TABLES = _FIELDS[Subquery].index("tables")


def _hashed_once(kind: Any) -> None:
    compute: Callable[[Any], int] = kind.__hash__

    def kept(self: Any) -> int:
        try:
            return self._hash  # type: ignore[no-any-return]
        except AttributeError:
            found = compute(self)
            object.__setattr__(self, "_hash", found)
            return found

    setattr(kind, "__hash__", kept)  # noqa: B010 - a method cannot be assigned to


for _kind in _PARTS:
    _hashed_once(_kind)


def children(expression: Expression) -> tuple[Expression, ...]:
    """Direct parts of an expression, an inlined body included."""
    try:
        return expression._children
    except AttributeError:
        found: list[Expression] = []
        for name in _PARTS[type(expression)]:
            value = getattr(expression, name)
            if isinstance(value, tuple):
                found += _expressions(value)
            elif value is not None and not isinstance(value, str):
                found.append(value)
        kept = tuple(found)
        object.__setattr__(expression, "_children", kept)
        return kept


def walk(expression: Expression) -> tuple[Expression, ...]:
    """The expression and everything inside it: subqueries and inlined function bodies too."""
    try:
        return expression._walked
    except AttributeError:
        inside = [part for child in children(expression) for part in walk(child)]
        kept = (expression, *inside)
        object.__setattr__(expression, "_walked", kept)
        return kept


def _expressions(value: object) -> Iterator[Expression]:
    if isinstance(value, tuple):
        for item in value:
            yield from _expressions(item)
    elif isinstance(value, Expression):
        yield value


@lru_cache(maxsize=65536)
def depends_on_row(expression: Expression) -> bool:
    """True when a column of the policy's own relation occurs in it."""
    if isinstance(expression, Column):
        return expression.level == 0
    return any(depends_on_row(child) for child in children(expression))


@lru_cache(maxsize=65536)
def outer_queries(expression: Expression) -> frozenset[int]:
    """Subqueries around the expression whose columns occur in it."""
    own = {part.query for part in walk(expression) if isinstance(part, Subquery)}
    used = {part.query for part in walk(expression) if isinstance(part, Column) and part.level > 0}
    return frozenset(used - own)


@lru_cache(maxsize=65536)
def is_volatile(expression: Expression) -> bool:
    """True when two evaluations in one statement may differ: a volatile function, or something not
    understood."""
    if isinstance(expression, Opaque) and expression.volatile:
        return True
    if isinstance(expression, (Call, Compare)) and expression.volatility in ("volatile", ""):
        if not isinstance(expression, Call) or expression.inlined is None:
            return True
        # Each call of a VOLATILE function sees what has changed since the one before.
        return bool(subquery_relations(expression.inlined)) or is_volatile(expression.inlined)
    return any(is_volatile(child) for child in children(expression))


def comparisons(expression: Expression) -> tuple[Comparison, ...]:
    """Every comparison that has a column of the policy's own relation on a side, in order of appearance.

    Of ``column = column`` both directions are given.  Comparisons with a function around the column
    (``lower(tenant)``) are there too, not exact.
    """
    try:
        return expression._comparisons
    except AttributeError:
        kept = tuple(found for part in walk(expression) for found in _comparisons(part))
        object.__setattr__(expression, "_comparisons", kept)
        return kept


def _comparisons(part: Expression) -> Iterator[Comparison]:
    pairs: tuple[tuple[Expression, Expression], ...] = ()
    operator, exact = "", False
    match part:
        case Compare():
            pairs, operator, exact = (
                ((part.left, part.right), (part.right, part.left)),
                part.operator,
                part.exact,
            )
        case Distinct():
            pairs, operator = ((part.left, part.right), (part.right, part.left)), "IS DISTINCT FROM"
        case InList():
            pairs, operator = tuple((part.operand, item) for item in part.items), part.operator
            exact = part.exact and part.any
        case AnyArray():
            pairs, operator, exact = ((part.operand, part.array),), part.operator, part.exact and part.any
        case _:
            return
    for side, other in pairs:
        column, bare = _column_of(side)
        if column is not None:
            yield Comparison(column, other, operator, exact and operator == "=" and bare)


_INJECTIVE = {
    ("uuid", "text"), ("uuid", "character varying"), ("text", "character varying"),
    ("character varying", "text"), ("name", "text"), ("integer", "text"), ("bigint", "text"),
    ("smallint", "text"), ("smallint", "integer"), ("smallint", "bigint"), ("integer", "bigint"),
    ("integer", "character varying"), ("bigint", "character varying"), ("character", "text"),
    ("character", "character varying"), ("smallint", "numeric"), ("integer", "numeric"), ("bigint", "numeric"),
    ("numeric", "text"), ("smallint", "double precision"), ("integer", "double precision"), ("smallint", "real"),
}  # fmt: skip
"""Casts that keep different values different."""


def _column_of(side: Expression) -> tuple[Column | None, bool]:
    """The single row column under casts and function calls; True when only value-preserving casts are around
    it."""
    bare = True
    while not isinstance(side, Column):
        match side:
            case Cast():
                bare = bare and (side.argument.type == side.type or (side.argument.type, side.type) in _INJECTIVE)
                side = side.argument
            case Call() if side.inlined is None:
                bare = False
                inside = [argument for argument in side.arguments if depends_on_row(argument)]
                if len(inside) != 1:
                    return None, False
                side = inside[0]
            case _:
                return None, False
    return (side, bare) if side.level == 0 else (None, False)


def subquery_relations(expression: Expression) -> frozenset[int]:
    """OIDs of the relations that subqueries read, those inside inlined functions too."""
    try:
        return expression._relations
    except AttributeError:
        found = frozenset[int]().union(*(subquery_relations(child) for child in children(expression)))
        if isinstance(expression, Subquery):
            found |= frozenset(expression.relations)
        object.__setattr__(expression, "_relations", found)
        return found


def relations_read(expression: Expression) -> tuple[int, ...]:
    """The same, in order of appearance."""
    try:
        return expression._read
    except AttributeError:
        found = tuple(
            dict.fromkeys(oid for part in walk(expression) if isinstance(part, Subquery) for oid in part.relations)
        )
        object.__setattr__(expression, "_read", found)
        return found


def columns(expression: Expression) -> frozenset[str]:
    """Names of the policy's own relation's columns that occur in it."""
    try:
        return expression._columns
    except AttributeError:
        found = frozenset(part.name for part in walk(expression) if isinstance(part, Column) and part.level == 0)
        object.__setattr__(expression, "_columns", found)
        return found


def bare(expression: Expression) -> Expression:
    """The expression without the casts around it that keep different values different."""
    while isinstance(expression, Cast):
        inner = expression.argument
        if inner.type != expression.type and (inner.type, expression.type) not in _INJECTIVE:
            break
        expression = inner
    return expression


def copied(expression: Expression, relations: Mapping[int, int]) -> Expression:
    """The expression over other relations, as ``renumbered`` has it; it remembers its ``model``."""
    found = renumbered(expression, relations)
    if found is not expression:
        read = tuple([relations.get(oid, oid) for oid in relations_read(expression)])
        object.__setattr__(found, "_model", expression)
        object.__setattr__(found, "_read", read)
        object.__setattr__(found, "_relations", frozenset(read))
        object.__setattr__(found, "_columns", columns(expression))
    return found


def model(expression: Expression) -> Expression:
    """What the expression was ``copied`` from, which differs in relations of subqueries only; itself when it was not."""
    found: Expression = getattr(expression, "_model", expression)  # in most it is not set: no exception for each
    return found


def renumbered(expression: Expression, relations: Mapping[int, int]) -> Expression:
    """The same expression with the relations of its subqueries numbered anew, so that alike ones become equal."""
    if subquery_relations(expression).isdisjoint(relations):
        return expression
    kind = type(expression)
    values = [getattr(expression, name) for name in _FIELDS[kind]]
    for position in _POSITIONS[kind]:
        values[position] = _renumbered_value(values[position], relations)
    if isinstance(expression, Subquery):
        values[_RELATIONS] = tuple(relations.get(oid, oid) for oid in expression.relations)
        values[_TABLES] = tuple((source, relations.get(oid, oid)) for source, oid in expression.tables)
    return kind(*values)


def _renumbered_value(value: object, relations: Mapping[int, int]) -> object:
    if isinstance(value, _Part):
        return renumbered(value, relations)  # type: ignore[arg-type]
    if isinstance(value, tuple):
        return tuple(_renumbered_value(item, relations) for item in value)
    return value
