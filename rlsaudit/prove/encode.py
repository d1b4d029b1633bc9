"""Predicates as solver terms: three-valued logic with errors, one session, any number of rows.

A value is (error, null, value).  An error is not a value: a predicate that ends in one shows no row.
Evaluation order is the server's choice, so AND, OR and strict functions avoid an error where some order does
(what the server does is then that result or an error).  Text, uuid and integers are numbers: constants keep
their identity, casts between text and the others are an uninterpreted pair of functions of which one inverts
the other.

What is not modelled becomes a free value per row, or one per session when it cannot depend on the row:
whatever holds for every free value holds on the server.  With ``opaque="error"`` the same things are errors,
so that a result other than an error does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, depends_on_row, is_volatile, outer_queries, walk
from rlsaudit.catalog.simplify import RAISES
from rlsaudit.catalog.typenames import FIRST_USER_OID
from rlsaudit.prove import applied, logic, lookups, smt
from rlsaudit.prove.applied import MODELLED
from rlsaudit.prove.lookups import Witness
from rlsaudit.prove.samples import Sample
from rlsaudit.prove.smt import FALSE, TRUE, Term
from rlsaudit.prove.tables import NO_WORLD, World
from rlsaudit.prove.values import (
    RANGES,
    UUID_TEXT,
    Row,
    Value,
    kind_of,
    number_text,
    one_or_zero,
    parsing,
    sort_of,
    text_number,
)

SettingsState = Literal["any", "null", "empty"]
"""Settings free, all never set, or all ``''`` (what SET LOCAL leaves behind)."""

# Types whose input function refuses the empty string.
_NOT_EMPTY = frozenset(
    {
        "json", "jsonb", "numeric", "real", "double precision", "date", "oid", "inet", "interval",
        "integer[]", "bigint[]", "uuid[]", "text[]",
        "timestamp with time zone", "timestamp without time zone",
    }
)  # fmt: skip
_LIKE = {"~~": "=", "!~~": "<>"}
_SESSION = (e.Setting, e.SessionRole, e.Subquery)
EMPTY_DOCUMENT: Term = smt.literal(0)


class Encoder:
    """Terms for one question about one session; ``constraints`` belong to the question."""

    def __init__(
        self,
        *,
        role: str | None = None,
        state: SettingsState = "any",
        opaque: Literal["any", "error"] = "any",
        not_null: frozenset[str] = frozenset(),
        world: World = NO_WORLD,
        held: frozenset[str] = frozenset(),
        checks: tuple[Expression, ...] = (),
        samples: bool = False,
    ) -> None:
        self.role, self.state, self.opaque, self.not_null = role, state, opaque, not_null
        self.held, self.checks, self.samples = held, checks, samples
        self.tables, self.relation = dict(world.tables), world.relation
        self.members, self.needed, self.own = dict(world.members), world.needed, world.own
        self.relations: dict[str, int] = {}
        self.roots: dict[str, str] = {}
        self.new: set[str] = set()
        self.reading: list[int] = []
        self.witnesses: list[Witness] = []
        self.constraints: list[Term] = []
        self.unknowns: dict[str, None] = {}
        self.shared: dict[Expression, Value] = {}
        self.seen: dict[tuple[Expression, Row], Value] = {}
        self.columns: dict[tuple[str, int], Value] = {}
        self.texts: dict[str, None] = {"": None}
        self.parsed: dict[tuple[str, str], None] = {}
        self.truths: dict[Term, None] = {}
        self.candidates: dict[Term, tuple[Sample, ...]] = {}
        self.lists: dict[Expression, str] = {}
        self.fresh_count = 0

    def fresh(self, kind: str, name: str = "") -> Term:
        self.fresh_count += 1
        label = name or f"free {self.fresh_count}"
        return smt.truth(label) if kind == "boolean" else smt.number(label)

    def encode(self, expression: Expression, row: Row) -> Value:
        """The value of an expression for a row.  One that does not depend on the row is the same for all
        rows, and any is the same for one row."""
        if is_volatile(expression):
            return self._encode(expression, row)
        if not depends_on_row(expression) and not outer_queries(expression):
            if expression not in self.shared:
                self.shared[expression] = self._encode(expression, row)
            return self.shared[expression]
        if (expression, row) not in self.seen:
            self.seen[expression, row] = self._encode(expression, row)
        return self.seen[expression, row]

    def condition(self, expression: Expression, row: Row) -> Value:
        """``encode`` of what the server takes for a boolean, also where its type was not understood."""
        value = self.encode(expression, row)
        return value if value.kind == "boolean" else self.unknown(f"a condition of type {value.kind}", "boolean")

    def checked(self, row: Row) -> Iterator[Term]:
        """That no CHECK is false for the row.  A row made of samples must be known to pass."""
        unknowns, sampled = dict(self.unknowns), bool(self.candidates)
        for check in self.checks:
            found = self.condition(check, row)
            yield smt.negation(found.is_false)
            if sampled:
                yield smt.negation(found.error)
        self.unknowns = unknowns

    def all(self, expressions: Iterable[Expression], row: Row) -> list[Value]:
        return [self.encode(expression, row) for expression in expressions]

    def _encode(self, expression: Expression, row: Row) -> Value:
        value = _HANDLERS[type(expression)](self, expression, row)
        wanted = kind_of(expression.type)
        if value.kind != wanted:
            return self.unknown(f"type {expression.type}", wanted)
        return value

    def unknown(self, why: str, kind: str, operands: Iterable[Value] = (), strict: bool = False) -> Value:
        """A value about which only errors and, when strict, nulls of the operands are known."""
        self.unknowns[why] = None
        values = list(operands)
        null = smt.disjunction(v.is_null for v in values) if strict else FALSE
        failed = smt.disjunction(v.error for v in values)
        if self.opaque == "error":
            return Value(smt.negation(null), null, self.fresh(kind), kind)
        error = smt.conjunction([failed, smt.negation(null)]) if strict else FALSE
        return Value(error, smt.disjunction([null, self.fresh("boolean")]), self.fresh(kind), kind)

    def strict(self, operands: Iterable[Value], value: Term, kind: str) -> Value:
        """The result of a strict function: NULL for any NULL, an error for any error without a NULL."""
        values = list(operands)
        null = smt.disjunction(v.is_null for v in values)
        error = smt.conjunction([smt.negation(null), smt.disjunction(v.error for v in values)])
        return Value(error, null, value, kind)

    def column(self, column: e.Column, row: Row) -> Value:
        label = row.label if column.level == 0 else row.witness(column.query)
        if column.number <= 0 or not label:
            return self.unknown("a system column or a whole row", kind_of(column.type))
        if column.level > 0:
            label = f"{label}.{column.source}"
        key = (label, column.number)
        if column.generated and key not in self.columns:
            self.unknowns[f"the generated column {column.name}"] = None
            if self.opaque == "error":
                return self.unknown(f"the generated column {column.name}", kind_of(column.type))
        if key not in self.columns:
            kind = kind_of(column.type)
            name = f"{label}.{column.name}"
            value = self.fresh(kind, name)
            not_null = column.not_null or (column.level == 0 and column.name in self.not_null)
            null = FALSE if not_null else self.fresh("boolean", f"{name} is null")
            limit = RANGES.get(column.type)
            if limit is not None:
                self.constraints += [
                    smt.ordered("<", value, smt.literal(limit)),
                    smt.ordered(">=", value, smt.literal(-limit)),
                ]
            self.columns[key] = Value(FALSE, null, value, kind)
        return self.columns[key]

    def constant(self, constant: e.Constant, _: Row) -> Value:
        kind = kind_of(constant.type)
        if constant.value is None:
            return Value(FALSE, TRUE, self.fresh(kind), kind)
        if kind == "text":
            return Value(FALSE, FALSE, self.text(constant.value), kind)
        if kind == "integer":
            return Value(FALSE, FALSE, smt.literal(int(constant.value)), kind)
        if kind == "boolean":
            return Value(FALSE, FALSE, smt.literal(constant.value == "true"), kind)
        if kind == "uuid" and UUID_TEXT.match(constant.value):
            return Value(FALSE, FALSE, smt.literal(int(constant.value.replace("-", ""), 16)), kind)
        # Same bytes, same value; nothing is said of different bytes, which may be equal (1.0 and 1.00).
        return Value(FALSE, FALSE, self.fresh(kind, f"constant {constant.type} {constant.value}"), kind)

    def text(self, text: str) -> Term:
        self.texts[text] = None
        return smt.literal(text_number(text))

    def setting(self, setting: e.Setting, _: Row) -> Value:
        if self.state == "any" or "." not in setting.name:
            # A setting that the server itself defines is never missing; what it holds then is not known.
            if self.state != "any":
                return self.unknown(f"the built-in setting {setting.name}", "text")
            null = FALSE if "." not in setting.name else smt.truth(f"setting {setting.name} is null")
            error = FALSE if setting.missing_ok else null
            return Value(error, null, smt.number(f"setting {setting.name}"), "text")
        if self.state == "empty":
            return Value(FALSE, FALSE, self.text(""), "text")
        return Value(smt.literal(not setting.missing_ok), TRUE, self.text(""), "text")

    def session_role(self, role: e.SessionRole, _: Row) -> Value:
        if role.which == "current_user" and self.role is not None:
            return Value(FALSE, FALSE, self.text(self.role), "text")
        return Value(FALSE, FALSE, smt.number(role.which), "text")

    def cast(self, cast: e.Cast, row: Row) -> Value:
        value, source = self.encode(cast.argument, row), cast.argument.type
        target = kind_of(cast.type)
        truncates = cast.type == "name" and source != "name"
        if value.kind == target and not truncates:
            return replace(value, kind=target)
        if value.kind == "text" and target in ("integer", "uuid", "boolean"):
            return self.parse(value, cast.type)
        if value.kind in ("integer", "uuid") and target == "text" and not truncates:
            return self.print(value)
        result = self.unknown(f"the cast from {source} to {cast.type}", target, [value], strict=True)
        if value.kind == "text" and cast.type in _NOT_EMPTY:
            empty = smt.conjunction([value.is_known, smt.equal(value.value, self.text(""))])
            result = replace(result, error=smt.disjunction([result.error, empty]))
        if value.kind == "text" and cast.type in ("json", "jsonb"):
            braces = smt.equal(value.value, self.text("{}"))
            self.constraints.append(smt.implication(braces, smt.equal(result.value, EMPTY_DOCUMENT)))
        return result

    def parse(self, value: Value, type_name: str) -> Value:
        """Text to integer, uuid or boolean: a function of the text, an error where the text is not one."""
        kind = kind_of(type_name)
        self.parsed[kind, type_name] = None
        if kind == "boolean":
            self.truths[value.value] = None
        parsed = smt.function(f"parse {kind}", sort_of(kind), value.value)
        valid = smt.function(f"valid {type_name}", "Bool", value.value)
        result = self.strict([value], parsed, kind)
        wrong = smt.conjunction([value.is_known, smt.negation(valid)])
        return replace(result, error=smt.disjunction([result.error, wrong]))

    def print(self, value: Value) -> Value:
        """Integer or uuid to text: reading it back gives the value, so different values print differently."""
        printed = smt.function(f"print {value.kind}", "Int", value.value)
        self.constraints.append(smt.equal(smt.function(f"parse {value.kind}", "Int", printed), value.value))
        self.constraints.append(smt.negation(smt.equal(printed, self.text(""))))
        types = ("smallint", "integer", "bigint") if value.kind == "integer" else ("uuid",)
        for name in types[-1:]:  # the widest type reads every printed value
            self.constraints.append(smt.function(f"valid {name}", "Bool", printed))
        for name in types:
            self.parsed[value.kind, name] = None
        if self.samples and self.opaque == "error":
            applied.printed(self, value.kind, printed)
        return self.strict([value], printed, "text")

    def compare(self, compare: e.Compare, row: Row) -> Value:
        left, right = self.encode(compare.left, row), self.encode(compare.right, row)
        operator, exact = compare.operator, compare.exact
        if operator == "?" and left.kind == "jsonb" and applied.is_list(compare.left):
            return applied.listed(self, compare.left, left, right, row)
        built_in = compare.collation >= 0 and compare.volatility == "immutable"
        if built_in and operator in _LIKE and compare.collation < FIRST_USER_OID and _is_plain(right):
            operator, exact = _LIKE[operator], True
        pure = built_in and compare.strict and operator not in ("=", "<>")
        key = f"{operator} {compare.collation} {compare.left.type} {compare.right.type}" if pure else ""
        return self.compared(operator, left, right, exact, compare.strict, key)

    def compared(
        self, operator: str, left: Value, right: Value, exact: bool, strict: bool = False, key: str = ""
    ) -> Value:
        same_kind = left.kind == right.kind
        if exact and same_kind and operator == "=":
            return self.strict([left, right], smt.equal(left.value, right.value), "boolean")
        if exact and same_kind and operator == "<>" and left.kind in MODELLED:
            return self.strict([left, right], smt.negation(smt.equal(left.value, right.value)), "boolean")
        if strict and same_kind and left.kind == "integer" and operator in ("<", "<=", ">", ">="):
            return self.strict([left, right], smt.ordered(operator, left.value, right.value), "boolean")
        if key:
            return applied.applied(self, operator, key, f"the comparison {operator}", [left, right], "boolean")
        return self.unknown(f"the comparison {operator}", "boolean", [left, right], strict)

    def any_array(self, any_array: e.AnyArray, row: Row) -> Value:
        found = any_array.array
        if isinstance(found, e.Subquery) and found.plain and found.kind == "array" and found.target and any_array.any:
            test = e.Compare(any_array.operator, any_array.operand, found.target, any_array.exact, strict=False)
            return self.encode(replace(found, kind="any", test=test, type="boolean"), row)
        array = self.encode(found, row)
        if any_array.any and any_array.exact and any_array.operator == "=" and applied.is_list(found):
            return applied.listed(self, found, array, self.encode(any_array.operand, row), row)
        return self.unknown("a comparison with the elements of an array", "boolean", [array], strict=True)

    def json(self, json: e.Json, row: Row) -> Value:
        operands = self.all((json.document, json.key), row)
        result = self.unknown(f"the JSON operator {json.operator}", kind_of(json.type), operands, strict=True)
        if operands[0].kind not in ("json", "jsonb"):
            return result
        # An empty document has no keys.
        nothing = smt.conjunction([operands[0].is_known, smt.equal(operands[0].value, EMPTY_DOCUMENT)])
        return replace(result, null=smt.disjunction([result.null, nothing]))

    def call(self, call: e.Call, row: Row) -> Value:
        if call.inlined is not None:
            if call.volatility == "immutable" and _reads_session(call):
                # The planner may fold it with the context of an earlier statement.
                return self.unknown(f"{call.name}, IMMUTABLE but reading the session", kind_of(call.type))
            return self.encode(call.inlined, row)
        if call.name == "pg_has_role" and not call.user and self.holds_role(call.arguments):
            return Value(FALSE, FALSE, TRUE, "boolean")
        operands, kind = self.all(call.arguments, row), kind_of(call.type)
        why = f"the function {call.name}"
        if call.strict and call.volatility == "immutable" and not call.user:
            key = f"{call.name} {call.function} {call.collation}"
            return applied.applied(self, call.name, key, why, operands, kind)
        return self.unknown(why, kind, operands, call.strict)

    def holds_role(self, arguments: tuple[Expression, ...]) -> bool:
        """Whether ``pg_has_role([current_user,] role, privilege)`` is true of the role in question."""
        *user, role, privilege = (None, *arguments)[-3:]
        asked = isinstance(privilege, e.Constant) and (privilege.value or "").strip().upper() in ("USAGE", "MEMBER")
        own = user[0] is None or (isinstance(user[0], e.SessionRole) and user[0].which == "current_user")
        return asked and own and isinstance(role, e.Constant) and role.type == "name" and role.value in self.held

    def opaque_part(self, opaque: e.Opaque, _: Row) -> Value:
        if opaque.why == RAISES.why:
            kind = kind_of(opaque.type)
            return Value(TRUE, FALSE, self.fresh(kind), kind)
        return self.unknown(opaque.why, kind_of(opaque.type))

    def facts(self) -> list[Term]:
        """The constraints, with what the server's input functions make of every text constant in the
        question."""
        known: list[Term] = []
        for kind, type_name in self.parsed:
            for text in self.texts:
                known += parsing(kind, type_name, text)
            if kind == "integer":
                known += [one_or_zero(text, type_name) for text in self.truths]
        return [*self.constraints, *known, *lookups.facts(self)]


def _is_plain(pattern: Value) -> bool:
    """Whether a pattern of LIKE matches nothing but itself."""
    known = pattern.kind == "text" and smt.is_literal(pattern.value)
    text = number_text(smt.number_of(pattern.value)) if known else None
    return text is not None and not set("%_\\") & set(text)


def _reads_session(call: e.Call) -> bool:
    """Whether the body itself, not an argument, reads what may change between statements."""
    given = {part for argument in call.arguments for part in walk(argument)}
    body = () if call.inlined is None else walk(call.inlined)
    return any(isinstance(part, _SESSION) and part not in given for part in body)


_Handler = Callable[[Encoder, Expression, Row], Value]
_HANDLERS: Mapping[type, _Handler] = {
    e.Column: Encoder.column,  # type: ignore[dict-item]  # each is called with its own class
    e.Constant: Encoder.constant,  # type: ignore[dict-item]
    e.Setting: Encoder.setting,  # type: ignore[dict-item]
    e.SessionRole: Encoder.session_role,  # type: ignore[dict-item]
    e.Cast: Encoder.cast,  # type: ignore[dict-item]
    e.Compare: Encoder.compare,  # type: ignore[dict-item]
    e.Distinct: logic.distinct,  # type: ignore[dict-item]
    e.And: logic.conjunction,  # type: ignore[dict-item]
    e.Or: logic.disjunction,  # type: ignore[dict-item]
    e.Not: logic.negation,  # type: ignore[dict-item]
    e.NullTest: logic.null_test,  # type: ignore[dict-item]
    e.BooleanTest: logic.boolean_test,  # type: ignore[dict-item]
    e.Coalesce: logic.coalesce,  # type: ignore[dict-item]
    e.NullIf: logic.null_if,  # type: ignore[dict-item]
    e.Case: logic.case,  # type: ignore[dict-item]
    e.InList: logic.in_list,  # type: ignore[dict-item]
    e.AnyArray: Encoder.any_array,  # type: ignore[dict-item]
    e.Json: Encoder.json,  # type: ignore[dict-item]
    e.Call: Encoder.call,  # type: ignore[dict-item]
    e.Subquery: lookups.subquery,  # type: ignore[dict-item]
    e.Opaque: Encoder.opaque_part,  # type: ignore[dict-item]
}
