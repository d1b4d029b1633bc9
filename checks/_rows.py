"""Which rows a query in a function's body reads and writes, and what they are held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rlsaudit.checks._known import tied
from rlsaudit.checks._labels import gate, labels
from rlsaudit.checks._query import Query, Source, subqueries
from rlsaudit.checks._sql import Group, Nodes, Token
from rlsaudit.checks._statements import Statement
from rlsaudit.checks._terms import LOOSE, STRENGTH, Body, Label, Reader, Scopes, Slot, fresh
from rlsaudit.checks._ways import Conditions, Link, Way

from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Subject

_AGGREGATES = frozenset({"count", "sum", "avg", "min", "max", "bool_or", "bool_and", "every"})


@dataclass(frozen=True)
class Exposure:
    """Rows of one relation that a statement reads or writes."""

    relation: Relation
    command: str
    label: Label
    """What they are held against."""
    arguments: tuple[str, ...] = ()
    """What the caller chooses them by."""
    gated: bool = False
    """Only for some sessions."""
    targets: tuple[str, ...] = ()
    condition: bool = False
    """Read to decide a branch."""
    aggregate: bool = False
    shadowed: str = ""
    """An argument that a column of the same name hides."""

    @property
    def loose(self) -> bool:
        return self.label in LOOSE and not self.gated


@dataclass
class Reading:
    """The outcome for one function (of a trigger: on one table)."""

    exposures: list[Exposure] = field(default_factory=list)
    raises: bool = False
    unqualified: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Relations named without a schema."""
    calls: set[tuple[str, ...]] = field(default_factory=set)
    injected: dict[str, bool] = field(default_factory=dict)
    """Names of text that gets into SQL without quotes, and whether the body looks at its value first."""
    answers: bool = False
    """Whether a branch that does not depend on the session returns true."""
    chosen: list[str] = field(default_factory=list)
    """What the caller names a relation by whose rows are not held against the session."""
    complete: bool = True
    """Whether all of it could be read."""


