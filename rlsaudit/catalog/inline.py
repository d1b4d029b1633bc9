"""Bodies of functions kept as text: a very small SQL expression parser that refuses whatever it does not
know.

Reads ``SELECT <expression>`` and ``BEGIN RETURN <expression>; END`` with constants, casts, current_setting,
NULLIF, COALESCE, JSON arrows, comparisons, IS [NOT] NULL, AND/OR/NOT, CASE, arguments and calls of user
functions.  Names are taken as the server would with pg_catalog first; operators are only those of types whose
meaning is known.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.model import Function
from rlsaudit.catalog.nodetree import NodeTreeError

if TYPE_CHECKING:
    from rlsaudit.catalog.scope import Scope
    from rlsaudit.catalog.translate import Translator

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>\d+(?![\w.]))|(?P<quoted>"(?:[^"]|"")+")
    |(?P<word>[A-Za-z_]\w*)|(?P<parameter>\$\d+)|(?P<operator>::|->>|->|<>|!=|=|[().,;]))""",
    re.VERBOSE,
)
_STRING_OR_COMMENT = re.compile(r"('(?:[^']|'')*')|--[^\n]*|/\*.*?\*/", re.DOTALL)
_TYPES = {
    "uuid": "uuid", "text": "text", "int": "integer", "integer": "integer", "int4": "integer",
    "bigint": "bigint", "int8": "bigint", "smallint": "smallint", "int2": "smallint", "boolean": "boolean",
    "bool": "boolean", "json": "json", "jsonb": "jsonb", "varchar": "character varying", "name": "name",
}  # fmt: skip
_COMPARABLE = (
    frozenset({"text", "character varying", "name"}),
    frozenset({"integer", "bigint", "smallint"}),
    frozenset({"uuid"}),
    frozenset({"boolean"}),
)
_END = {"", ";"}


def body_of_text(
    translator: Translator, function: Function, arguments: tuple[Expression, ...], scope: Scope
) -> Expression | None:
    """The expression a function returns, or None when its text is anything but one recognised expression."""
    if "\\" in function.source:
        return None  # what a backslash means depends on the kind of string
    source = _STRING_OR_COMMENT.sub(lambda match: match.group(1) or " ", function.source)
    try:
        parser = _Parser(translator, function, arguments, scope, _tokens(source))
        result = parser.body(function.language)
        return parser.coerced(result, translator.types.name(function.return_type), function.language)
    except (NodeTreeError, RecursionError):
        return None


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    position, text = 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise NodeTreeError("unknown token")
        tokens.append((match.lastgroup, match.group(match.lastgroup)))
        position = match.end()
    return tokens


