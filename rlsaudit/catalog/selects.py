"""SELECT over relations in the text of a function: what it returns, from which rows, under which condition.

Relations without a schema are refused where a temporary table of the session could stand in for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.inline import Parser, Source
from rlsaudit.catalog.names import search_path
from rlsaudit.catalog.nodetree import NodeTreeError
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function

_AFTER_WHERE = ("order", "limit", "fetch")
_AFTER_LIST = frozenset({"from", "where", ";", ")", "union", "into", *_AFTER_WHERE})
_KEYWORDS = frozenset(
    {"where", "join", "inner", "left", "right", "full", "cross", "on", "order", "group", "limit", "union", "natural",
     "having", "into", "for", "offset", "fetch", "window", "except", "intersect", "as", "using", "tablesample"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that a function returns while ``guard`` holds: those of a query, or the one of ``target``."""

    target: Expression
    condition: Expression | None
    tables: tuple[tuple[int, int], ...]
    query: int
    guard: Expression | None = None


class Selects(Parser):
    tolerance = True

    def end(self) -> None:
        self.accept(";")
        if self.peek() != "":
            raise NodeTreeError("text after the statement")

    def value(self) -> Expression:
        """``SELECT expression`` or ``SELECT expression FROM …`` as the body of a function with one result."""
        found = list(self.queries())
        self.end()
        if len(found) != 1:
            raise NodeTreeError("several queries")
        return self.single(found[0])

    def single(self, rows: Rows) -> Expression:
        if not rows.tables and rows.condition is None:
            return rows.target
        return self.looked_up("scalar", rows, None, rows.target.type)

    def looked_up(
        self, kind: Literal["exists", "any", "scalar", "array"], rows: Rows, test: Expression | None, type_name: str
    ) -> Expression:
        relations = tuple(dict.fromkeys(oid for _, oid in rows.tables))
        return e.Subquery(
            kind, relations, rows.condition, rows.target, test, True, type_name, (), rows.query, rows.tables,
            self.scope.definer,
        )  # fmt: skip

    def subquery(self, kind: Literal["exists", "any", "scalar", "array"], operand: Expression | None) -> Expression:
        self.expect("(")
        found = list(self.queries(exists=kind == "exists"))
        self.expect(")")
        if kind in ("scalar", "array"):
            if len(found) != 1:
                raise NodeTreeError("several queries")
            one = found[0]
            result = one.target.type + ("[]" if kind == "array" else "")
            return self.single(one) if kind == "scalar" else self.looked_up(kind, one, None, result)
        return _either([self._tested(kind, rows, operand) for rows in found])

    def _tested(self, kind: Literal["exists", "any"] | str, rows: Rows, operand: Expression | None) -> Expression:
        if kind == "exists" or operand is None:
            return self.looked_up("exists", rows, None, "boolean")
        left, right = self.comparable(operand, rows.target)
        return self.looked_up("any", rows, e.Compare("=", left, right, True), "boolean")

    def queries(self, *, exists: bool = False) -> Iterator[Rows]:
        yield self.query(exists=exists)
        while self.accept("union"):
            self.accept("all")
            yield self.query(exists=exists)

    def query(self, *, exists: bool = False) -> Rows:
        """``SELECT expression [FROM … [WHERE …]]``; the select list is read once the relations are known."""
        self.expect("select")
        self.accept("distinct")
        begin = self.position
        self._to_from()
        self.translator.queries += 1
        number = self.translator.queries
        self.sources.append(())
        conditions: list[Expression] = []
        if self.accept("from"):
            self._relation(number)
            conditions += self._joins(number)
        if self.accept("where"):
            conditions.append(self.boolean(self.disjunction()))
        if self.peek() in _AFTER_WHERE:
            while self.peek() not in ("", ";", ")"):
                self.position += 1
        after, self.position = self.position, begin
        target = self._target(exists)
        self.position = after
        tables = tuple((source.number, source.relation.oid) for source in self.sources.pop())
        condition = None if not conditions else conditions[0] if len(conditions) == 1 else e.And(tuple(conditions))
        return Rows(target, condition, tables, number)

    def _target(self, exists: bool) -> Expression:
        """The one column of a select list; EXISTS needs none, but an aggregate would make a row of none."""
        if not exists:
            return self.target()
        while self.peek() not in _AFTER_LIST:
            if self.peek() == "(":
                raise NodeTreeError("a call in the select list")
            self.position += 1
        return e.Constant("1", "integer")

    def target(self) -> Expression:
        self.tolerance = False
        value = self.disjunction()
        self.tolerance = True
        if self.accept("as"):
            self.identifier()
        elif self.peek() not in ("from", "into", "where", ";", "", ")"):
            raise NodeTreeError("more than one column")
        return value

    def _to_from(self) -> None:
        depth = 0
        while self.position < len(self.tokens):
            word = self.peek()
            distinct_from = word == "from" and self.tokens[self.position - 1][1].lower() == "distinct"
            if depth == 0 and word in _AFTER_LIST and not distinct_from:
                return
            depth += (word == "(") - (word == ")")
            self.position += 1

    def _joins(self, number: int) -> Iterator[Expression]:
        while True:
            if self.accept(",") or self.accept("cross", "join"):
                self._relation(number)
            elif self.accept("inner", "join") or self.accept("join"):
                self._relation(number)
                self.expect("on")
                yield self.boolean(self.disjunction())
            elif self.peek() in ("left", "right", "full", "natural", "using", "group", "having", "for", "offset"):
                raise NodeTreeError("another join or a group")
            else:
                return

    def _relation(self, number: int) -> None:
        first = self.identifier()
        schema, name = (first, self.identifier()) if self.accept(".") else ("", first)
        relation = self._found(schema, name)
        self.accept("as")
        kind, text = self.tokens[self.position] if self.position < len(self.tokens) else ("", "")
        named = kind == "quoted" or (kind == "word" and text.lower() not in _KEYWORDS and self.peek(1) != "(")
        alias = self.identifier() if named else name
        here = self.sources[-1]
        source = Source(alias, relation, len(here) + 1, number, self.scope.level + len(self.sources))
        self.sources[-1] = (*here, source)

    def _found(self, schema: str, name: str) -> Relation:
        named = self.translator.catalog.relations_named(name)
        found = named.get(schema, ()) if schema else tuple(chain.from_iterable(named.values()))
        if len(found) != 1 or self.peek() == "(" or (not schema and _shadowed(self.function)):
            raise NodeTreeError("a relation that is not known for certain")
        return found[0]


def _shadowed(function: Function) -> bool:
    """Whether a temporary table comes before the relation of a name without a schema."""
    path = search_path(function)
    return path is None or "pg_temp" not in path[1:]


def _either(parts: list[Expression]) -> Expression:
    return parts[0] if len(parts) == 1 else e.Or(tuple(parts))
