"""A small SQL expression parser for bodies of functions kept as text; it refuses whatever it does not know.

Reads constants, casts, current_setting, NULLIF, COALESCE, JSON arrows, comparisons, IS tests, IN, ANY, EXISTS,
AND/OR/NOT, CASE, columns of the relations in FROM, arguments and calls of user functions; one condition of an AND
that it cannot read becomes ``Opaque``.  Names are taken as the server would with pg_catalog first; operators are only
those of types whose meaning is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.nodetree import NodeTreeError
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function

if TYPE_CHECKING:
    from rlsaudit.catalog.scope import Scope
    from rlsaudit.catalog.translate import Translator

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
_ENDS_CONDITION = frozenset(
    {"", ";", "and", "or", "then", "else", "when", "end", "group", "order", "limit", "union", "having", "loop",
     "offset", "fetch", "for", "window", "except", "intersect", "returning", "into", "from", ","}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """A relation in FROM."""

    alias: str
    relation: Relation
    number: int
    query: int
    level: int

    def column(self, name: str) -> e.Column | None:
        found = self.relation.column(name)
        if found is None:
            return None
        return e.Column(
            name, found.number, self.level, found.base_type, found.not_null, self.number, self.query, bool(found.generated)
        )  # fmt: skip


class Parser:
    tolerance = False
    """Whether a condition that cannot be read is taken for one that may be anything."""

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
        self.sources: list[tuple[Source, ...]] = []
        self.variables: dict[str, Expression] = {}

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
        parts = [self.condition()]
        while self.accept("and"):
            parts.append(self.condition())
        return parts[0] if len(parts) == 1 else e.And(tuple(self.boolean(part) for part in parts))

    def condition(self) -> Expression:
        """One condition, Opaque when it cannot be read but it is plain where it ends."""
        return self.tolerant(self.negation, "boolean") if self.tolerance else self.negation()

    def tolerant(self, parse: Callable[[], Expression], type_name: str) -> Expression:
        begin = self.position
        try:
            value = parse()
            if self.peek() in _ENDS_CONDITION or self.peek() == ")":
                return value
        except NodeTreeError:
            pass
        self.position = begin
        self._skip()
        if self.position == begin:
            raise NodeTreeError("an expression is missing")
        return e.Opaque(f"an expression in the function {self.function.name}", (), type_name)

    def _skip(self) -> None:
        """To the end of a condition."""
        depth, between = 0, False
        while self.position < len(self.tokens):
            word = self.peek()
            if depth == 0 and (word == ")" or (word in _ENDS_CONDITION and not (between and word == "and"))):
                return
            between = word == "between" or (between and word != "and")
            depth += (word in ("(", "case", "[")) - (word in (")", "]") or (word == "end" and depth > 0))
            self.position += 1

    def negation(self) -> Expression:
        return e.Not(self.boolean(self.negation())) if self.accept("not") else self.predicate()

    def boolean(self, value: Expression) -> Expression:
        if value.type != "boolean":
            raise NodeTreeError("a condition that is not boolean")
        return value

    def predicate(self) -> Expression:
        left = self.primary()
        if self.accept("is"):
            return self._is(left)
        negated = self.accept("not")
        if self.accept("in"):
            found = self._in(left)
            return e.Not(found) if negated else found
        if negated:
            raise NodeTreeError("an unknown test")
        for sign in ("=", "<>", "!=", "<=", ">=", "<", ">"):
            if self.accept(sign):
                if sign == "=" and self.accept("any"):
                    return self._any(left)
                left, right = self.comparable(left, self.primary())
                name = "<>" if sign == "!=" else sign
                return e.Compare(name, left, right, name in ("=", "<>"))
        return left

    def _is(self, left: Expression) -> Expression:
        negated = self.accept("not")
        if self.accept("null"):
            return e.NullTest(left, not negated)
        tests: tuple[tuple[str, bool | None], ...] = (("true", True), ("false", False), ("unknown", None))
        for word, value in tests:
            if self.accept(word):
                return e.BooleanTest(self.boolean(left), value, negated)
        self.expect("distinct", "from")
        left, right = self.comparable(left, self.primary())
        distinct = e.Distinct(left, right, True)
        return e.Not(distinct) if negated else distinct

    def _in(self, left: Expression) -> Expression:
        if self.peek(1) == "select":
            return self.subquery("any", left)
        self.expect("(")
        items = [self.comparable(left, self.primary())[1]]
        while self.accept(","):
            items.append(self.comparable(left, self.primary())[1])
        self.expect(")")
        return e.InList("=", left, tuple(items), True, True)

    def _any(self, left: Expression) -> Expression:
        if self.peek(1) == "select":
            return self.subquery("any", left)
        self.expect("(")
        array = self.primary()
        self.expect(")")
        if array.type != f"{left.type}[]":
            raise NodeTreeError("an array of another type")
        return e.AnyArray("=", left, array, True, True)

    def subquery(self, kind: Literal["exists", "any", "scalar", "array"], operand: Expression | None) -> Expression:
        """``(SELECT …)``, which only the reader of whole queries can read."""
        raise NodeTreeError(f"a subquery: {kind} of {operand}")

    def comparable(self, left: Expression, right: Expression) -> tuple[Expression, Expression]:
        """Both sides of one equality whose meaning is known; an untyped constant takes the other side's
        type."""
        if isinstance(left, e.Constant) != isinstance(right, e.Constant):
            if isinstance(left, e.Constant) and left.type == "text":
                left = e.Cast(left, right.type)
            elif isinstance(right, e.Constant) and right.type == "text":
                right = e.Cast(right, left.type)
        same = left.type == right.type and left.type in self.translator.enumerations
        if not same and not any({left.type, right.type} <= group for group in _COMPARABLE):
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
        if name is None:
            name = self._enumeration()
        else:
            self.position += 1
        if name is None or self.peek() == "(":
            raise NodeTreeError("unknown type")
        return name + "[]" if self.accept("[", "]") else name

    def _enumeration(self) -> str | None:
        """An enumeration of the schema, when only one has the name."""
        words = [self.identifier()]
        if self.accept("."):
            words.append(self.identifier())
        found = [one for one in self.translator.enumerations if one.replace('"', "").split(".")[-len(words) :] == words]
        return found[0] if len(found) == 1 else None

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
        if self.peek() == "(" and self.peek(1) == "select":
            return self._wrapped()
        if self.accept("("):
            value = self.disjunction()
            self.expect(")")
            return value
        if self.peek() == "exists" and self.peek(1) == "(":
            self.position += 1
            return self.subquery("exists", None)
        if self.peek() == "array" and self.peek(1) == "(":
            self.position += 1
            return self.subquery("array", None)
        return self.named()

    def _wrapped(self) -> Expression:
        begin = self.position
        try:
            self.position += 2
            value = self.disjunction()
            self.expect(")")
            return value
        except NodeTreeError:
            self.position = begin
            return self.subquery("scalar", None)

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
        """A column, a variable, an argument, or a call."""
        first = self.identifier()
        schema, name = (first, self.identifier()) if self.accept(".") else ("", first)
        if not self.accept("("):
            return self._variable(schema, name)
        values: list[Expression] = []
        while not self.accept(")"):
            if values:
                self.expect(",")
            values.append(self.disjunction())
        return self.called(schema, name, tuple(values))

    def _variable(self, prefix: str, name: str) -> Expression:
        names = self.function.argument_names
        for sources in reversed(self.sources):
            found = [source.column(name) for source in sources if prefix in ("", source.alias)]
            columns = [column for column in found if column is not None]
            if len(columns) > 1 or (prefix and found and not columns):
                raise NodeTreeError("an ambiguous name")
            if columns:
                if not prefix and self.function.language != "sql" and (name in self.variables or name in names):
                    raise NodeTreeError("an ambiguous name")
                return columns[0]
        if not prefix and name in self.variables:
            return self.variables[name]
        if prefix in ("", self.function.name) and names.count(name) == 1:
            return self.argument(names.index(name) + 1)
        raise NodeTreeError("unknown name")

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
        named = self.translator.catalog.functions_named(name)
        found = named.get(schema, ()) if schema else tuple(chain.from_iterable(named.values()))
        if len(found) != 1 or found[0].returns_set or found[0].return_type == 0 or found[0].kind != "function":
            raise NodeTreeError("unknown function")
        one = found[0]
        return self.translator.call(one.oid, values, self.translator.types.name(one.return_type), self.scope)