class _Parser:
    def __init__(
        self,
        translator: Translator,
        function: Function,
        arguments: tuple[Expression, ...],
        scope: Scope,
        tokens: list[tuple[str, str]],
    ) -> None:
        self.translator, self.function, self.scope = translator, function, scope
        self.arguments, self.tokens, self.position = arguments, tokens, 0

    def peek(self, ahead: int = 0) -> str:
        """The next token; words in lower case, strings never equal to a word or sign."""
        index = self.position + ahead
        if index >= len(self.tokens):
            return ""
        kind, text = self.tokens[index]
        return text.lower() if kind in ("word", "operator") else f"{kind}:{text}"

    def accept(self, *words: str) -> bool:
        if all(self.peek(i) == word for i, word in enumerate(words)):
            self.position += len(words)
            return True
        return False

    def expect(self, *words: str) -> None:
        if not self.accept(*words):
            raise NodeTreeError(f"expected {' '.join(words)}")

    def body(self, language: str) -> Expression:
        if language == "plpgsql":
            self.expect("begin")
            self.expect("return")
            result = self.disjunction()
            self.expect(";")
            self.expect("end")
        else:
            self.expect("select")
            result = self.disjunction()
        self.accept(";")
        if self.peek() != "":
            raise NodeTreeError("text after the expression")
        return result

    def coerced(self, value: Expression, wanted: str, language: str) -> Expression:
        if value.type == wanted or {value.type, wanted} <= _COMPARABLE[0] - {"name"}:
            return value
        if isinstance(value, e.Constant) and value.value is None:
            return e.Constant(None, wanted)
        if language == "plpgsql":
            return e.Cast(value, wanted)
        raise NodeTreeError("the result has another type")

    def disjunction(self) -> Expression:
        parts = [self.conjunction()]
        while self.accept("or"):
            parts.append(self.conjunction())
        return parts[0] if len(parts) == 1 else e.Or(tuple(self.boolean(part) for part in parts))

    def conjunction(self) -> Expression:
        parts = [self.negation()]
        while self.accept("and"):
            parts.append(self.negation())
        return parts[0] if len(parts) == 1 else e.And(tuple(self.boolean(part) for part in parts))

    def negation(self) -> Expression:
        return e.Not(self.boolean(self.negation())) if self.accept("not") else self.predicate()

    def boolean(self, value: Expression) -> Expression:
        if value.type != "boolean":
            raise NodeTreeError("a condition that is not boolean")
        return value

    def predicate(self) -> Expression:
        left = self.primary()
        if self.accept("is"):
            negated = self.accept("not")
            self.expect("null")
            return e.NullTest(left, not negated)
        for sign in ("=", "<>", "!="):
            if self.accept(sign):
                left, right = self.comparable(left, self.primary())
                return e.Compare("=" if sign == "=" else "<>", left, right, True)
        return left

    def comparable(self, left: Expression, right: Expression) -> tuple[Expression, Expression]:
        """Both sides of one equality whose meaning is known; an untyped constant takes the other side's
        type."""
        if isinstance(left, e.Constant) != isinstance(right, e.Constant):
            if isinstance(left, e.Constant) and left.type == "text":
                left = e.Cast(left, right.type)
            elif isinstance(right, e.Constant) and right.type == "text":
                right = e.Cast(right, left.type)
        if not any({left.type, right.type} <= group for group in _COMPARABLE):
            raise NodeTreeError("a comparison of unknown types")
        return left, right

    def primary(self) -> Expression:
        value = self.atom()
        while True:
            if self.accept("::"):
                value = e.Cast(value, self.type_name())
            elif self.peek() in ("->", "->>") and value.type in ("json", "jsonb"):
                sign = self.peek()
                self.position += 1
                key = self.atom()
                if self.peek() == "::":
                    raise NodeTreeError("a cast that binds to the key")
                value = e.Json(sign, value, key, "text" if sign == "->>" else value.type)
            else:
                return value

    def type_name(self) -> str:
        if self.accept("pg_catalog"):
            self.expect(".")
        name = _TYPES.get(self.peek())
        if name is None or self.peek(1) == "(":
            raise NodeTreeError("unknown type")
        self.position += 1
        return name

    def atom(self) -> Expression:
        if self.position >= len(self.tokens):
            raise NodeTreeError("text ends early")
        kind, text = self.tokens[self.position]
        if kind == "string":
            self.position += 1
            return e.Constant(text[1:-1].replace("''", "'"), "text")
        if kind == "number":
            self.position += 1
            return e.Constant(str(int(text)), "integer" if int(text) < 2**31 else "bigint")
        if kind == "parameter":
            self.position += 1
            return self.argument(int(text[1:]))
        if self.accept("("):
            self.accept("select")
            value = self.disjunction()
            self.expect(")")
            return value
        return self.named()

    def argument(self, number: int) -> Expression:
        if not 1 <= number <= len(self.arguments):
            raise NodeTreeError("unknown argument")
        return self.arguments[number - 1]

    def named(self) -> Expression:
        for word in ("true", "false"):
            if self.accept(word):
                return e.Constant(word, "boolean")
        if self.accept("null"):
            return e.Constant(None, "text")
        if self.accept("case"):
            return self.case()
        for role in ("current_user", "session_user"):
            if self.peek() == role and self.peek(1) != ".":
                self.position += 1
                return self.translator.built_in(role, 0, (), "name", self.scope, "stable")
        return self.reference()

    def case(self) -> Expression:
        branches: list[tuple[Expression, Expression]] = []
        while self.accept("when"):
            condition = self.boolean(self.disjunction())
            self.expect("then")
            branches.append((condition, self.disjunction()))
        default = self.disjunction() if self.accept("else") else e.Constant(None, "text")
        self.expect("end")
        values = [value for _, value in branches] + [default]
        result = self.common(values)
        return e.Case(
            tuple((condition, self.typed(value, result)) for condition, value in branches),
            self.typed(default, result),
            result,
        )

    def common(self, values: list[Expression]) -> str:
        types = {v.type for v in values if not (isinstance(v, e.Constant) and v.type == "text")} or {"text"}
        if len(types) != 1:
            raise NodeTreeError("values of several types")
        return types.pop()

    def typed(self, value: Expression, wanted: str) -> Expression:
        if value.type == wanted:
            return value
        if isinstance(value, e.Constant) and value.value is None:
            return e.Constant(None, wanted)
        return e.Cast(value, wanted)

    def identifier(self) -> str:
        kind, text = self.tokens[self.position] if self.position < len(self.tokens) else ("", "")
        if kind not in ("word", "quoted"):
            raise NodeTreeError("expected a name")
        self.position += 1
        return text.lower() if kind == "word" else text[1:-1].replace('""', '"')

    def reference(self) -> Expression:
        """An argument by name, or a call."""
        first = self.identifier()
        schema, name = (first, self.identifier()) if self.accept(".") else ("", first)
        if not self.accept("("):
            names = self.function.argument_names
            if schema or names.count(name) != 1:
                raise NodeTreeError("unknown name")
            return self.argument(names.index(name) + 1)
        values: list[Expression] = []
        while not self.accept(")"):
            if values:
                self.expect(",")
            values.append(self.disjunction())
        return self.called(schema, name, tuple(values))

    def called(self, schema: str, name: str, values: tuple[Expression, ...]) -> Expression:
        if schema in ("", "pg_catalog"):
            if name == "current_setting" and len(values) in (1, 2):
                return self.translator.built_in(name, 0, values, "text", self.scope, "stable")
            if name == "nullif" and not schema and len(values) == 2:
                left, right = self.comparable(*values)
                return e.NullIf(left, right, True, left.type)
            if name == "coalesce" and not schema and values:
                result = self.common(list(values))
                return e.Coalesce(tuple(self.typed(value, result) for value in values), result)
        return self.user_function(schema, name, values)

    def user_function(self, schema: str, name: str, values: tuple[Expression, ...]) -> Expression:
        """A call of a user function that only one function can be: by its schema, or alone of its name."""
        found = [f for f in self.translator.catalog.functions if f.name == name and (not schema or f.schema == schema)]
        if len(found) != 1 or found[0].returns_set or found[0].return_type == 0:
            raise NodeTreeError("unknown function")
        one = found[0]
        return self.translator.call(one.oid, values, self.translator.types.name(one.return_type), self.scope)
