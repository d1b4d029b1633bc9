"""The shape of one query in a function's body: what it reads and writes, under which conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rlsaudit.checks._sql import QUERIES, Group, Node, Nodes, Token, is_symbol, is_word, split

Side = Literal["inner", "left", "right", "full"]
_CLAUSES = frozenset(
    "select from where group having window order limit offset fetch for returning set values using on when union"
    " intersect except".split()
)
_JOINS = frozenset({"join", "inner", "left", "right", "full", "cross", "natural", "outer"})


@dataclass(eq=False)
class Source:
    """A relation, subquery or function in FROM, or the target of a write."""

    alias: str
    name: tuple[str, ...] = ()
    queries: tuple[Query, ...] = ()
    call: Nodes = ()
    chosen: Nodes = ()
    """The expression that names the relation, in SQL that is built as text."""


@dataclass(eq=False)
class Query:
    kind: str
    sources: list[Source] = field(default_factory=list)
    conditions: list[tuple[Nodes, frozenset[str] | None]] = field(default_factory=list)
    """Conditions that rows meet; of an outer join's, the aliases whose rows alone must meet them."""
    same: list[tuple[str, frozenset[str] | None]] = field(default_factory=list)
    """Columns of USING."""
    output: list[Nodes] = field(default_factory=list)
    target: Source | None = None
    columns: list[str] = field(default_factory=list)
    """Columns of INSERT; empty when it names none."""
    rows: list[list[Nodes]] = field(default_factory=list)
    inserted: tuple[Query, ...] = ()
    assigned: list[tuple[str, Nodes]] = field(default_factory=list)
    tables: dict[str, tuple[Query, ...]] = field(default_factory=dict)
    """Queries of its WITH."""
    visible: dict[str, tuple[Query, ...]] = field(default_factory=dict)
    """Those and the ones around it."""
    other: list[Nodes] = field(default_factory=list)

    def source(self, alias: str) -> Source | None:
        return next((one for one in self.sources if one.alias == alias), None)


def queries(nodes: Nodes, tables: dict[str, tuple[Query, ...]] | None = None) -> tuple[Query, ...]:
    """The queries of a UNION and its like, or the single one; none when it is not a query."""
    while len(nodes) == 1 and isinstance(nodes[0], Group) and nodes[0].opening == "(":
        nodes = nodes[0].nodes
    tables = dict(tables or {})
    own: dict[str, tuple[Query, ...]] = {}
    if nodes and is_word(nodes[0], "with"):
        nodes = _with(nodes[1:], tables, own)
    found: list[Query] = []
    for part in _parts(nodes):
        inner = part[0] if len(part) == 1 else None
        if isinstance(inner, Group):
            found += queries(inner.nodes, tables)
        elif part and is_word(part[0], *QUERIES):
            found.append(_Parser(part, tables).query())
    for one in found[:1]:
        one.tables = {**own, **one.tables}
    return tuple(found)


def is_query(node: Node) -> bool:
    """Whether a group is a subquery."""
    while isinstance(node, Group) and node.nodes:
        if is_word(node.nodes[0], "select", "with", "values"):
            return True
        if len(node.nodes) > 1 and not is_word(node.nodes[1], "union", "intersect", "except"):
            return False
        node = node.nodes[0]
    return False


def subqueries(nodes: Sequence[Node]) -> Iterator[Group]:
    """The outermost subqueries in an expression."""
    for node in nodes:
        if isinstance(node, Group):
            if is_query(node):
                yield node
            else:
                yield from subqueries(node.nodes)


def _with(nodes: Nodes, tables: dict[str, tuple[Query, ...]], own: dict[str, tuple[Query, ...]]) -> Nodes:
    """Reads the list of WITH; what is left is the query itself."""
    position = 1 if nodes and is_word(nodes[0], "recursive") else 0
    name = ""
    while position < len(nodes):
        node = nodes[position]
        if isinstance(node, Group) and name and is_word(nodes[position - 1], "as", "materialized"):
            tables[name] = own[name] = queries(node.nodes, tables)
            name = ""
        elif not name and is_word(node, *QUERIES):
            return nodes[position:]
        elif not name and isinstance(node, Token) and node.identifier:
            name = node.identifier
        position += 1
    return ()


def _parts(nodes: Nodes) -> Iterator[Nodes]:
    start = 0
    for position, node in enumerate(nodes):
        if is_word(node, "union", "intersect", "except"):
            yield nodes[start:position]
            start = position + 1
            if start < len(nodes) and is_word(nodes[start], "all", "distinct"):
                start += 1
    yield nodes[start:]


