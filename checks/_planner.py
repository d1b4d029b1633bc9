"""What the planner makes of a condition: what it evaluates once for a statement, and what an index can answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import index_expressions
from rlsaudit.catalog.relations import Relation

_RELABELLED = {("text", "character varying"), ("character varying", "text")}
"""Casts that change nothing in the value, so that an index on the column still serves."""


def inlines(catalog: Catalog, call: e.Call) -> bool:
    """Whether the planner puts the body of an SQL function in place of the call (``inline_function`` of the server)."""
    function = catalog.function(call.function)
    if function is None or call.inlined is None or function.language != "sql":
        return False
    if function.security_definer or function.settings or (function.strict and function.argument_types):
        return False
    if any(isinstance(part, e.Subquery) for part in e.walk(call.inlined)):
        return False
    return function.volatility == "volatile" or (function.volatility == "stable" and not e.is_volatile(call.inlined))


def once(subquery: e.Subquery) -> bool:
    """Whether the subquery has one result for the whole statement."""
    inside = (subquery.condition, subquery.target, *subquery.parts)
    return not any(part is not None and e.depends_on_row(part) for part in inside)


def row_by_row(catalog: Catalog, expression: Expression) -> Iterator[Expression]:
    """The parts that are evaluated anew for every row, unless an index makes them unnecessary."""
    if isinstance(expression, e.Subquery) and once(expression):
        return
    yield expression
    parts: Iterable[Expression] = e.children(expression)
    if isinstance(expression, e.Call) and expression.inlined is not None and not inlines(catalog, expression):
        parts = expression.arguments
    for part in parts:
        yield from row_by_row(catalog, part)


def calls(catalog: Catalog, expression: Expression) -> dict[int, e.Call]:
    """Function → a call of it that the planner keeps and evaluates row by row."""
    parts = (part for part in row_by_row(catalog, expression) if isinstance(part, e.Call))
    return {part.function: part for part in parts if not inlines(catalog, part)}


def bare_column(expression: Expression) -> e.Column | None:
    """The policy's own column that an index on it can be asked for."""
    while isinstance(expression, e.Cast):
        inner = expression.argument
        if inner.type != expression.type and (inner.type, expression.type) not in _RELABELLED:
            return None
        expression = inner
    return expression if isinstance(expression, e.Column) and expression.level == 0 else None


def equalities(expression: Expression) -> Iterator[tuple[Expression, Expression]]:
    """(side, other side) of an equality that an index could answer, as it stands at the top of ``expression``."""
    match expression:
        case e.Compare(operator="="):
            yield expression.left, expression.right
            yield expression.right, expression.left
        case e.InList(operator="=", any=True):
            yield expression.operand, e.And(expression.items)
        case e.AnyArray(operator="=", any=True):
            yield expression.operand, expression.array
        case _:
            return


def over_column(expression: Expression, column: str) -> bool:
    """Whether the value depends on nothing but the column, by means that an index on the expression allows."""
    kept = not any(
        isinstance(part, e.Call) and (part.user or part.volatility != "immutable") for part in e.walk(expression)
    )
    return kept and expression.type != "boolean" and e.columns(expression) == {column}


def fixed(catalog: Catalog, expression: Expression) -> bool:
    """Whether the value is the same for all rows of a statement, and the planner knows it."""
    if e.depends_on_row(expression):
        return False
    return not any(
        isinstance(part, (e.Call, e.Compare)) and part.volatility == "volatile"
        and not (isinstance(part, e.Call) and inlines(catalog, part))
        for part in row_by_row(catalog, expression)
    )  # fmt: skip


def looked_up(catalog: Catalog, expression: Expression, key: str) -> bool:
    """Whether an index on the column ``key`` can find all rows that the condition admits."""
    match expression:
        case e.And():
            return any(looked_up(catalog, part, key) for part in expression.arguments)
        case e.Or():
            return all(looked_up(catalog, part, key) for part in expression.arguments)
        case e.Call(inlined=e.And() | e.Or() | e.Compare()) if inlines(catalog, expression):
            assert expression.inlined is not None
            return looked_up(catalog, expression.inlined, key)
        case e.Constant():
            return expression.value != "true"
        case _:
            return any(
                (column := bare_column(side)) is not None and column.name == key and fixed(catalog, other)
                for side, other in equalities(expression)
            )


def indexed(catalog: Catalog, relation: Relation, column: str) -> bool:
    """Whether rows with one value of the column are found without reading all others: by an index that starts with
    it, or because the value decides the partition."""
    found = relation.column(column)
    if found is None:
        return False
    for one in catalog.indexes_of(relation.oid):
        if one.columns[:1] == (found.number,) and usable(one.valid, one.predicate):
            return True
    _, _, listing = (relation.partition_key or "").partition(" (")
    if listing and listing.removesuffix(")").split(",")[0].strip() == quote(column):
        return True
    children = catalog.children_of(relation.oid) if relation.kind == "partitioned table" else ()
    return bool(children) and all(indexed(catalog, child, column) for child in children)


def usable(valid: bool, predicate: str | None) -> bool:
    """An index that serves every query: built to the end, and not partial."""
    return valid and predicate is None


def expression_indexed(catalog: Catalog, relation: Relation, wanted: Expression) -> bool:
    """Whether an index starts with the expression."""
    return any(
        one.columns[:1] == (0,)
        and usable(one.valid, one.predicate)
        and index_expressions(catalog, one)[:1] == (wanted,)
        for one in catalog.indexes_of(relation.oid)
    )
