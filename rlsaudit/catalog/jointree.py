"""The parts of a query's tree: what a join tree reads, under which conditions, and what stands in the select list."""

from __future__ import annotations

from collections.abc import Iterator

from rlsaudit.catalog.nodetree import Node, NodeTreeError

_INNER, _LEFT, _RIGHT = 0, 1, 3
_EXCEPT = 3


def visible(query: Node) -> list[Node]:
    """The select list without columns that only sort or group."""
    return [one for one in query.nodes("targetList") if not one.flag("resjunk")]


def leaves_of(operation: Node) -> Iterator[int]:
    """Range table indexes of the parts of a set operation whose rows it can show."""
    if operation.tag == "RANGETBLREF":
        yield operation.integer("rtindex")
        return
    yield from leaves_of(operation.node("larg"))
    if operation.integer("op") != _EXCEPT:
        yield from leaves_of(operation.node("rarg"))


def sources(item: Node, outer: tuple[Node, ...]) -> Iterator[tuple[int, tuple[Node, ...]]]:
    """What a join tree reads, with the conditions that its rows must meet to be shown."""
    if item.tag == "RANGETBLREF":
        yield item.integer("rtindex"), outer
        return
    quals = item.optional("quals")
    own = outer if quals is None else (*outer, quals)
    if item.tag == "FROMEXPR":
        for child in item.nodes("fromlist"):
            yield from sources(child, own)
        return
    if item.tag != "JOINEXPR":
        raise NodeTreeError(f"unknown join tree node {item.tag}")
    kind = item.integer("jointype")
    yield from sources(item.node("larg"), own if kind in (_INNER, _RIGHT) else outer)
    yield from sources(item.node("rarg"), own if kind in (_INNER, _LEFT) else outer)


def everywhere(item: Node) -> Iterator[Node]:
    """Conditions that every row of the join tree meets."""
    for part in _preserved(item):
        quals = None if part.tag == "RANGETBLREF" else part.optional("quals")
        if quals is not None and (part.tag == "FROMEXPR" or part.integer("jointype") == _INNER):
            yield quals


def kept_by(item: Node) -> Iterator[int]:
    """Range table indexes of what has a row of its own in every row of the join tree."""
    return (part.integer("rtindex") for part in _preserved(item) if part.tag == "RANGETBLREF")


def _preserved(item: Node) -> Iterator[Node]:
    """The join tree without the sides of outer joins that may be filled with NULL."""
    yield item
    if item.tag == "FROMEXPR":
        children = item.nodes("fromlist")
    elif item.tag == "JOINEXPR":
        kind = item.integer("jointype")
        sides = (("larg", (_INNER, _LEFT)), ("rarg", (_INNER, _RIGHT)))
        children = tuple(item.node(side) for side, kept in sides if kind in kept)
    else:
        return
    for child in children:
        yield from _preserved(child)


def outer_sublinks(node: Node) -> Iterator[Node]:
    """Sublinks that are not inside another one."""
    if node.tag == "SUBLINK":
        yield node
        return
    for value in node.fields.values():
        for child in (value,) if isinstance(value, Node) else value if isinstance(value, tuple) else ():
            if isinstance(child, Node):
                yield from outer_sublinks(child)
