"""From expression trees to the predicate language, names resolved through the catalog; fail-closed."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.bodies import body_of_text
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.nodetree import Node, NodeTreeError, Value, nodes_in, parse, parse_value
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.catalog.scope import (
    BOOLEAN_TESTS,
    CAST_NAMES,
    JSON,
    SESSION_ROLES,
    SQL_VALUE,
    STRICT,
    Scope,
    copied,
    inlinable,
    inside,
    session_role,
    single,
    with_depth,
)
from rlsaudit.catalog.sublinks import sublink, subselect
from rlsaudit.catalog.typenames import FIRST_USER_OID, TypeNames, constant, elements

_RELATION_OID = re.compile(r":relid (\d+) ")
_ALIAS = re.compile(r":aliasname (?:\\.|[^\s\\])+")
MAX_DEPTH = 120
MAX_INLINED = 8


@dataclass
class Translator:
    """Translates the trees of one catalog; results are cached by tree and relation."""

    catalog: Catalog
    types: TypeNames = field(init=False)
    deterministic: frozenset[int] = field(init=False)
    enumerations: frozenset[str] = field(init=False)
    cache: dict[tuple[str, int], Expression] = field(default_factory=dict)
    queries: int = 0
    shapes: dict[Hashable, tuple[tuple[int, ...], Expression]] = field(default_factory=dict)
    looks: dict[int, int] = field(default_factory=dict)
    alike: dict[Hashable, int] = field(default_factory=dict)
    models: dict[Expression, Expression] = field(default_factory=dict)
    """Equal ones of several shapes are one object, which is quick to compare."""

    def __post_init__(self) -> None:
        self.types = TypeNames(self.catalog)
        self.deterministic = frozenset(one.oid for one in self.catalog.collations if one.deterministic)
        self.enumerations = frozenset(
            column.base_type for one in self.catalog.relations for column in one.columns if column.enum_labels
        )

    def predicate(self, tree: str, relation: Relation) -> Expression:
        """The policy expression ``tree`` of ``relation``; Opaque as a whole when the tree cannot be read."""
        key = (tree, relation.oid)
        if key not in self.cache:
            self.cache[key] = self._by_shape(tree, relation)
        return self.cache[key]

    def _by_shape(self, tree: str, relation: Relation) -> Expression:
        """Tables that look alike have trees that differ in OIDs and names only: one of them is read for all."""
        numbers = {relation.oid: 0}
        masked = _RELATION_OID.sub(lambda found: f":relid #{numbers.setdefault(int(found[1]), len(numbers))} ", tree)
        shape = (_ALIAS.sub(":aliasname", masked), tuple(self._columns(oid) for oid in numbers))
        known = self.shapes.get(shape)
        if known is None:
            found = self._read(tree, relation)
            known = (tuple(numbers), self.models.setdefault(found, found))
            inlined = (part.inlined for part in e.walk(known[1]) if isinstance(part, e.Call) and part.inlined)
            # A function reads the same relations wherever it is called.
            if all(e.subquery_relations(body).isdisjoint(numbers) for body in inlined):
                self.shapes[shape] = known
        others = {old: new for old, new in zip(known[0], numbers, strict=True) if old != new}
        return e.copied(known[1], others) if others else known[1]

    def _columns(self, oid: int) -> Hashable:
        """What translation looks at in a relation; equal ones are one object, which is quick to compare."""
        if oid not in self.looks:
            found = self.catalog.find_relation(oid)
            facts = tuple(
                (c.name, c.number, c.base_type, c.not_null, c.generated, c.default if c.generated else None)
                for c in (found.columns if found is not None else ())
            )
            self.looks[oid] = self.alike.setdefault((found is None, facts), len(self.alike))
        return self.looks[oid]

    def _read(self, tree: str, relation: Relation) -> Expression:
        self.queries = 0
        try:
            return self.translate(parse(tree), Scope(({1: relation},)))
        except (NodeTreeError, RecursionError) as error:
            return e.Opaque(f"unreadable expression ({error})", type="boolean")

    def expressions(self, tree: str, relation: Relation) -> tuple[Expression, ...]:
        """The expressions of a list of trees over one relation."""
        self.queries = 0
        try:
            return self.all(_listed(parse_value(tree)), Scope(({1: relation},)))
        except (NodeTreeError, RecursionError) as error:
            return (e.Opaque(f"unreadable expression ({error})"),)

    def translate(self, node: Node, scope: Scope) -> Expression:
        if scope.depth > MAX_DEPTH:
            raise NodeTreeError("expression nested too deeply")
        handler = _HANDLERS.get(node.tag)
        if handler is None:
            return self.opaque(f"{node.tag} is not modelled", node, scope)
        return handler(self, node, replace(scope, depth=scope.depth + 1))

    def all(self, nodes: tuple[Node, ...], scope: Scope) -> tuple[Expression, ...]:
        return tuple(self.translate(node, scope) for node in nodes)

    def type(self, node: Node, name: str) -> str:
        return self.types.name(node.integer(name))

    def opaque(self, why: str, node: Node, scope: Scope) -> e.Opaque:
        return e.Opaque(why, tuple(self.parts(node, scope)))

    def parts(self, node: Node, scope: Scope) -> Iterator[Expression]:
        """Columns of known levels and function calls anywhere below, for nodes that are not modelled."""
        for inner, depth in with_depth(node, 0):
            if inner.tag == "VAR":
                up = inner.integer("varlevelsup") - depth
                if 0 <= up <= scope.level:
                    yield self._column(inner, scope, scope.level - up)
            elif inner.tag == "FUNCEXPR" and depth == 0 and inner is not node:
                yield self.translate(inner, replace(scope, depth=scope.depth + 1))
            elif inner.tag == "FUNCEXPR":
                yield self._bare_call(inner)

    def _bare_call(self, node: Node) -> Expression:
        """A call whose arguments belong to a query that is not modelled: constants kept, the rest dropped."""
        symbol = self.catalog.symbol_functions.get(node.integer("funcid"))
        if symbol is None:
            return e.Opaque("unknown function")
        constants = tuple(
            constant(argument, self.type(argument, "consttype"))
            for argument in nodes_in(node.get("args"))
            if argument.tag == "CONST"
        )
        if symbol.schema == "pg_catalog" and symbol.name == "current_setting" and constants and constants[0].value:
            return e.Setting(constants[0].value.lower(), True)
        return e.Call(
            symbol.name, symbol.oid, symbol.schema, (), symbol.volatility, self.type(node, "funcresulttype"),
            user=symbol.oid >= FIRST_USER_OID,
        )  # fmt: skip

    def var(self, node: Node, scope: Scope) -> Expression:
        if "varreturningtype" in node.fields and node.integer("varreturningtype") != 0:
            return self.opaque("OLD or NEW column", node, scope)
        level = scope.level - node.integer("varlevelsup")
        if level < 0:
            raise NodeTreeError("column of an unknown query level")
        return self._column(node, scope, level)

    def _column(self, node: Node, scope: Scope, level: int) -> e.Column:
        number, source = node.integer("varattno"), node.integer("varno")
        relation = scope.tables[level].get(source)
        if level == 0 and source != 1:
            raise NodeTreeError("column of an unknown relation")
        column = relation.column_number(number) if relation else None
        query = scope.queries[level]
        if column is None:
            return e.Column(f"column {number}", number, level, self.type(node, "vartype"), False, source, query)
        if column.generated and relation is not None:
            column = copied(relation, column)
        generated = bool(column.generated)
        return e.Column(
            column.name, column.number, level, column.base_type, column.not_null, source, query, generated
        )  # fmt: skip

    def constant(self, node: Node, _: Scope) -> Expression:
        return constant(node, self.type(node, "consttype"))

    def parameter(self, node: Node, scope: Scope) -> Expression:
        kind, number = node.integer("paramkind"), node.integer("paramid")
        values = {0: scope.parameters, 2: scope.sublink}.get(kind)
        if values is None or not 1 <= number <= len(values):
            raise NodeTreeError("parameter without a value")
        return values[number - 1]

    def function(self, node: Node, scope: Scope) -> Expression:
        oid, result = node.integer("funcid"), self.type(node, "funcresulttype")
        symbol = self.catalog.symbol_functions.get(oid)
        if symbol is None or node.flag("funcretset"):
            return self.opaque("unknown function or a set", node, scope)
        arguments = self.all(node.nodes("args"), scope)
        if oid >= FIRST_USER_OID or symbol.schema != "pg_catalog":
            return self.call(oid, arguments, result, scope)
        found = self.built_in(symbol.name, oid, arguments, result, scope, symbol.volatility, symbol.strict)
        return replace(found, collation=node.integer("inputcollid")) if isinstance(found, e.Call) else found

    def built_in(
        self,
        name: str,
        oid: int,
        arguments: tuple[Expression, ...],
        result: str,
        scope: Scope,
        volatility: e.Volatility,
        strict: bool = False,
    ) -> Expression:
        if name == "current_setting" and arguments and isinstance(arguments[0], e.Constant):
            missing_ok = arguments[1] if len(arguments) > 1 else e.Constant("false", "boolean")
            if arguments[0].value and isinstance(missing_ok, e.Constant) and missing_ok.value in ("true", "false"):
                return e.Setting(arguments[0].value.lower(), missing_ok.value == "true")
        if name in SESSION_ROLES and not arguments:
            return session_role(SESSION_ROLES[name], scope.definer)
        if name in CAST_NAMES and len(arguments) == 1:
            return e.Cast(arguments[0], result)
        split = name == "string_to_array" and len(arguments) == 2 and isinstance(arguments[1], e.Constant)
        strict = strict or name in STRICT or (split and arguments[1] != e.Constant(None, "text"))
        return e.Call(name, oid, "pg_catalog", arguments, volatility, result, strict=strict)

    def call(self, oid: int, arguments: tuple[Expression, ...], result: str, scope: Scope) -> Expression:
        """A user function, with its body put in when that can be read."""
        function = self.catalog.function(oid)
        if function is None:
            symbol = self.catalog.symbol_functions[oid]
            return e.Call(symbol.name, oid, symbol.schema, arguments, symbol.volatility, result, user=True)
        inlined = None
        if oid not in scope.inlining and len(scope.inlining) < MAX_INLINED and inlinable(function, arguments):
            try:
                inlined = self._body(function, arguments, scope)
            except NodeTreeError:
                inlined = None
        if inlined is not None and function.strict and arguments:
            missing = e.Or(tuple(e.NullTest(argument, True) for argument in arguments))
            inlined = e.Case(((missing, e.Constant(None, inlined.type)),), inlined, inlined.type)
        return e.Call(
            function.name, oid, function.schema, arguments, function.volatility, result,
            user=True, strict=function.strict, inlined=inlined,
        )  # fmt: skip

    def _body(self, function: Function, arguments: tuple[Expression, ...], scope: Scope) -> Expression | None:
        inner = inside(scope, function, arguments)
        if function.body_tree is None:
            return body_of_text(self, function, arguments, inner)
        body = parse_value(function.body_tree)
        # RETURN expression is one query, BEGIN ATOMIC a list of lists of queries.
        statements = [body] if isinstance(body, Node) else [q for q in nodes_in(body) if q.tag == "QUERY"][:1]
        flat = body if isinstance(body, Node) else body[0] if isinstance(body, tuple) and len(body) == 1 else None
        if not statements or not isinstance(statements[0], Node) or not (isinstance(flat, Node) or single(flat)):
            return None
        return subselect(self, "scalar", statements[0], None, inner)

    def operator(self, node: Node, scope: Scope) -> Expression:
        symbol = self.catalog.symbol_operators.get(node.integer("opno"))
        if symbol is None or node.flag("opretset"):
            return self.opaque("unknown operator", node, scope)
        arguments = self.all(node.nodes("args"), scope)
        result = self.type(node, "opresulttype")
        built_in = symbol.oid < FIRST_USER_OID and symbol.schema == "pg_catalog"
        if len(arguments) == 2 and result == "boolean":
            exact = self.exact(node)
            left, right = arguments
            called = self.catalog.symbol_functions.get(symbol.function)
            strict = built_in or exact or (called is not None and called.strict)
            collation = node.integer("inputcollid") if built_in else -1
            return e.Compare(symbol.name, left, right, exact, symbol.volatility, strict=strict, collation=collation)
        if built_in and symbol.name in JSON and len(arguments) == 2:
            return e.Json(symbol.name, arguments[0], arguments[1], result)
        called = self.catalog.symbol_functions.get(symbol.function)
        strict = called is not None and (called.strict or (built_in and called.name in STRICT))
        return e.Call(
            symbol.name, symbol.function, symbol.schema, arguments, symbol.volatility, result,
            user=not built_in, strict=strict, collation=node.integer("inputcollid"),
        )  # fmt: skip

    def exact(self, node: Node) -> bool:
        """Whether the node's operator is true equality (or ``<>``) under a collation that tells bytes
        apart."""
        symbol = self.catalog.symbol_operators.get(node.integer("opno"))
        collation = node.integer("inputcollid")
        if symbol is None or (collation >= FIRST_USER_OID and collation not in self.deterministic):
            return False  # collations that initdb makes are all deterministic
        negation = symbol.name == "<>" and symbol.oid < FIRST_USER_OID and symbol.schema == "pg_catalog"
        return (symbol.btree_equality and symbol.name == "=") or negation

    def distinct(self, node: Node, scope: Scope) -> Expression:
        left, right = self._two(node, scope)
        return e.Distinct(left, right, self.exact(node))

    def null_if(self, node: Node, scope: Scope) -> Expression:
        left, right = self._two(node, scope)
        return e.NullIf(left, right, self.exact(node), left.type)

    def _two(self, node: Node, scope: Scope) -> tuple[Expression, Expression]:
        arguments = self.all(node.nodes("args"), scope)
        if len(arguments) != 2:
            raise NodeTreeError(f"{node.tag} with {len(arguments)} operands")
        return arguments[0], arguments[1]

    def boolean(self, node: Node, scope: Scope) -> Expression:
        arguments = self.all(node.nodes("args"), scope)
        match node.text("boolop"):
            case "and":
                return e.And(arguments)
            case "or":
                return e.Or(arguments)
            case "not" if len(arguments) == 1:
                return e.Not(arguments[0])
        raise NodeTreeError("unknown boolean operator")

    def null_test(self, node: Node, scope: Scope) -> Expression:
        if node.flag("argisrow"):
            return self.opaque("IS NULL of a row", node, scope)
        return e.NullTest(self.translate(node.node("arg"), scope), node.integer("nulltesttype") == 0)

    def boolean_test(self, node: Node, scope: Scope) -> Expression:
        which = node.integer("booltesttype")
        if not 0 <= which < len(BOOLEAN_TESTS):
            raise NodeTreeError("unknown boolean test")
        return e.BooleanTest(self.translate(node.node("arg"), scope), *BOOLEAN_TESTS[which])

    def cast(self, node: Node, scope: Scope) -> Expression:
        return e.Cast(self.translate(node.node("arg"), scope), self.type(node, "resulttype"))

    def collate(self, node: Node, scope: Scope) -> Expression:
        return self.translate(node.node("arg"), scope)

    def coalesce(self, node: Node, scope: Scope) -> Expression:
        return e.Coalesce(self.all(node.nodes("args"), scope), self.type(node, "coalescetype"))

    def case(self, node: Node, scope: Scope) -> Expression:
        argument = node.optional("arg")
        inner = replace(scope, case_value=self.translate(argument, scope)) if argument else scope
        branches = tuple(
            (self.translate(when.node("expr"), inner), self.translate(when.node("result"), scope))
            for when in node.nodes("args")
        )
        result = self.type(node, "casetype")
        default = node.optional("defresult")
        otherwise = self.translate(default, scope) if default else e.Constant(None, result)
        return e.Case(branches, otherwise, result)

    def case_test(self, _: Node, scope: Scope) -> Expression:
        if scope.case_value is None:
            raise NodeTreeError("CASE value outside of CASE")
        return scope.case_value

    def array_comparison(self, node: Node, scope: Scope) -> Expression:
        symbol = self.catalog.symbol_operators.get(node.integer("opno"))
        operands = node.nodes("args")
        if symbol is None or len(operands) != 2:
            raise NodeTreeError("array comparison without operator")
        operand, use_or, exact = self.translate(operands[0], scope), node.flag("useOr"), self.exact(node)
        array, cast = operands[1], ""
        if array.tag == "ARRAYCOERCEEXPR" and (result := self.type(array, "resulttype")).endswith("[]"):
            array, cast = array.node("arg"), result.removesuffix("[]")
        if array.tag == "ARRAYEXPR" and not array.flag("multidims"):
            items = self.all(array.nodes("elements"), scope)
            return e.InList(
                symbol.name, operand, tuple(e.Cast(one, cast) for one in items) if cast else items, use_or, exact
            )
        if operands[1].tag == "CONST" and (found := elements(operands[1], self.type(operands[1], "consttype"))):
            return e.InList(symbol.name, operand, found, use_or, exact)
        return e.AnyArray(symbol.name, operand, self.translate(operands[1], scope), use_or, exact)

    def array(self, node: Node, scope: Scope) -> Expression:
        return e.Opaque("array", self.all(node.nodes("elements"), scope), self.type(node, "array_typeid"), False)

    def array_cast(self, node: Node, scope: Scope) -> Expression:
        return e.Cast(self.translate(node.node("arg"), scope), self.type(node, "resulttype"))

    def sql_value(self, node: Node, scope: Scope) -> Expression:
        which = SQL_VALUE.get(node.integer("op"))
        if which is None:  # CURRENT_DATE and its kin: one value in a statement
            return e.Opaque("the clock or the session", (), self.type(node, "type"), False)
        return session_role(which, scope.definer)


def _listed(value: Value) -> tuple[Node, ...]:
    """The nodes of a list, or the one node that stands for itself."""
    if isinstance(value, Node):
        return (value,)
    items = value if isinstance(value, tuple) else ()
    return tuple(item for item in items if isinstance(item, Node))


_HANDLERS: Mapping[str, Callable[[Translator, Node, Scope], Expression]] = {
    "VAR": Translator.var,
    "CONST": Translator.constant,
    "PARAM": Translator.parameter,
    "FUNCEXPR": Translator.function,
    "OPEXPR": Translator.operator,
    "DISTINCTEXPR": Translator.distinct,
    "NULLIFEXPR": Translator.null_if,
    "BOOLEXPR": Translator.boolean,
    "NULLTEST": Translator.null_test,
    "BOOLEANTEST": Translator.boolean_test,
    "RELABELTYPE": Translator.cast,
    "COERCEVIAIO": Translator.cast,
    "COERCETODOMAIN": Translator.cast,
    "COLLATEEXPR": Translator.collate,
    "COALESCEEXPR": Translator.coalesce,
    "CASEEXPR": Translator.case,
    "CASETESTEXPR": Translator.case_test,
    "SCALARARRAYOPEXPR": Translator.array_comparison,
    "ARRAYEXPR": Translator.array,
    "ARRAYCOERCEEXPR": Translator.array_cast,
    "SQLVALUEFUNCTION": Translator.sql_value,
    "SUBLINK": sublink,
}