class _Parser:
    def __init__(self, nodes: Nodes, tables: dict[str, tuple[Query, ...]]) -> None:
        self.nodes, self.tables = nodes, tables

    def query(self) -> Query:
        first = self.nodes[0]
        assert isinstance(first, Token)
        query = Query(first.text, visible=self.tables)
        clauses = self._clauses()
        if query.kind in ("insert", "update", "delete", "merge"):
            self._target(query, clauses[0][1])
        elif query.kind == "select":
            query.output = split(_after_distinct(clauses[0][1]), ",")
        elif query.kind == "values":
            query.rows = [split(node.nodes, ",") for node in clauses[0][1] if isinstance(node, Group)]
        for word, nodes in clauses[1:]:
            self._clause(query, word, nodes)
        return query

    def _clauses(self) -> list[tuple[str, Nodes]]:
        found: list[tuple[str, list[Node]]] = []
        previous: Node | None = None
        cases = 0
        for node in self.nodes:
            cases += is_word(node, "case") - (is_word(node, "end") and cases > 0)
            clause = isinstance(node, Token) and node.kind == "word" and node.text in _CLAUSES and not cases
            if clause and previous is not None and not self._starts(node, previous, found):
                clause = False
            if not found or clause:
                assert isinstance(node, Token)
                found.append((node.text, []))
            else:
                found[-1][1].append(node)
            previous = node
        return [(word, tuple(nodes)) for word, nodes in found]

    def _starts(self, node: Node, previous: Node, found: list[tuple[str, list[Node]]]) -> bool:
        inside = found[-1][0]
        if is_symbol(previous, ".", "::") or is_word(previous, "as"):
            return False
        if is_word(node, "from"):
            if is_word(previous, "delete"):
                return False
            return not is_word(previous, "distinct") or (inside == "select" and len(found[-1][1]) == 1)
        if is_word(node, "using", "on"):
            # Of a join, unless it is DELETE … USING, ON CONFLICT or MERGE's.
            return inside in ("delete", "merge", "using", "insert", "values") or (
                is_word(node, "on")
                and inside == "select"
                and self.nodes[0] is not node
                and is_word(self.nodes[0], "insert")
            )
        if is_word(node, "set", "select", "values", "for", "when", "fetch", "offset"):
            return not is_word(previous, "for", "do")
        return True

    def _target(self, query: Query, nodes: Nodes) -> None:
        nodes = tuple(node for node in nodes if not is_word(node, "into", "only", "from"))
        columns = [node for node in nodes if isinstance(node, Group) and node.opening == "("]
        if columns and query.kind == "insert":
            query.columns = [name for part in split(columns[0].nodes, ",") if (name := _identifier(part[:1]))]
        query.target = self._source(
            tuple(
                node for node in nodes if not is_symbol(node, "*") and (isinstance(node, Token) or node.opening == "{")
            )
        )
        if query.kind != "insert" and query.target:
            query.sources.append(query.target)

    def _clause(self, query: Query, word: str, nodes: Nodes) -> None:
        insert = query.kind == "insert"
        if word in ("select", "values") and insert and not query.inserted:
            position = next(i for i, node in enumerate(self.nodes) if is_word(node, word))
            end = [i for i, n in enumerate(self.nodes) if i > position and is_word(n, "on", "returning")]
            # ON inside the SELECT belongs to its joins: only ON CONFLICT ends it.
            ends = [
                i for i in end if is_word(self.nodes[i], "returning") or is_word((*self.nodes, None)[i + 1], "conflict")
            ]
            query.inserted = queries(self.nodes[position : ends[0] if ends else len(self.nodes)], self.tables)
        elif insert and query.inserted and word not in ("returning", "set"):
            return
        elif word in ("where", "having") or (word == "on" and query.kind == "merge"):
            query.conditions.append((nodes, None))
        elif word in ("from", "using"):
            self._from(query, nodes)
        elif word == "returning":
            query.output = split(nodes, ",")
        elif word == "set":
            query.assigned += _assignments(nodes)
        else:
            query.other.append(nodes)

    def _from(self, query: Query, nodes: Nodes) -> None:
        for item in split(nodes, ","):
            self._joined(query, item)

    def _joined(self, query: Query, nodes: Nodes) -> None:
        """A chain of joins; the items before an outer join keep their rows whatever its condition says."""
        before: list[str] = []
        for side, item, condition in _joins(nodes):
            added = self._item(query, item)
            if added is None:
                continue
            if condition:
                self._condition(query, condition, _bound(side, added, before))
            before.append(added.alias)

    def _condition(self, query: Query, nodes: Nodes, bound: frozenset[str] | None) -> None:
        if nodes and is_word(nodes[0], "using"):
            names = nodes[1].nodes if len(nodes) > 1 and isinstance(nodes[1], Group) else ()
            query.same += [(name, bound) for part in split(names, ",") if (name := _identifier(part))]
        else:
            query.conditions.append((nodes, bound))

    def _item(self, query: Query, nodes: Nodes) -> Source | None:
        nodes = tuple(node for node in nodes if not is_word(node, "only", "lateral"))
        if not nodes:
            return None
        first = nodes[0]
        if isinstance(first, Group) and first.opening != "{" and not is_query(first):
            self._joined(query, first.nodes)
            return query.sources[-1] if query.sources else None
        source = self._source(nodes)
        query.sources.append(source)
        return source

    def _source(self, nodes: Nodes) -> Source:
        first = nodes[0] if nodes else None
        if isinstance(first, Group) and first.opening != "{":
            return Source(_alias(nodes[1:]) or "?", queries=queries(first.nodes, self.tables))
        names: list[str] = []
        position = 0
        chosen: Nodes = ()
        while position < len(nodes):
            node = nodes[position]
            apart = bool(names) and not is_symbol(nodes[position - 1], ".")
            if isinstance(node, Group) and node.opening == "{" and not apart:
                names.append("?")
                chosen = node.nodes
            elif isinstance(node, Token) and node.identifier and not apart:
                names.append(node.identifier)
            elif not is_symbol(node, "."):
                break
            position += 1
        rest = nodes[position:]
        if chosen:
            return Source(_alias(rest) or "?", chosen=chosen)
        if rest and isinstance(rest[0], Group):
            return Source(_alias(rest[1:]) or (names[-1] if names else "?"), call=nodes)
        inner = self.tables.get(names[0], ()) if len(names) == 1 else ()
        return Source(_alias(rest) or (names[-1] if names else "?"), () if inner else tuple(names), inner)


