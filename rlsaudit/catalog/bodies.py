"""What a function kept as text returns: SELECTs over relations, and plpgsql of assignments, IF, RETURN and RAISE.

Fail-closed: a statement that is not known gives nothing, a condition that is not known may be anything.  Relations
without a schema are refused where a temporary table of the session could stand in for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.inline import Parser, Source, tokens_of
from rlsaudit.catalog.model import Function, Relation
from rlsaudit.catalog.nodetree import NodeTreeError
from rlsaudit.catalog.simplify import RAISES

if TYPE_CHECKING:
    from rlsaudit.catalog.scope import Scope
    from rlsaudit.catalog.translate import Translator

MAX_PATHS = 32
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


def body_of_text(
    translator: Translator, function: Function, arguments: tuple[Expression, ...], scope: Scope
) -> Expression | None:
    """The expression a function returns, or None when its text is not understood."""
    try:
        body = _Body(translator, function, arguments, scope, tokens_of(function.source))
        wanted = translator.types.name(function.return_type)
        if function.language == "plpgsql":
            result = body.procedure(wanted)
            # What depends on a variable is told by the body's text, which a reading with a hole in it would hide.
            hidden = any(isinstance(part, e.Opaque) and part.why != RAISES.why for part in e.walk(result))
            return None if hidden else result
        return body.coerced(body.value(), wanted, "sql")
    except (NodeTreeError, RecursionError):
        return None


def rows_of_text(
    translator: Translator, function: Function, arguments: tuple[Expression, ...], scope: Scope
) -> tuple[Rows, ...] | None:
    """What a set-returning function returns, or None when its text is not understood."""
    try:
        body = _Body(translator, function, arguments, scope, tokens_of(function.source))
        if function.language == "plpgsql":
            return tuple(body.returned())
        found = tuple(body.queries())
        body.end()
        return found
    except (NodeTreeError, RecursionError):
        return None


class _Body(Parser):
    tolerance = True

    def end(self) -> None:
        self.accept(";")
        if self.peek() != "":
            raise NodeTreeError("text after the statement")

    # Queries

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
        found = [r for r in self.translator.catalog.relations if r.name == name and schema in ("", r.schema)]
        if len(found) != 1 or self.peek() == "(" or (not schema and _shadowed(self.function)):
            raise NodeTreeError("a relation that is not known for certain")
        return found[0]

    # Procedures

    def procedure(self, wanted: str) -> Expression:
        """What plpgsql returns, as nested CASE."""
        self._declarations()
        result = self._statements(wanted, _Paths())
        if result is None:
            raise NodeTreeError("the end without RETURN")
        return result

    def _declarations(self) -> None:
        if self.accept("declare"):
            while self.peek() != "begin":
                name = self.identifier()
                self.accept("constant")
                kind = self._type_or_none()
                value: Expression = e.Constant(None, kind)
                if self.accept(":=") or self.accept("=") or self.accept("default"):
                    value = self._as(self.tolerant(self.disjunction, kind), kind)
                self.expect(";")
                self.variables[name] = value
        self.expect("begin")
        words = [text.lower() for kind, text in self.tokens if kind == "word"]
        if any(word == "exception" and words[i - 1] != "raise" for i, word in enumerate(words)):
            raise NodeTreeError("a handler of errors")

    def _type_or_none(self) -> str:
        try:
            return self.type_name()
        except NodeTreeError:
            while self.peek() not in (";", ":=", "=", "default", ""):
                self.position += 1
            return "unknown"

    def _as(self, value: Expression, kind: str) -> Expression:
        if kind == "unknown" or isinstance(value, e.Opaque):
            return e.Opaque("a variable in a function", (), kind)
        return value if value.type == kind else self.coerced(value, kind, "plpgsql")

    def _statements(self, wanted: str, paths: _Paths) -> Expression | None:
        """What the statements from here to the end of the block return; None when they only go on."""
        paths.count += 1
        if paths.count > MAX_PATHS:
            raise NodeTreeError("too many paths")
        while True:
            if self.accept("return"):
                value = self.tolerant(self.disjunction, wanted)
                result = e.Opaque("a result", (), wanted) if isinstance(value, e.Opaque) else self._as(value, wanted)
                self._leave()
                return result
            if self._raises():
                self._leave()
                return replace(RAISES, type=wanted)
            if self.accept("if"):
                return self._branches(wanted, paths)
            if self.accept("end"):
                if self.accept("if"):
                    self.expect(";")  # the branch goes on after its IF
                    continue
                return None
            if self.peek() in ("elsif", "elseif", "else"):
                self._after_if()
                continue
            self._simple()

    def _branches(self, wanted: str, paths: _Paths) -> Expression | None:
        """IF: either branch, each followed by what comes after it."""
        condition = self.boolean(self.tolerant(self.disjunction, "boolean"))
        self.expect("then")
        begin, variables = self.position, dict(self.variables)
        then = self._statements(wanted, paths)
        self.position, self.variables = begin, variables
        self._to_next_branch()
        if self.accept("elsif") or self.accept("elseif"):
            otherwise = self._branches(wanted, paths)
        else:
            if not self.accept("else"):
                self.expect("end", "if", ";")
            otherwise = self._statements(wanted, paths)
        if then is None or otherwise is None:
            raise NodeTreeError("the end without RETURN")
        return e.Case(((condition, then),), otherwise, wanted)

    def _to_next_branch(self) -> None:
        """To the ELSE, ELSIF or END IF of the IF that the position is in."""
        depth = 0
        while self.position < len(self.tokens):
            word = self.peek()
            if depth == 0 and (word in ("else", "elsif", "elseif") or (word == "end" and self.peek(1) == "if")):
                return
            if word == "end":
                depth -= 1
                self.position += self.peek(1) in ("if", "case")
            elif word in ("if", "case"):
                depth += 1
            self.position += 1
        raise NodeTreeError("an IF without an end")

    def _after_if(self) -> None:
        while self.peek() in ("else", "elsif", "elseif"):
            self.position += 1
            self._to_next_branch()
        self.expect("end", "if", ";")

    def _leave(self) -> None:
        if self.peek() != ";":
            raise NodeTreeError("a statement goes on")

    def _raises(self) -> bool:
        if self.peek() != "raise":
            return False
        level = self.peek(1)
        while self.peek() not in (";", ""):
            self.position += 1
        if level not in ("notice", "warning", "info", "log", "debug"):
            return True
        self.expect(";")
        return self._raises()

    def _simple(self) -> None:
        """An assignment, SELECT … INTO a variable, or NULL."""
        if self.accept("null", ";"):
            return
        if self.peek() == "select":
            self._into()
            return
        name = self.identifier()
        if name not in self.variables or not (self.accept(":=") or self.accept("=")):
            raise NodeTreeError("an unknown statement")
        kind = self.variables[name].type
        self.variables[name] = self._as(self.tolerant(self.disjunction, kind), kind)
        self.expect(";")

    def _into(self) -> None:
        """``SELECT expression INTO name FROM …`` or ``SELECT INTO name expression FROM …``."""
        begin = self.position
        while self.peek() not in ("into", ";", ""):
            self.position += 1
        at = self.position
        self.expect("into")
        self.accept("strict")
        name = self.identifier()
        if name not in self.variables or self.peek() == ",":
            raise NodeTreeError("an unknown variable")
        into = self.tokens[at : self.position]
        del self.tokens[at : self.position]  # what remains is an ordinary query
        self.position = begin
        kind = self.variables[name].type
        self.variables[name] = self._as(self.single(self.query()), kind)
        self.expect(";")
        self.tokens[at:at] = into
        self.position += len(into)

    def returned(self) -> Iterator[Rows]:
        """What plpgsql returns as a set: RETURN QUERY and RETURN NEXT, each with the conditions on its way."""
        self._declarations()
        yield from self._returned((), _Paths())

    def _returned(self, guards: tuple[Expression, ...], paths: _Paths) -> Iterator[Rows]:
        paths.count += 1
        if paths.count > MAX_PATHS:
            raise NodeTreeError("too many paths")
        while True:
            if self.accept("return", "query"):
                for rows in self.queries():
                    yield replace(rows, guard=_all(guards))
                self.expect(";")
            elif self.accept("return", "next"):
                value = self.tolerant(self.disjunction, "unknown")
                self.translator.queries += 1
                yield Rows(value, None, (), self.translator.queries, _all(guards))
                self.expect(";")
            elif self.accept("return", ";") or self._raises():
                return
            elif self.accept("if"):
                yield from self._returned_branches(guards, paths)
                return
            elif self.accept("end"):
                if not self.accept("if"):
                    return
                self.expect(";")
            elif self.peek() in ("elsif", "elseif", "else"):
                self._after_if()
            else:
                self._simple()

    def _returned_branches(self, guards: tuple[Expression, ...], paths: _Paths) -> Iterator[Rows]:
        condition = self.boolean(self.tolerant(self.disjunction, "boolean"))
        self.expect("then")
        begin, variables = self.position, dict(self.variables)
        yield from self._returned((*guards, condition), paths)
        self.position, self.variables = begin, variables
        self._to_next_branch()
        guards = (*guards, e.BooleanTest(condition, True, True))
        if self.accept("elsif") or self.accept("elseif"):
            yield from self._returned_branches(guards, paths)
            return
        if not self.accept("else"):
            self.expect("end", "if", ";")
        yield from self._returned(guards, paths)


@dataclass
class _Paths:
    count: int = 0


def _shadowed(function: Function) -> bool:
    """Whether a temporary table comes before the relation of a name without a schema."""
    for setting in function.settings:
        name, _, value = setting.partition("=")
        if name.lower() == "search_path":
            schemas = [part.strip().strip('"') for part in value.split(",")]
            return "pg_temp" not in schemas[1:]
    return True


def _all(guards: tuple[Expression, ...]) -> Expression | None:
    return None if not guards else guards[0] if len(guards) == 1 else e.And(guards)


def _either(parts: list[Expression]) -> Expression:
    return parts[0] if len(parts) == 1 else e.Or(tuple(parts))
