"""Subqueries of an expression: what they read, under which conditions, and rows that functions return."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.bodies import rows_of_text
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.nodetree import Node
from rlsaudit.catalog.scope import KINDS, Scope, inlinable, inside, outside
from rlsaudit.catalog.selects import Rows
from rlsaudit.catalog.subselect import Shape, shape_of

if TYPE_CHECKING:
    from rlsaudit.catalog.translate import Translator

Kind: TypeAlias = Literal["exists", "all", "any", "scalar", "array"]


def sublink(translator: Translator, node: Node, scope: Scope) -> Expression:
    kind = KINDS.get(node.integer("subLinkType"))
    if kind is None:
        return translator.opaque("row comparison with a subquery", node, scope)
    return subselect(translator, kind, node.node("subselect"), node.optional("testexpr"), scope)


def subselect(
    translator: Translator,
    kind: Kind,
    query: Node,
    test: Node | None,
    scope: Scope,
) -> Expression:
    shape = shape_of(query)
    returned = _returned(translator, shape, kind, scope)
    if returned is not None:
        return _of_rows(translator, kind, returned, test, scope)
    translator.queries += 1
    number = translator.queries
    tables = {index: translator.catalog.find_relation(oid) if oid else None for index, oid in shape.tables.items()}
    inner = replace(scope, tables=(*scope.tables, tables), queries=(*scope.queries, number), sublink=None)
    targets = _targets(translator, shape, query, inner)
    compared = None if test is None else translator.translate(test, replace(scope, sublink=targets))
    result = targets[0].type if targets and kind == "scalar" else "boolean" if kind != "array" else "array"
    if not shape.plain:
        parts = tuple(translator.parts(query, outside(scope)))
        return e.Subquery(kind, shape.relations, None, None, compared, False, result, parts, number)
    conditions = translator.all(shape.conditions, inner)
    condition = None if not conditions else conditions[0] if len(conditions) == 1 else e.And(conditions)
    if kind == "scalar" and not shape.relations and condition is None and targets and scope.parameters is not None:
        return targets[0]  # a function body SELECT expression
    target = targets[0] if targets else None
    own = tuple((index, oid) for index, oid in shape.tables.items() if oid)
    return e.Subquery(
        kind, shape.relations, condition, target, compared, True, result, (), number, own, scope.definer
    )  # fmt: skip


def _returned(translator: Translator, shape: Shape, kind: str, scope: Scope) -> tuple[tuple[Rows, ...], bool] | None:
    """``(SELECT f(…))`` of a set-returning function whose body can be read: its rows, and whether as its owner."""
    if kind not in ("exists", "any", "array") or shape.relations or shape.conditions or len(shape.targets) != 1:
        return None
    call = shape.targets[0] if not shape.tables else None
    if call is None or call.tag != "FUNCEXPR" or not call.flag("funcretset"):
        return None
    function = translator.catalog.function(call.integer("funcid"))
    if function is None or function.body_tree is not None or function.oid in scope.inlining:
        return None
    # The call stands in a query of its own; its arguments may only be what does not depend on rows.
    arguments = translator.all(
        call.nodes("args"), replace(scope, tables=(*scope.tables, {}), queries=(*scope.queries, -1))
    )
    if not inlinable(replace(function, returns_set=False), arguments):
        return None
    rows = rows_of_text(translator, function, arguments, inside(scope, function, arguments))
    definer = scope.definer or function.security_definer
    return None if rows is None or (kind == "array" and len(rows) != 1) else (rows, definer)


def _of_rows(
    translator: Translator,
    kind: Kind,
    returned: tuple[tuple[Rows, ...], bool],
    test: Node | None,
    scope: Scope,
) -> Expression:
    found: list[Expression] = []
    for rows in returned[0]:
        compared = None if test is None else translator.translate(test, replace(scope, sublink=(rows.target,)))
        relations = tuple(dict.fromkeys(oid for _, oid in rows.tables))
        result = "boolean" if kind != "array" else "array"
        one: Expression = e.Subquery(
            kind, relations, rows.condition, rows.target, compared, True, result, (), rows.query, rows.tables,
            returned[1],
        )  # fmt: skip
        found.append(one if rows.guard is None else e.And((rows.guard, one)))
    return e.Constant("false", "boolean") if not found else found[0] if len(found) == 1 else e.Or(tuple(found))


def _targets(translator: Translator, shape: Shape, query: Node, inner: Scope) -> tuple[Expression, ...]:
    if shape.plain:
        return translator.all(shape.targets, inner)
    parts = tuple(translator.parts(query, outside(replace(inner, tables=inner.tables[:-1]))))
    return tuple(e.Opaque("result of a subquery", parts) for _ in shape.targets)
