"""What a function's body does to tenant tables, statement by statement."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise

from rlsaudit.checks._dynamic import Texts, safe_type, takes_sql
from rlsaudit.checks._known import READABLE, anchored, enums, find_relation, session_functions
from rlsaudit.checks._query import Query, queries, subqueries
from rlsaudit.checks._rows import Reading, Rows, nested
from rlsaudit.checks._sql import Group, Nodes, Token, is_symbol, is_word, legible, split, walk
from rlsaudit.checks._statements import Statement, statements
from rlsaudit.checks._terms import STRENGTH, Body, Label, Reader, fresh
from rlsaudit.checks._ways import Link, presence

from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Subject, kept

_USE_COLUMN = re.compile(r"#variable_conflict\s+use_column")
_TRANSITION = re.compile(r'\b(?:OLD|NEW) TABLE AS (?:"((?:[^"]|"")+)"|([\w$]+))')


@kept
def _kept_readings(subject: Subject) -> dict[tuple[int, int], Reading]:
    return {}


def reading(subject: Subject, function: Function, row: Relation | None = None) -> Reading:
    """The reading of a function's body; ``row``: the table whose trigger calls it."""
    known = _kept_readings(subject)
    key = (function.oid, row.oid if row else 0)
    if key not in known:
        known[key] = _Walk(subject, function, row).run()
    return known[key]