class Rows:
    """Collects the exposures of one body's queries."""

    def __init__(self, subject: Subject, function: Function, body: Body) -> None:
        self.subject, self.function, self.body = subject, function, body
        self.reading = Reading()
        self.sources: dict[int, Relation] = {}
        self.origins: dict[str, tuple[str, ...]] = {}
        """Arguments that the rows in a variable were found by."""
        self.validated: set[str] = set()
        """Arguments that a branch compares with given values."""
        self.gated = False
        self._ways: dict[int, list[Way]] = {}
        self._labelled: dict[int, tuple[Way, dict[Slot, Label]]] = {}

    def _labels(self, way: Way) -> dict[Slot, Label]:
        known = self._labelled.get(id(way))
        if known is None:
            # The way is kept, so that no other takes its identity.
            known = self._labelled[id(way)] = way, labels(way, self._ties)
        return known[1]

    def _within(self, query: Query) -> list[Way]:
        """The ways to meet a query's conditions outside any other; read once for each statement."""
        known = self._ways.get(id(query))
        if known is None:
            known = self._ways[id(query)] = Conditions(self.body, ()).within(query)
        return known

    def _row_labels(self, query: Query, way: Way) -> list[Label]:
        known = self._labels(way)
        return [self._label(source, known, way)[0] for source in query.sources if source.name]

    def _ties(self, source: int, column: str) -> bool:
        known = self.body.sources.get(source)
        if column == "*":
            return not (known and known.name and known.name[-1] in self.body.transitions)
        relation = self.body.find(known.name) if known and known.name else None
        return relation is None or column in tied(self.subject, relation)

    def _label(self, source: Source, known: dict[Slot, Label], way: Way) -> tuple[Label, tuple[str, ...]]:
        label = known.get((id(source), ""))
        if label in ("session", "secret", "constant"):
            return label, ()
        names: list[str] = []
        for fact in way:
            if isinstance(fact, Link):
                for one, other in ((fact.left, fact.right), (fact.right, fact.left)):
                    if any(slot[0] == id(source) for slot in one.columns):
                        names += sorted(other.arguments)
        found: Label = "person" if label == "person" else "argument" if names else "open"
        return found, tuple(dict.fromkeys(names))

    def _query(self, query: Query, statement: Statement, outer: tuple[tuple[Way, ...], Scopes] = (((),), ())) -> None:
        ways, scopes = outer
        for inner in query.tables.values():
            for one in inner:
                if one.kind != "select" or not _used(query, inner):
                    self._query(one, statement)
        self._resolve(query)
        own = Conditions(self.body, scopes).within(query) if scopes else self._within(query)
        together = tuple((*a, *b) for a in ways[:16] for b in own[:16])
        self._expose(query, statement, together)
        inside = (query, *scopes)
        for source in query.sources:
            for one in source.queries:
                self._query(one, statement, (together, scopes))
        for group in nested(query):
            for one in self.body.inner(group, query.visible):
                self._query(one, statement, (together, inside))
        for one in query.inserted:
            self._query(one, statement, (ways, scopes))

    def _resolve(self, query: Query) -> None:
        for source in [*query.sources, *([query.target] if query.target else [])]:
            relation = self.body.find(source.name) if source.name else None
            if relation is not None:
                self.sources[id(source)] = relation
            for inner in source.queries:
                self._resolve(inner)

    def _expose(self, query: Query, statement: Statement, ways: tuple[Way, ...]) -> None:
        shadow = self._shadow(ways)
        for source in query.sources:
            relation = self.sources.get(id(source))
            if source.chosen:
                self._choose(source, query, ways)
            if relation is None:
                continue
            worst: tuple[Label, tuple[str, ...], bool] = ("session", (), False)
            for way in ways:
                label, names = self._label(source, self._labels(way), way)
                gated = self.gated or gate(way)
                if _badness(label, gated) > _badness(worst[0], worst[2]):
                    worst = (label, names, gated)
            command = query.kind.upper() if source is query.target else "SELECT"
            for target in statement.targets:
                self.origins[target] = (*self.origins.get(target, ()), *worst[1])
            self.reading.exposures.append(
                Exposure(
                    relation, command, worst[0], worst[1], worst[2], statement.targets, statement.kind == "condition",
                    is_aggregate(query.output), shadow.get(id(source), ""),
                )
            )  # fmt: skip
        if query.kind == "insert" and query.target is not None:
            self._inserted(query, statement)

    def _choose(self, source: Source, query: Query, ways: tuple[Way, ...]) -> None:
        names = sorted(Reader(self.body, (query,)).term(source.chosen).arguments - self.validated)
        loose = any(self._label(source, self._labels(way), way)[0] in LOOSE for way in ways)
        if names and loose and not self.gated:
            self.reading.chosen.append(names[0])

    def _shadow(self, ways: tuple[Way, ...]) -> dict[int, str]:
        found: dict[int, str] = {}
        names = set(self.function.argument_names)
        for way in ways:
            for fact in way:
                if (
                    isinstance(fact, Link)
                    and fact.left.plain
                    and fact.right.plain
                    and fact.left.columns
                    and fact.left.columns == fact.right.columns
                ):
                    source, name = next(iter(fact.left.columns))
                    if name in names:
                        found[source] = name
        return found

    def _inserted(self, query: Query, statement: Statement) -> None:
        target = query.target
        relation = self.sources.get(id(target)) if target else None
        if relation is None:
            return
        classified = self.subject.tenancy.of(relation.oid)
        wanted = set(classified.path[0].columns) if classified.path else {classified.key}
        columns = query.columns or [column.name for column in relation.columns if not column.generated]
        for position, name in enumerate(columns):
            if name not in wanted:
                continue
            label, names = self._written(query, position)
            self.reading.exposures.append(Exposure(relation, "INSERT", label, names, self.gated, statement.targets))

    def _written(self, query: Query, position: int) -> tuple[Label, tuple[str, ...]]:
        """What the value of one column of the new rows is held against."""
        worst: tuple[Label, tuple[str, ...]] = ("session", ())
        for inner in query.inserted:
            reader = Reader(self.body, (inner,))
            ways = self._within(inner) if inner.kind != "values" else [()]
            values = [row[position] for row in inner.rows if position < len(row)]
            if inner.kind != "values" and position < len(inner.output):
                values = [inner.output[position]]
            for value in values:
                for way in ways:
                    one = self._value_label(reader, value, self._labels(way))
                    if STRENGTH[one[0]] > STRENGTH[worst[0]]:
                        worst = one
        return worst

    def _value_label(self, reader: Reader, value: Nodes, known: dict[Slot, Label]) -> tuple[Label, tuple[str, ...]]:
        term = reader.term(value)
        if fresh(value):
            return "constant", ()
        loose = tuple(sorted(name for name in term.arguments if known.get((0, name)) != "session"))
        if loose:
            return "argument", loose
        for slot in term.columns:
            if known.get(slot) is None and known.get((slot[0], "")) is None:
                return "open", ()
        return ("session" if term.session or term.columns else "constant"), ()


def _badness(label: Label, gated: bool) -> tuple[bool, int]:
    return (label in LOOSE and not gated, STRENGTH[label])


def _used(query: Query, inner: tuple[Query, ...]) -> bool:
    return any(source.queries == inner for source in query.sources)


def is_aggregate(items: Sequence[Nodes]) -> bool:
    """Whether a select list consists of aggregates."""
    return bool(items) and all(
        len(item) > 1 and isinstance(item[0], Token) and item[0].text in _AGGREGATES and isinstance(item[1], Group)
        for item in items
    )


def nested(query: Query) -> Iterator[Group]:
    """Subqueries in the expressions of a query."""
    for nodes in [*query.output, *(c for c, _ in query.conditions), *(v for _, v in query.assigned), *query.other]:
        yield from subqueries(nodes)
    for row in query.rows:
        for value in row:
            yield from subqueries(value)
    for source in query.sources:
        yield from subqueries(source.call)
