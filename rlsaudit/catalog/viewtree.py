"""What a view shows: the relations it reads, through other views and subqueries, and under which conditions.

Fail-closed in one direction: a condition that cannot be followed is left out, so a row may seem to be shown that is
not, never the other way round.  A query that cannot be read at all raises NodeTreeError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TypeAlias

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.jointree import everywhere, kept_by, leaves_of, outer_sublinks, sources, visible
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.nodetree import Node, NodeTreeError, nodes_in, parse_value
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.scope import Scope
from rlsaudit.catalog.translate import Translator

MOST_VIEWS = 24
"""Views above one another; deeper ones are not followed."""

MOST_READS = 200
"""Relations under one view, each counted as often as it is read: views that join themselves double with every level."""

_RELATION, _SUBQUERY, _JOIN, _CTE, _GROUP = 0, 1, 2, 6, 9
_WRAPPER = 1_000_000
_NOT_SIMPLE = ("cteList", "groupClause", "groupingSets", "havingQual", "limitOffset", "limitCount", "distinctClause")
_FLAGS = ("hasAggs", "hasWindowFuncs", "hasTargetSRFs")

Place: TypeAlias = tuple[int, int]
"""A range table entry: number of its query, index."""


@dataclass(frozen=True, slots=True)
class Read:
    """One relation that rows come from."""

    place: Place
    relation: int
    chain: tuple[int, ...]
    """Views on the way, the outermost first; the last one reads the relation."""
    conditions: tuple[tuple[int, Expression], ...] = ()
    """What holds for its rows, each with the position in ``chain`` of the view that says so."""
    shown: bool = True
    """Something of it is in the select list; False where it only decides which rows of others are shown."""
    within: frozenset[Place] = frozenset()
    """The subqueries and views around it."""


@dataclass(frozen=True)
class Branch:
    """One SELECT of a view; the parts of a UNION are branches of their own."""

    reads: tuple[Read, ...]
    targets: tuple[Expression, ...]
    """The select list; columns stand for those of ``reads`` where that can be told."""
    simple: bool
    """As an updatable view must be: one relation, nothing but conditions."""
    always: tuple[tuple[int, Expression], ...] = ()
    """What holds whenever it shows a row."""

    def origin(self, number: int) -> tuple[Read, str] | None:
        """The relation and column that the view's column ``number`` is a copy of."""
        target = self.targets[number - 1] if 0 < number <= len(self.targets) else None
        if target is None or not isinstance(column := e.bare(target), e.Column) or column.generated:
            return None
        read = next((one for one in self.reads if one.place == (column.query, column.source)), None)
        return (read, column.name) if read else None

    def predicate(self, read: Read, counted: Callable[[int], bool] = lambda position: True) -> Expression:
        """What holds for a row of ``read`` (its columns have level 0), by the views whose position is ``counted``."""
        conditions = tuple(one for position, one in read.conditions if counted(position))
        if not conditions:
            return e.Constant("true", "boolean")
        whole = conditions[0] if len(conditions) == 1 else e.And(conditions)
        others = {one.place for one in self.reads} | {(c.query, c.source) for c in _columns(whole) if c.level == 1}
        numbers = {place: number for number, place in enumerate(sorted(others - {read.place}), start=1)}
        joined = any(c.level == 1 and (c.query, c.source) != read.place for c in _columns(whole))

        def change(column: e.Column) -> Expression:
            place = (column.query, column.source)
            if column.level == 1 and place == read.place:
                return replace(column, level=0, source=1, query=0)
            if column.level == 1:
                return replace(column, source=numbers[place], query=_WRAPPER)
            return column if joined or column.level == 0 else replace(column, level=column.level - 1)

        changed = rewritten(whole, change)
        if not joined:
            return changed
        relations = tuple(one.relation for one in self.reads if one.place != read.place)
        return e.Subquery("exists", relations, changed, None, None, True, "boolean", query=_WRAPPER)


def rewritten(expression: Expression, change: Callable[[e.Column], Expression]) -> Expression:
    """The expression with every column replaced."""
    if isinstance(expression, e.Column):
        return change(expression)
    new = {}
    for one in fields(expression):
        value = getattr(expression, one.name)
        changed = _rewritten(value, change)
        if changed is not value:
            new[one.name] = changed
    return replace(expression, **new) if new else expression  # type: ignore[arg-type]


def _rewritten(value: object, change: Callable[[e.Column], Expression]) -> object:
    if isinstance(value, Expression):
        return rewritten(value, change)
    if isinstance(value, tuple):
        items = tuple(_rewritten(item, change) for item in value)
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _columns(expression: Expression) -> Iterator[e.Column]:
    return (part for part in e.walk(expression) if isinstance(part, e.Column))


def branches(catalog: Catalog, translator: Translator, view: Relation) -> tuple[Branch, ...]:
    """Raises NodeTreeError when the query cannot be read."""
    translator.queries = 0
    return tuple(_Flattener(catalog, translator).view(view, ()))


