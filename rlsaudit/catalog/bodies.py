"""What a function kept as text returns: SELECTs over relations, and plpgsql of assignments, IF, RETURN and RAISE.

Fail-closed: a statement that is not known gives nothing, a condition that is not known may be anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.nodetree import NodeTreeError
from rlsaudit.catalog.routines import Function
from rlsaudit.catalog.selects import Rows, Selects
from rlsaudit.catalog.simplify import RAISES
from rlsaudit.catalog.tokens import tokens_of

if TYPE_CHECKING:
    from rlsaudit.catalog.scope import Scope
    from rlsaudit.catalog.translate import Translator

MAX_PATHS = 32


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


class _Body(Selects):
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


def _all(guards: tuple[Expression, ...]) -> Expression | None:
    return None if not guards else guards[0] if len(guards) == 1 else e.And(guards)
