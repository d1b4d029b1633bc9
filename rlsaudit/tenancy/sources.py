"""Where a policy's values come from: settings, claims inside a setting, the role; and which columns they are held against."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

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
    model,
    relations_read,
    walk,
)
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.names import meant
from rlsaudit.catalog.policies import policy_predicate, settings_read
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function

ROLE = "current_user"
_WORDS = re.compile(r"[\w$]+")
_SEARCHES = frozenset(
    {"position", "strpos", "starts_with", "regexp_count", "regexp_like", "array_position", "array_positions"}
)
"""Functions of two arguments that look for one in the other."""


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


@dataclass(frozen=True)
class _Said:
    """What one condition of a policy says."""

    relation: int
    read: tuple[int, ...]
    uses: tuple[Use, ...]
    lookups: tuple[Lookup, ...]
    nullable: tuple[str, ...]
    sources: frozenset[Source]
    consulted: frozenset[int]

    def of(self, relation: int, read: tuple[int, ...]) -> _Said:
        """The same of a condition that differs in the relations only that it stands on and reads."""
        moved = {self.relation: relation, **dict(zip(self.read, read, strict=True))}
        uses = [
            Use(use.source, moved[use.relation], use.column, use.constant, relation, use.direct) for use in self.uses
        ]
        lookups = [Lookup(relation, one.column, moved[one.through], one.through_column) for one in self.lookups]
        consulted = frozenset([moved[oid] for oid in self.consulted])
        return _Said(relation, read, tuple(uses), tuple(lookups), self.nullable, self.sources, consulted)


def read(catalog: Catalog) -> Reading:
    """Read every policy of the catalog; pure, and silent about what it does not understand."""
    uses: list[Use] = []
    lookups: list[Lookup] = []
    nullable: set[tuple[int, str]] = set()
    sources: set[Source] = set()
    consulted: set[int] = set()
    alike: dict[tuple[Expression, tuple[int, ...]], _Said] = {}
    for policy in catalog.policies:
        for which in ("using", "check"):
            expression = policy_predicate(catalog, policy, which)
            if expression is None:
                continue
            relations = relations_read(expression)
            # A subquery may read the policy's own relation, which is then not to be told from others by its number.
            own = tuple([place for place, oid in enumerate(relations) if oid == policy.relation])
            known = alike.get((model(expression), own))
            if known is not None:
                said = known.of(policy.relation, relations)
            else:
                said = _said(catalog, expression, policy.relation)
                # What functions read is the same wherever they are called.
                if not any(isinstance(part, Call) and part.user for part in walk(expression)):
                    alike[model(expression), own] = said
            uses.extend(said.uses)
            lookups.extend(said.lookups)
            nullable.update((policy.relation, name) for name in said.nullable)
            sources.update(said.sources)
            consulted.update(said.consulted)
    return Reading(tuple(uses), tuple(lookups), frozenset(nullable), frozenset(sources), frozenset(consulted))


def _said(catalog: Catalog, expression: Expression, relation: int) -> _Said:
    uses: list[Use] = []
    lookups: list[Lookup] = []
    nullable: list[str] = []
    consulted: set[int] = set()
    for part, scope in _scoped(expression, ()):
        uses.extend(_uses(catalog, part, relation, scope))
        lookups.extend(_lookups(catalog, part, relation, scope))
        match part:
            case NullTest(argument=Column(level=0) as column, is_null=True):
                nullable.append(column.name)
            case Call(user=True, inlined=None):
                uses.extend(_in_source(catalog, part.function, relation))
            case Subquery():
                consulted.update(oid for oid in part.relations if oid != relation)
    sources = frozenset(_sources(catalog, expression))
    read = relations_read(expression)
    return _Said(relation, read, tuple(uses), tuple(lookups), tuple(nullable), sources, frozenset(consulted))


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
        case Call(user=False, arguments=(one, other)) if part.name in _SEARCHES:
            yield one, other
            yield other, one
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
        elif (
            isinstance(constant := _unwrapped(side), Constant) and constant.value is not None and not _searching(other)
        ):
            yield from (Use(source, policy_relation, "", constant.value, policy_relation) for source in found)


def _searching(side: Expression) -> bool:
    """Whether a number is asked of a search: nothing of the source is held against it then."""
    return any(isinstance(part, Call) and not part.user and part.name in _SEARCHES for part in walk(side))


def _in_source(catalog: Catalog, function: int, policy_relation: int) -> Iterator[Use]:
    """What a function that cannot be read as a tree holds against settings, by its text: ``k.key = v`` after
    ``v text := current_setting('app.api_key')``, or the call itself in place of ``v``."""
    found = catalog.function(function)
    if found is None:
        return
    relations, source = _named(catalog, found), found.source
    for setting in sorted(settings_read(catalog, function)):
        read = rf"(?:\w+\s*\(\s*)*current_setting\s*\(\s*'{re.escape(setting)}'"
        variables = re.findall(rf"(\w+)(?:\s+[\w.%]+)?\s*:=\s*{read}", source, re.IGNORECASE)
        values = "|".join([read, *(rf"{re.escape(one)}\b" for one in variables)])
        for column in dict.fromkeys(re.findall(rf"(\w+)(?:\s*::\s*\w+)?\s*=\s*(?:{values})", source, re.IGNORECASE)):
            for relation in relations:
                if relation.column(column) is not None:
                    yield Use(Source(setting), relation.oid, column, None, policy_relation)


def _named(catalog: Catalog, function: Function) -> tuple[Relation, ...]:
    """Relations that the function's text names, of those that it depends on where that is recorded."""
    recorded = set(catalog.mentions("function", function.oid, "relation"))
    # What stands between quotes may be a name or, where a string has one, anything but a name: both are looked at.
    words = chain(_WORDS.findall(function.source), function.source.split('"'))
    names = dict.fromkeys(name for word in words for name in (word, word.lower()))
    named: dict[int, Relation] = {}
    for schemas in map(catalog.relations_named, names):
        written = (schemas[name] for name in names if name in schemas)
        named |= {one.oid: one for one in chain(meant(catalog, function, schemas), chain.from_iterable(written))}
    return tuple(one for oid, one in named.items() if not recorded or oid in recorded)


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