def _joins(nodes: Nodes) -> Iterator[tuple[Side, Nodes, Nodes]]:
    """Each item of a chain of joins, how it is joined, and its ON or USING."""
    starts = [i for i, node in enumerate(nodes) if is_word(node, "join")]
    sides: list[Side] = ["inner"]
    edges: list[tuple[int, int]] = []
    begin = 0
    for position in starts:
        first = position
        while first > begin and is_word(nodes[first - 1], *_JOINS):
            first -= 1
        words = {node.text for node in nodes[first:position] if isinstance(node, Token)}
        sides.append(
            "left" if "left" in words else "right" if "right" in words else "full" if "full" in words else "inner"
        )
        edges.append((begin, first))
        begin = position + 1
    edges.append((begin, len(nodes)))
    for side, (start, end) in zip(sides, edges, strict=True):
        on = next((i for i in range(start, end) if is_word(nodes[i], "on", "using")), end)
        yield side, nodes[start:on], nodes[on + is_word(nodes[min(on, end - 1)], "on") : end] if on < end else ()


def _bound(side: Side, added: Source, before: list[str]) -> frozenset[str] | None:
    return {
        "inner": None,
        "left": frozenset({added.alias}),
        "right": frozenset(before),
        "full": frozenset[str](),
    }[side]


def _alias(nodes: Sequence[Node]) -> str:
    nodes = [node for node in nodes if not is_word(node, "as", "with", "ordinality")]
    return _identifier(nodes[:1])


def _identifier(nodes: Sequence[Node]) -> str:
    return nodes[0].identifier if nodes and isinstance(nodes[0], Token) else ""


def _after_distinct(nodes: Nodes) -> Nodes:
    if nodes and is_word(nodes[0], "distinct", "all"):
        nodes = nodes[1:]
        if len(nodes) > 1 and is_word(nodes[0], "on") and isinstance(nodes[1], Group):
            nodes = nodes[2:]
    return nodes


def _assignments(nodes: Nodes) -> list[tuple[str, Nodes]]:
    found: list[tuple[str, Nodes]] = []
    for part in split(nodes, ","):
        sign = next((i for i, node in enumerate(part) if is_symbol(node, "=")), None)
        if sign is None:
            continue
        left, right = part[0], part[sign + 1 :]
        if isinstance(left, Group):
            values = right[0].nodes if len(right) == 1 and isinstance(right[0], Group) else ()
            names = [_identifier(one) for one in split(left.nodes, ",")]
            found += list(zip(names, split(values, ","), strict=False))
        else:
            found.append((_identifier(part[sign - 1 : sign]), right))
    return found