class _Walk(Rows):
    def __init__(self, subject: Subject, function: Function, row: Relation | None) -> None:
        source, known = function.source, anchored(subject, row) if row else None
        body = Body(
            function,
            partial(find_relation, subject, function),
            lambda name: name in session_functions(subject),
            anchored=known,
            new_is_free=row is not None and row.kind == "view",
            column_first=function.language == "sql"
            or bool(_USE_COLUMN.search(source))
            or any(setting.lower() == "plpgsql.variable_conflict=use_column" for setting in function.settings),
        )
        super().__init__(subject, function, body)
        self.row = row
        for trigger in subject.catalog.triggers_of(row.oid) if row else ():
            if trigger.function == function.oid:
                for quoted, plain in _TRANSITION.findall(trigger.definition):
                    body.transitions[quoted.replace('""', '"') or plain] = known or frozenset()
        self.checks: dict[str, tuple[frozenset[str], bool]] = {}
        """Variables that answer a question about the session: arguments it was about, and whether it was about a row."""
        self.branch: Nodes | None = None
        self.texts = Texts(self._loose())

    def _loose(self) -> Callable[[tuple[str, ...]], bool]:
        """Whether a name stands for text of the caller's choice."""
        function, row = self.function, self.row
        types = dict(zip(function.argument_names, function.argument_types, strict=False))
        types |= {f"${n}": kind for n, kind in enumerate(function.argument_types, start=1)}

        def loose(parts: tuple[str, ...]) -> bool:
            kind = types.get(parts[-1] if len(parts) > 1 and parts[-1] in types else parts[0])
            if row is not None and parts[0] in ("new", "old") and len(parts) > 1:
                column = row.column(parts[1])
                kind = column.base_type if column else None
            return kind is not None and not safe_type(kind) and kind not in enums(self.subject)

        return loose

    def run(self) -> Reading:
        if self.function.language not in READABLE or not legible(self.function.source):
            self.reading.complete = False
            return self.reading
        for statement in statements(self.function.source, self.function.language):
            if statement.kind == "raise":
                first = statement.nodes[0] if statement.nodes else None
                quiet = is_word(first, "notice", "info", "debug", "log", "warning")
                self.reading.raises = self.reading.raises or not quiet
            elif statement.kind == "execute":
                self._dynamic(statement)
            elif statement.kind != "end":
                self._statement(statement)
        self.reading.complete = self.reading.complete and not self.body.overflow
        return self.reading

    def _dynamic(self, statement: Statement) -> None:
        for name in self.texts.injected(statement.nodes):
            self.reading.injected[name] = name in self.validated
        text = self.texts.expanded(statement.nodes, statement.using)
        if text is None:
            self.reading.complete = False
        else:
            self._statement(replace(statement, kind="query", nodes=text))

    def _statement(self, statement: Statement) -> None:
        self._ways.clear()
        self._labelled.clear()
        self._names(statement.nodes)
        for sql in takes_sql(statement.nodes):
            for name in self.texts.injected(sql):
                self.reading.injected[name] = name in self.validated
        self._switches(statement.nodes)
        if statement.kind == "condition":
            self._condition(statement.nodes)
        self._answers(statement)
        found = queries(statement.nodes)
        if found:
            for query in found:
                self._query(query, statement)
            if statement.targets or statement.kind == "query":
                self._assigned(statement, found)
            return
        for group in subqueries(statement.nodes):
            for query in self.body.inner(group):
                self._query(query, statement)
        if statement.targets:
            held = frozenset(name for source, name in Reader(self.body, ()).term(statement.nodes).held if not source)
            self._given_by_call(statement, held, statement.nodes)
            self._give(statement.targets, self._value(statement.nodes))
            for target in statement.targets:
                self.texts.give(target, statement.nodes)

    def _answers(self, statement: Statement) -> None:
        """Notes a RETURN true in a branch that does not depend on the session."""
        yes = statement.kind == "return" and len(statement.nodes) == 1 and is_word(statement.nodes[0], "true")
        if yes and self.branch is not None and not self._of_session(self.branch):
            self.reading.answers = True
        self.branch = statement.nodes if statement.kind == "condition" else None

    def _of_session(self, nodes: Nodes) -> bool:
        words = {node.identifier for node in walk(nodes) if isinstance(node, Token)}
        reader = Reader(self.body, ())
        inner = [query for group in subqueries(nodes) for query in self.body.inner(group)]
        return bool(inner or words & self.checks.keys() or reader.term(nodes).session)

    def _value(self, nodes: Nodes) -> Label:
        if fresh(nodes):
            return "constant"
        found: Label = "constant"
        term = Reader(self.body, ()).term(nodes)
        if term.arguments:
            found = "argument"
        elif term.session:
            found = "session"
        for group in subqueries(nodes):
            for query in self.body.inner(group):
                found = max(found, self._result(query), key=STRENGTH.__getitem__)
        return found

    def _give(self, targets: Iterable[str], label: Label) -> None:
        for target in targets:
            name = target.partition(".")[0]
            if name and name not in ("new", "old"):
                old = self.body.variables.get(name)
                # A constant is a start value; a later assignment says what it is.
                self.body.variables[name] = (
                    label if old in (None, "constant") else max(old, label, key=STRENGTH.__getitem__)
                )

    def _assigned(self, statement: Statement, found: tuple[Query, ...]) -> None:
        label = max((self._result(query) for query in found), key=STRENGTH.__getitem__)
        checked: frozenset[str] | None = None
        bare = True
        for query in found:
            ways = self._within(query)
            for way in ways:
                known = self._labels(way)
                names = frozenset(name for (source, name), one in known.items() if not source and one == "session")
                checked = names if checked is None else checked & names
                bare = bare and any(one == "session" for (source, _), one in known.items() if source)
            for item in query.output:
                term = Reader(self.body, (query,)).term(item)
                held = frozenset(name for source, name in term.held if not source)
                if held and not query.sources:
                    checked = (checked or frozenset()) | held
                    self._given_by_call(statement, held, item)
                elif term.session and not query.sources and not statement.targets and not term.arguments:
                    self.gated = self.gated or self._raising(item)
        self._give(statement.targets, label)
        unsafe = frozenset(name for query in found for item in query.output for name in self.texts.injected(item))
        for target in statement.targets:
            self.texts.unsafe[target] = self.texts.unsafe.get(target, frozenset()) | unsafe
        for target in statement.targets or ("found",):
            self.checks[target.partition(".")[0]] = (checked or frozenset(), bare)
        self.checks["found"] = (checked or frozenset(), bare and not statement.targets)

    def _given_by_call(self, statement: Statement, held: frozenset[str], nodes: Nodes) -> None:
        """Arguments given to a function that looks at the session: checked when it raises, else once its answer is."""
        if not statement.targets or self._raising(nodes):
            self._hold(held)
        elif held:
            for target in statement.targets:
                self.checks[target.partition(".")[0]] = (held, False)

    def _raising(self, item: Nodes) -> bool:
        names = {node.identifier for node in walk(item) if isinstance(node, Token)} & session_functions(self.subject)
        by_schema = (self.subject.catalog.functions_named(name).values() for name in names)
        named = chain.from_iterable(chain.from_iterable(by_schema))
        return any(re.search(r"\braise\b", one.source, re.IGNORECASE) for one in named)

    def _hold(self, names: Iterable[str]) -> None:
        """Counts arguments and variables as the session's, and the rows and arguments that they came from."""
        for name in names:
            if self.body.variables.get(name) == "session":
                continue
            self.body.variables[name] = "session"
            self.reading.exposures = [
                replace(one, label="session") if name in one.targets and one.label in ("person", "argument") else one
                for one in self.reading.exposures
            ]
            self._hold(self.origins.pop(name, ()))

    def _result(self, query: Query) -> Label:
        """What the output of a query is held against."""
        if query.kind == "insert":
            return "constant"
        rows = [self._row_labels(query, way) for way in self._within(query)]
        reader = Reader(self.body, (query,))
        if not query.sources:
            terms = [reader.term(item) for item in query.output]
            if any(term.arguments for term in terms):
                return "argument"
            return "session" if any(term.session for term in terms) else "constant"
        return max((label for row in rows for label in row), key=STRENGTH.__getitem__, default="constant")

    def _condition(self, nodes: Nodes) -> None:
        """A branch: arguments that it ties to the session count as checked, and what it asks of the session gates."""
        reader = Reader(self.body, ())
        for atom in _atoms(nodes):
            words = {node.identifier for node in atom if isinstance(node, Token)}
            if any(is_word(node, "in", "any") or is_symbol(node, "~", "!~", "=", "<>") for node in atom):
                self.validated |= {name for name in self.function.argument_names if name in words}
            for name in words & self.checks.keys():
                held, bare = self.checks[name]
                self._hold(held)
                if bare and not held and not (presence(atom) or ("found" in words and name != "found")):
                    self.gated = True
            inner = [query for group in subqueries(atom) for query in self.body.inner(group)]
            for query in inner:
                self._asked(query)
            term = reader.term(atom)
            held_arguments = {name for source, name in term.held if not source}
            direct = set(term.arguments) if term.session and not presence(atom) and not inner else set()
            self._hold(held_arguments | direct)
            if term.session and not (held_arguments or direct or inner or presence(atom)):
                self.gated = True

    def _asked(self, query: Query) -> None:
        self._resolve(query)
        for way in self._within(query):
            known = self._labels(way)
            held = {name for (source, name), one in known.items() if not source and one == "session"}
            self._hold(held)
            if not held and any(one == "session" for (source, _), one in known.items() if source):
                rowwise = any(isinstance(fact, Link) and (fact.left.arguments or fact.right.arguments) for fact in way)
                self.gated = self.gated or not (rowwise or self.row is not None)

    def _switches(self, nodes: Nodes) -> None:
        """Remembers set_config of a setting to what the caller chooses."""
        flat = list(walk(nodes))
        for node, following in pairwise(flat):
            if is_word(node, "set_config") and isinstance(following, Group):
                parts = split(following.nodes, ",")
                name = parts[0][0] if parts and parts[0] else None
                if len(parts) > 1 and isinstance(name, Token) and name.kind == "string":
                    term = Reader(self.body, ()).term(parts[1])
                    if term.arguments:
                        self.body.switched[name.text.lower()] = sorted(term.arguments)[0]

    def _names(self, nodes: Nodes) -> None:
        for query in _all(queries(nodes) or tuple(q for g in subqueries(nodes) for q in self.body.inner(g)), self.body):
            for source in [*query.sources, *([query.target] if query.target else [])]:
                if len(source.name) == 1 and source.name[0] not in query.tables:
                    self.reading.unqualified[source.name[0]] = source.name
        self.reading.calls |= set(_calls(nodes))


