"""Where a policy's values come from: settings, claims inside a setting, the role; and which columns they are held against."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from rlsaudit.catalog.expression import (
    AnyArray,
    Call,
    Case,
    Cast,
    Coalesce,
    Column,
    Compare,
    Constant,
    Distinct,
    Expression,
    InList,
    Json,
    NullIf,
    NullTest,
    SessionRole,
    Setting,
    Subquery,
    children,
    walk,
)
from rlsaudit.catalog.model import Catalog, Relation
from rlsaudit.catalog.policies import policy_predicate, settings_read

ROLE = "current_user"


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """One value a session brings: a setting, or a claim (``path``) of a JSON document in a setting."""

    setting: str
    path: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The part that says what it is: the last step of the path, or the setting."""
        return self.path[-1] if self.path else self.setting

    def __str__(self) -> str:
        return self.setting + "".join(f" → {step}" for step in self.path)


@dataclass(frozen=True, slots=True)
class Use:
    """A column held against a source, or (``column`` empty) a source held against a constant."""

    source: Source
    relation: int
    """OID of the relation that has the column; of the policy's relation when there is no column."""
    column: str
    constant: str | None
    policy_relation: int
    direct: bool = True
    """The source's own value is held against the column, not a value that a subquery looks up by it."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """``column IN (SELECT membership.member_column …)``: the policy's column and the one it is looked up in."""

    relation: int
    column: str
    through: int
    through_column: str


@dataclass(frozen=True)
class Reading:
    """Everything the policies of a catalog say about context."""

    uses: tuple[Use, ...] = ()
    lookups: tuple[Lookup, ...] = ()
    null_allowed: frozenset[tuple[int, str]] = frozenset()
    """(relation, column) that a policy tests for NULL: rows without a key may be shared."""
    sources: frozenset[Source] = frozenset()
    consulted: frozenset[int] = frozenset()
    """Relations that policies of other relations read."""

    def uses_of(self, relation: int) -> tuple[Use, ...]:
        return self._by_relation.get(relation, ())

    @cached_property
    def _by_relation(self) -> dict[int, tuple[Use, ...]]:
        found: dict[int, list[Use]] = {}
        for use in self.uses:
            found.setdefault(use.relation, []).append(use)
        return {oid: tuple(uses) for oid, uses in found.items()}


def read(catalog: Catalog) -> Reading:
    """Read every policy of the catalog; pure, and silent about what it does not understand."""
    uses: list[Use] = []
    lookups: list[Lookup] = []
    nullable: set[tuple[int, str]] = set()
    sources: set[Source] = set()
    consulted: set[int] = set()
    alike: dict[int, tuple[list[Use], list[str]]] = {}
    for policy in catalog.policies:
        for which in ("using", "check"):
            expression = policy_predicate(catalog, policy, which)
            if expression is None:
                continue
            known = alike.get(id(expression))
            if known is not None:
                uses.extend(
                    Use(use.source, policy.relation, use.column, use.constant, policy.relation, use.direct)
                    for use in known[0]
                )
                nullable.update((policy.relation, name) for name in known[1])
                continue
            before = len(uses)
            sources.update(_sources(catalog, expression))
            for part, scope in _scoped(expression, ()):
                uses.extend(_uses(catalog, part, policy.relation, scope))
                lookups.extend(_lookups(catalog, part, policy.relation, scope))
                if (
                    isinstance(part, NullTest)
                    and part.is_null
                    and isinstance(part.argument, Column)
                    and part.argument.level == 0
                ):
                    nullable.add((policy.relation, part.argument.name))
                if isinstance(part, Call) and part.user and part.inlined is None:
                    uses.extend(_in_source(catalog, part.function, policy.relation))
                if isinstance(part, Subquery):
                    consulted.update(oid for oid in part.relations if oid != policy.relation)
            if not any(
                isinstance(part, Subquery) or (isinstance(part, Call) and part.user) for part in walk(expression)
            ):
                tested = [part.argument for part in walk(expression) if isinstance(part, NullTest) and part.is_null]
                names = [one.name for one in tested if isinstance(one, Column) and one.level == 0]
                alike[id(expression)] = (uses[before:], names)
    return Reading(tuple(uses), tuple(lookups), frozenset(nullable), frozenset(sources), frozenset(consulted))


def _scoped(expression: Expression, scope: tuple[int, ...]) -> Iterator[tuple[Expression, tuple[int, ...]]]:
    """Every part of an expression with the relations of the subqueries around it, innermost first."""
    yield expression, scope
    inner = (*expression.relations, *scope) if isinstance(expression, Subquery) else scope
    for child in children(expression):
        yield from _scoped(child, inner)


def _pairs(part: Expression) -> Iterator[tuple[Expression, Expression]]:
    match part:
        case Compare() | Distinct():
            yield part.left, part.right
            yield part.right, part.left
        case InList():
            for item in part.items:
                yield part.operand, item
                yield item, part.operand
        case AnyArray():
            yield part.operand, part.array
            yield part.array, part.operand
        case _:
            return