@dataclass
class _Flattener:
    catalog: Catalog
    translator: Translator
    meaning: dict[tuple[int, int, int], Expression] = field(default_factory=dict)
    """(query, range table index, column) → what a column of a join, a group or a subquery stands for."""

    def view(self, view: Relation, chain: tuple[int, ...]) -> list[Branch]:
        if view.query_tree is None or view.oid in chain or len(chain) >= MOST_VIEWS:
            raise NodeTreeError("a view without a query")
        query = next(nodes_in(parse_value(view.query_tree)), None)
        if query is None:
            raise NodeTreeError("a view without a query")
        return self.query(query, Scope(({},)), (*chain, view.oid), {})

    def query(self, node: Node, scope: Scope, chain: tuple[int, ...], ctes: Mapping[str, Node]) -> list[Branch]:
        if node.tag != "QUERY" or node.integer("commandType") != 1 or node.flag("hasRecursive"):
            raise NodeTreeError("not a plain SELECT")
        ctes = {**ctes, **{one.text("ctename"): one.node("ctequery") for one in node.nodes("cteList")}}
        self.translator.queries += 1
        number, entries = self.translator.queries, node.nodes("rtable")
        tables = {
            i: self.catalog.find_relation(one.integer("relid")) if one.integer("rtekind") == _RELATION else None
            for i, one in enumerate(entries, start=1)
        }
        inner = replace(scope, tables=(*scope.tables, tables), queries=(*scope.queries, number), sublink=None)
        operations = node.optional("setOperations")
        if operations is not None:
            leaves = [entries[i - 1].node("subquery") for i in leaves_of(operations)]
            return [replace(b, simple=False) for leaf in leaves for b in self.query(leaf, inner, chain, ctes)]
        self._aliases(number, entries, inner)
        return [self._select(node, inner, chain, ctes)]

    def _aliases(self, number: int, entries: tuple[Node, ...], scope: Scope) -> None:
        for index, entry in enumerate(entries, start=1):
            name = {_JOIN: "joinaliasvars", _GROUP: "groupexprs"}.get(entry.integer("rtekind"))
            listed = entry.get(name) if name else ()
            for column, one in enumerate(listed if isinstance(listed, tuple) else (), start=1):
                if isinstance(one, Node):
                    self.meaning[number, index, column] = self._translated(one, scope)

    def _select(self, node: Node, scope: Scope, chain: tuple[int, ...], ctes: Mapping[str, Node]) -> Branch:
        number, entries, position = scope.queries[-1], node.nodes("rtable"), len(chain) - 1
        having = [one for one in (node.optional("havingQual"),) if one is not None]
        leaves = list(sources(node.node("jointree"), ()))
        reads: list[Read] = []
        simple, kept = len(leaves) == 1, set(kept_by(node.node("jointree")))
        always = [(position, self._translated(qual, scope)) for qual in everywhere(node.node("jointree"))]
        for index, quals in leaves:
            conditions = tuple((position, self._translated(qual, scope)) for qual in (*having, *quals))
            entry, relation = entries[index - 1], scope.tables[-1][index]
            below = self._below(entry, relation, scope, chain, ctes)
            if below is None:
                simple = simple and relation is not None
                if relation is not None:
                    reads.append(Read((number, index), relation.oid, chain, conditions))
                continue
            simple = simple and len(below) == 1 and below[0].simple and relation is not None
            for branch in below:
                meant = {(number, index, k): target for k, target in enumerate(branch.targets, start=1)}
                if len(below) == 1:
                    self.meaning.update(meant)
                    always += branch.always if index in kept else ()
                mapped = tuple((at, self._resolved(one, meant)) for at, one in conditions)
                around = frozenset({(number, index)})
                reads += [
                    replace(one, conditions=one.conditions + mapped, within=one.within | around) for one in branch.reads
                ]
        targets = tuple(self._resolved(self._translated(one.node("expr"), scope), {}) for one in visible(node))
        always = [(at, self._resolved(one, {})) for at, one in always]
        places = {(column.query, column.source) for target in targets for column in _columns(target)}
        reads = [
            replace(r, shown=r.shown and (not places or not places.isdisjoint(r.within | {r.place}))) for r in reads
        ]
        reads += self._in_targets(node, scope, chain, ctes)
        if len(reads) > MOST_READS:
            raise NodeTreeError("a view of too many relations")
        done = tuple(
            replace(one, conditions=tuple((at, self._resolved(c, {})) for at, c in (*one.conditions, *always)))
            for one in reads
        )
        plain = not any(node.get(name) for name in _NOT_SIMPLE) and not any(node.flag(name) for name in _FLAGS)
        return Branch(done, targets, simple and plain, tuple(always))

    def _below(
        self,
        entry: Node,
        relation: Relation | None,
        scope: Scope,
        chain: tuple[int, ...],
        ctes: Mapping[str, Node],
    ) -> list[Branch] | None:
        """The branches of a view, subquery or WITH query; None for anything else."""
        if relation is not None:
            return self.view(relation, chain) if relation.kind == "view" else None
        if entry.integer("rtekind") == _SUBQUERY:
            return self.query(entry.node("subquery"), scope, chain, ctes)
        if entry.integer("rtekind") == _CTE:
            name = entry.text("ctename")
            if name not in ctes:
                raise NodeTreeError("an unknown WITH query")
            outer = {other: node for other, node in ctes.items() if other != name}
            return self.query(ctes[name], scope, chain, outer)
        return None

    def _in_targets(self, node: Node, scope: Scope, chain: tuple[int, ...], ctes: Mapping[str, Node]) -> Iterator[Read]:
        """What subqueries of the select list read."""
        for target in visible(node):
            for link in outer_sublinks(target):
                for branch in self.query(link.node("subselect"), scope, chain, ctes):
                    yield from branch.reads

    def _translated(self, node: Node, scope: Scope) -> Expression:
        base = scope.level

        def change(column: e.Column) -> Expression:
            return replace(column, level=column.level - base + 1 if column.level > base else 1)

        return rewritten(self.translator.translate(node, scope), change)

    def _resolved(self, expression: Expression, meant: Mapping[tuple[int, int, int], Expression]) -> Expression:
        def change(column: e.Column) -> Expression:
            key = (column.query, column.source, column.number)
            found = meant.get(key, self.meaning.get(key)) if column.level == 1 else None
            return column if found is None or found == column else rewritten(found, change)

        return rewritten(expression, change)