def _atoms(nodes: Nodes) -> Iterator[Nodes]:
    part: list[Nodes] = []
    current: list[Token | Group] = []
    for node in nodes:
        if is_word(node, "and", "or"):
            part.append(tuple(current))
            current = []
        else:
            current.append(node)
    for one in [*part, tuple(current)]:
        if len(one) == 1 and isinstance(one[0], Group) and not list(subqueries(one)):
            yield from _atoms(one[0].nodes)
        elif one:
            yield one


def _all(found: Iterable[Query], body: Body) -> Iterator[Query]:
    for query in found:
        yield query
        for inner in query.tables.values():
            yield from _all(inner, body)
        for source in query.sources:
            yield from _all(source.queries, body)
        yield from _all(query.inserted, body)
        for group in nested(query):
            yield from _all(body.inner(group, query.visible), body)


def _calls(nodes: Nodes) -> Iterator[tuple[str, ...]]:
    """Names of the functions that are called."""
    for position, node in enumerate(nodes):
        if isinstance(node, Group):
            yield from _calls(node.nodes)
            before = nodes[position - 1] if position else None
            if node.opening == "(" and isinstance(before, Token) and before.identifier:
                schema = nodes[position - 3] if position > 2 and is_symbol(nodes[position - 2], ".") else None
                yield (schema.identifier, before.identifier) if isinstance(schema, Token) else (before.identifier,)