def _uses(catalog: Catalog, part: Expression, policy_relation: int, scope: tuple[int, ...]) -> Iterator[Use]:
    for side, other in _pairs(part):
        found = tuple(_sources(catalog, other))
        column = _bare_column(side)
        if column is not None:
            place = _relation_of(catalog, column, policy_relation, scope)
            valued = {*_sources(catalog, other, looked_up=False)}
            yield from (
                Use(source, place, column.name, None, policy_relation, source in valued) for source in found if place
            )
        elif isinstance(constant := _unwrapped(side), Constant) and constant.value is not None:
            yield from (Use(source, policy_relation, "", constant.value, policy_relation) for source in found)


def _in_source(catalog: Catalog, function: int, policy_relation: int) -> Iterator[Use]:
    """What a function that cannot be read as a tree holds against settings, by its text: ``k.key = v`` after
    ``v text := current_setting('app.api_key')``, or the call itself in place of ``v``."""
    found = catalog.function(function)
    relations = catalog.mentions("function", function, "relation") or tuple(r.oid for r in catalog.relations)
    source = found.source if found is not None else ""
    for setting in sorted(settings_read(catalog, function)):
        read = rf"(?:\w+\s*\(\s*)*current_setting\s*\(\s*'{re.escape(setting)}'"
        variables = re.findall(rf"(\w+)(?:\s+[\w.%]+)?\s*:=\s*{read}", source, re.IGNORECASE)
        values = "|".join([read, *(rf"{re.escape(one)}\b" for one in variables)])
        for column in dict.fromkeys(re.findall(rf"(\w+)(?:\s*::\s*\w+)?\s*=\s*(?:{values})", source, re.IGNORECASE)):
            for relation in (catalog.find_relation(oid) for oid in relations):
                named = relation is not None and re.search(rf"\b{re.escape(relation.name)}\b", source)
                if relation is not None and named and relation.column(column) is not None:
                    yield Use(Source(setting), relation.oid, column, None, policy_relation)


def _lookups(catalog: Catalog, part: Expression, policy_relation: int, scope: tuple[int, ...]) -> Iterator[Lookup]:
    tests: list[Expression] = [part]
    inner = scope
    if isinstance(part, Subquery) and part.test is not None:
        tests, inner = [part.test], (*part.relations, *scope)
    for test in tests:
        for side, other in _pairs(test):
            ours, theirs = _bare_column(side), _bare_column(other)
            if ours is not None and theirs is not None and ours.level == 0 and theirs.level > 0:
                through = _relation_of(catalog, theirs, policy_relation, inner)
                if through:
                    yield Lookup(policy_relation, ours.name, through, theirs.name)


def _relation_of(catalog: Catalog, column: Column, policy_relation: int, scope: tuple[int, ...]) -> int:
    if column.level == 0:
        return policy_relation
    candidates: tuple[Relation | None, ...] = tuple(catalog.find_relation(oid) for oid in scope)
    return next((r.oid for r in candidates if r is not None and r.column(column.name) is not None), 0)


def _unwrapped(side: Expression) -> Expression:
    while isinstance(side, Cast):
        side = side.argument
    return side


def _bare_column(side: Expression) -> Column | None:
    """The column under casts and single-argument functions."""
    while True:
        match side:
            case Column():
                return side
            case Cast():
                side = side.argument
            case Call() if side.inlined is None and len(side.arguments) >= 1:
                inside = [a for a in side.arguments if any(isinstance(p, Column) for p in walk(a))]
                if len(inside) != 1:
                    return None
                side = inside[0]
            case _:
                return None


def _sources(
    catalog: Catalog, expression: Expression, path: tuple[str, ...] = (), *, looked_up: bool = True
) -> Iterator[Source]:
    """Sources whose value an expression is made of; with ``looked_up`` also those by which its subqueries find it."""
    match expression:
        case Setting():
            yield Source(expression.name, path)
        case SessionRole():
            yield Source(ROLE)
        case Json():
            step = _unwrapped(expression.key)
            keys = _path(step.value) if isinstance(step, Constant) and step.value is not None else ()
            yield from _sources(catalog, expression.document, (*keys, *path), looked_up=looked_up)
        case Call() if expression.inlined is not None:
            yield from _sources(catalog, expression.inlined, path, looked_up=looked_up)
        case Call() if expression.user:
            by = () if looked_up else _in_source(catalog, expression.function, 0)
            names = settings_read(catalog, expression.function) - {use.source.setting for use in by}
            yield from (Source(setting, path) for setting in sorted(names))
        case Subquery():
            for inner in (expression.target, *((expression.condition, expression.test) if looked_up else ())):
                if inner is not None:
                    yield from _sources(catalog, inner, path, looked_up=looked_up)
        case Cast() | Coalesce() | NullIf() | Case():
            for child in children(expression):
                yield from _sources(catalog, child, path, looked_up=looked_up)
        case _:
            for child in children(expression):
                yield from _sources(catalog, child, looked_up=looked_up)


def _path(text: str) -> tuple[str, ...]:
    """``app_metadata`` or, of ``#>>``, ``{app_metadata,org_id}``."""
    if text.startswith("{") and text.endswith("}"):
        return tuple(step.strip().strip('"') for step in text[1:-1].split(","))
    return (text,)
