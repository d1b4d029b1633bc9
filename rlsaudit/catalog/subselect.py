"""The shape of a subquery: which relations it joins, under which conditions, and whether that is all there is
to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rlsaudit.catalog.nodetree import Node, NodeTreeError

_RELATION, _JOIN = 0, 2
_ABSENT = ("cteList", "groupingSets", "havingQual", "setOperations", "limitOffset", "windowClause")
_FALSE = ("hasAggs", "hasWindowFuncs", "hasTargetSRFs", "hasRecursive", "hasModifyingCTE")


@dataclass(frozen=True, slots=True)
class Shape:
    tables: Mapping[int, int]
    """Range table index → relation OID, 0 for anything else."""
    relations: tuple[int, ...]
    """Every relation read, at any depth, in order."""
    conditions: tuple[Node, ...]
    targets: tuple[Node, ...]
    plain: bool
    """Inner joins of relations only: each result row comes from rows for which all ``conditions`` hold."""


def shape_of(query: Node) -> Shape:
    """Raises NodeTreeError for a node that is not a SELECT."""
    if query.tag != "QUERY" or query.integer("commandType") != 1:
        raise NodeTreeError("a statement that is not a SELECT")
    entries = query.nodes("rtable")
    tables = {i: _relation(entry) for i, entry in enumerate(entries, start=1)}
    relations = tuple(dict.fromkeys(_relation(n) for n in query.walk() if n.tag == "RANGETBLENTRY" and _relation(n)))
    jointree = query.node("jointree")
    conditions = tuple(_conditions(jointree))
    plain = (
        all(entry.integer("rtekind") in (_RELATION, _JOIN) for entry in entries)
        and all(query.get(field) is None for field in _ABSENT)
        and not any(query.flag(field) for field in _FALSE)
        and all(node.integer("jointype") == 0 for node in jointree.walk() if node.tag == "JOINEXPR")
    )
    targets = tuple(t.node("expr") for t in query.nodes("targetList") if not t.flag("resjunk"))
    return Shape(tables, relations, conditions, targets, plain)


def _relation(entry: Node) -> int:
    return entry.integer("relid") if entry.integer("rtekind") == _RELATION else 0


def _conditions(item: Node) -> Iterator[Node]:
    """The WHERE and ON expressions of a join tree."""
    if item.tag == "FROMEXPR":
        children = item.nodes("fromlist")
    elif item.tag == "JOINEXPR":
        children = (item.node("larg"), item.node("rarg"))
    elif item.tag == "RANGETBLREF":
        return
    else:
        raise NodeTreeError(f"unknown join tree node {item.tag}")
    for child in children:
        yield from _conditions(child)
    quals = item.optional("quals")
    if quals is not None:
        yield quals
