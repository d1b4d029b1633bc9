"""The ways to meet a condition in a function's body, and what holds on each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from rlsaudit.checks._query import Query, is_query
from rlsaudit.checks._sql import Group, Node, Nodes, Token, is_symbol, is_word, split
from rlsaudit.checks._terms import Reader, Term

MOST_WAYS, MOST_FACTS = 64, 100


@dataclass(frozen=True)
class Link:
    """Two terms that are equal; ``bound``: the sources whose rows alone must meet it, None for all."""

    left: Term
    right: Term
    bound: frozenset[int] | None = None


@dataclass(frozen=True)
class Fact:
    """Any other condition; ``presence``: it only asks whether something is set."""

    term: Term
    presence: bool = False


Way: TypeAlias = "tuple[Link | Fact, ...]"


class Conditions(Reader):
    """Reads conditions in the scope of one query."""

    def ways(self, nodes: Nodes) -> list[Way]:
        """Every way to meet a condition, as facts that hold on it."""
        while len(nodes) == 1 and isinstance(nodes[0], Group) and not is_query(nodes[0]):
            nodes = nodes[0].nodes
        either = _parted(nodes, "or")
        if len(either) > 1:
            return self._limited([way for part in either for way in self.ways(part)])
        both = _parted(nodes, "and")
        if len(both) > 1:
            found: list[Way] = [()]
            for part in both:
                others = self.ways(part)
                found = self._limited([(*one, *other) for one in found for other in others])
            return found
        return self._atom(nodes)

    def _limited(self, found: list[Way]) -> list[Way]:
        if len(found) > MOST_WAYS or any(len(way) > MOST_FACTS for way in found):
            self.body.overflow = True
            return [way[:MOST_FACTS] for way in found[:MOST_WAYS]]
        return found

    def _atom(self, nodes: Nodes) -> list[Way]:
        if not nodes or (len(nodes) == 1 and is_word(nodes[0], "true")):
            return [()]
        if len(nodes) == 1 and is_word(nodes[0], "false"):
            return []
        if is_word(nodes[0], "not"):
            return [(Fact(self.term(nodes)),)]
        if is_word(nodes[0], "exists") and len(nodes) == 2 and isinstance(nodes[1], Group):
            return self._limited([way for query in self.inner(nodes[1]) for way in self.within(query)])
        if is_word(nodes[0], "coalesce") and len(nodes) == 2 and isinstance(nodes[1], Group):
            parts = split(nodes[1].nodes, ",")
            if len(parts) == 2 and len(parts[1]) == 1 and is_word(parts[1][0], "false"):
                return self.ways(parts[0])
        for position, node in enumerate(nodes):
            before, after = nodes[:position], nodes[position + 1 :]
            if is_symbol(node, "=") and before and after:
                return self._equal(before, after)
            if is_word(node, "is") and [n.text for n in after[:3] if isinstance(n, Token)] == [
                "not",
                "distinct",
                "from",
            ]:
                return self._equal(before, after[3:])
            if (
                is_word(node, "operator")
                and after
                and isinstance(after[0], Group)
                and is_symbol(after[0].nodes[-1], "=")
            ):
                return self._equal(before, after[1:])
            if (
                is_word(node, "in")
                and len(after) == 1
                and isinstance(after[0], Group)
                and not is_word((*before, None)[-2], "not")
            ):
                if is_query(after[0]):
                    return self._looked_up(before, after[0])
                return [way for item in split(after[0].nodes, ",")[:8] for way in self._equal(before, item)]
        return [(Fact(self.term(nodes), presence(nodes)),)]

    def _equal(self, left: Nodes, right: Nodes) -> list[Way]:
        if is_word(right[0], "any", "some") and len(right) == 2 and isinstance(right[1], Group):
            if is_query(right[1]):
                return self._looked_up(left, right[1])
            return [(Link(self.term(left), self.term(right[1].nodes)),)]
        if len(right) == 1 and isinstance(right[0], Group) and is_query(right[0]):
            return self._looked_up(left, right[0])
        mine, theirs = _row(left), _row(right)
        if len(mine) == len(theirs):
            return [tuple(Link(self.term(a), self.term(b)) for a, b in zip(mine, theirs, strict=True))]
        return [(Link(self.term(left), self.term(right)),)]

    def _looked_up(self, left: Nodes, group: Group) -> list[Way]:
        """``left IN (query)``: a row of the query exists whose output equals it."""
        found: list[Way] = []
        for query in self.inner(group):
            reader = Conditions(self.body, (query, *self.scopes))
            items = [reader.term(item) for item in query.output]
            for source in query.sources:
                if source.call and query.output and is_symbol(query.output[0][-1], "*"):
                    items = [self.term(source.call)]
            links = tuple(Link(self.term(a), b) for a, b in zip(_row(left), items, strict=False))
            found += [(*way, *links) for way in self.within(query)]
        return self._limited(found)

    def within(self, query: Query) -> list[Way]:
        """Ways to meet all conditions of a query inside this scope, those of its derived tables too."""
        reader = Conditions(self.body, (query, *self.scopes))
        found: list[Way] = [()]
        for source in query.sources:
            self.body.sources[id(source)] = source
            if source.queries:
                inner = [way for one in source.queries for way in reader.within(one)]
                found = self._limited([(*a, *b) for a in found for b in inner])
            for name in self.body.transitions.get(source.name[-1] if source.name else "", ()):
                found = [
                    (*way, Link(Term(frozenset({(id(source), name)}), plain=True), Term(session=True))) for way in found
                ]
            if source.call and (term := self.term(source.call)).session and not term.arguments:
                found = [
                    (*way, Link(Term(frozenset({(id(source), "*")}), plain=True), Term(session=True))) for way in found
                ]
        for nodes, bound in query.conditions:
            only = None if bound is None else frozenset(id(s) for s in query.sources if s.alias in bound)
            ways = [tuple(_narrowed(fact, only) for fact in way) for way in reader.ways(nodes)]
            found = self._limited([(*a, *b) for a in found for b in ways])
        for name, bound in query.same:
            sides = [s for s in query.sources if (r := self.body.find(s.name)) is None or r.column(name)]
            only = None if bound is None else frozenset(id(s) for s in query.sources if s.alias in bound)
            for one, other in pairwise(sides):
                left, right = (Term(frozenset({(id(s), name)}), plain=True) for s in (one, other))
                link = Link(left, right, only)
                found = [(*way, link) for way in found]
        return found


def _narrowed(fact: Link | Fact, only: frozenset[int] | None) -> Link | Fact:
    return replace(fact, bound=only) if isinstance(fact, Link) and only is not None and fact.bound is None else fact


def _parted(nodes: Nodes, word: str) -> list[Nodes]:
    """Operands of AND or OR; the AND of BETWEEN and what stands in CASE are no operators."""
    found: list[list[Node]] = [[]]
    cases, between = 0, False
    for node in nodes:
        cases += is_word(node, "case") - is_word(node, "end")
        between = between or is_word(node, "between")
        if is_word(node, word) and not cases and not (between and word == "and"):
            found.append([])
            continue
        if is_word(node, "and") and between:
            between = False
        found[-1].append(node)
    return [tuple(part) for part in found]


def presence(nodes: Nodes) -> bool:
    """Whether a condition only asks if a value is there: ``IS NOT NULL``, ``<> ''``."""
    words = [node.text if isinstance(node, Token) and node.kind == "word" else "" for node in nodes[-3:]]
    if words[-2:] == ["is", "null"] or words == ["is", "not", "null"]:
        return True
    return any(isinstance(node, Token) and node.kind == "string" and not node.text for node in nodes)


def _row(nodes: Nodes) -> list[Nodes]:
    """The elements of a row in parentheses, or the expression itself."""
    group = nodes[-1] if nodes and (len(nodes) == 1 or is_word(nodes[0], "row")) else None
    if isinstance(group, Group) and not is_query(group):
        parts = split(group.nodes, ",")
        return parts if len(parts) > 1 else [nodes]
    return [nodes]
