"""Unique keys and exclusion constraints that reach over tenants, and what they tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rlsaudit.checks._keys import Guess, Writer, anchors, guess, key_of, keyed, names, read_by_all, referred, writers

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.outcome import Way, ways
from rlsaudit.catalog.policies import default_expression, index_expressions, index_predicate
from rlsaudit.catalog.relations import Constraint, Index, Relation
from rlsaudit.check import Subject
from rlsaudit.finding import Severity
from rlsaudit.tenancy.people import found_by

_FOLDING = frozenset(
    {"||", "concat", "concat_ws", "lower", "upper", "md5", "sha256", "digest", "coalesce", "format", "text"}
)


@dataclass(frozen=True)
class Unique:
    """A unique index or exclusion constraint."""

    name: str
    relation: Relation
    index: Index | None
    constraint: Constraint | None
    elements: tuple[frozenset[str], ...]
    """For each part the columns that it is made of."""
    pinned: frozenset[str]
    """Columns that rows in conflict have in common."""

    @property
    def said(self) -> str:
        """Its parts as the server prints them: ``lower(host)``."""
        if self.constraint is not None:
            return re.sub(r"^.*?\((.*?)\)( INCLUDE .*| WHERE .*| DEFERRABLE.*)?$", r"\1", self.constraint.definition)
        found = re.search(
            r" USING \w+ \((.*?)\)( INCLUDE .*| NULLS .*| WITH .*| WHERE .*)?$",
            self.index.definition if self.index else "",
        )
        return found.group(1) if found else self.name


def all_of(subject: Subject, relation: Relation) -> Iterator[Unique]:
    """The relation's own; those that a partition has from its parent are the parent's."""
    by_name = {one.name: one for one in subject.catalog.constraints_of(relation.oid)}
    inherited = (
        {key for oid in relation.parents for key in _column_sets(subject, oid)} if relation.is_partition else set()
    )
    for index in subject.catalog.indexes_of(relation.oid):
        constraint = by_name.get(index.name)
        exclusion = constraint is not None and constraint.kind == "exclusion"
        if not index.valid or not (index.unique or exclusion):
            continue
        found = _unique(subject, relation, index, constraint)
        if found.elements not in inherited:
            yield found


def _column_sets(subject: Subject, oid: int) -> Iterator[tuple[frozenset[str], ...]]:
    parent = subject.catalog.find_relation(oid)
    for one in all_of(subject, parent) if parent is not None else ():
        yield one.elements


def _unique(subject: Subject, relation: Relation, index: Index, constraint: Constraint | None) -> Unique:
    expressions = iter(index_expressions(subject.catalog, index))
    elements: list[frozenset[str]] = []
    pinned: set[str] = set()
    exclusion = constraint is not None and constraint.kind == "exclusion"
    operators = re.findall(r" WITH (\S+?)[,)]", constraint.definition) if exclusion and constraint else []
    for position, number in enumerate(index.columns):
        expression = next(expressions, e.Opaque("unknown")) if number == 0 else None
        columns = frozenset(e.columns(expression)) if expression is not None else frozenset(names(relation, (number,)))
        elements.append(columns)
        if exclusion and (position >= len(operators) or operators[position] != "="):
            continue
        pinned |= _kept(expression) if expression is not None else columns
    for name in tuple(pinned):
        column = relation.column(name)
        if column is not None and column.generated:
            source = default_expression(subject.catalog, relation, column)
            pinned |= _kept(source) if source is not None else set()
    return Unique(index.name, relation, index, constraint, tuple(elements), frozenset(pinned))


def _kept(expression: e.Expression) -> set[str]:
    """Columns that have the same value, or nearly, where the expression has: ``tenant_id || host``, not ``n % 4``."""
    match expression:
        case e.Column(level=0):
            return {expression.name}
        case e.Cast():
            return _kept(expression.argument)
        case e.Coalesce():
            return {name for part in expression.arguments for name in _kept(part)}
        case e.Call() if expression.inlined is not None:
            return _kept(expression.inlined)
        case e.Call() if expression.name in _FOLDING:
            return {name for part in expression.arguments for name in _kept(part)}
        case e.Opaque():
            return {name for part in expression.parts for name in _kept(part)}
        case _:
            return set()


def scoped(subject: Subject, one: Unique) -> bool:
    """Whether rows of different tenants cannot be in conflict."""
    if any(set(anchor) <= one.pinned for anchor in anchors(subject, one.relation)):
        return True
    key = key_of(subject, one.relation)
    if key is None:
        return False
    predicate = index_predicate(subject.catalog, one.index) if one.index is not None else None
    found = ways(predicate) if predicate is not None else None
    if found is not None and all(_pins(way, key) for way in found):
        return True
    return _one_tenant(subject, one.relation, key)


def _pins(way: Way, key: str) -> bool:
    """Whether the rows that the condition admits have one value of the key, or none."""
    for condition in way:
        atom = condition.atom
        if condition.value is not True:
            continue
        if isinstance(atom, e.NullTest) and atom.is_null and _is(atom.argument, key):
            return True
        if isinstance(atom, e.Compare) and atom.operator == "=" and (_is(atom.left, key) or _is(atom.right, key)):
            return not (e.depends_on_row(atom.left) and e.depends_on_row(atom.right))
    return False


def _is(expression: e.Expression, key: str) -> bool:
    inner = e.bare(expression)
    return isinstance(inner, e.Column) and inner.level == 0 and inner.name == key


def _one_tenant(subject: Subject, relation: Relation, key: str) -> bool:
    """A partition that holds one tenant's rows."""
    for oid in relation.parents if relation.is_partition else ():
        parent = subject.catalog.find_relation(oid)
        if parent is None or parent.partition_key is None:
            continue
        by_key = parent.partition_key.upper().startswith("LIST") and quote(key) in parent.partition_key
        values = re.fullmatch(r"FOR VALUES IN \((.*)\)", relation.partition_bound or "")
        if by_key and values and len(re.findall(r"'(?:[^']|'')*'|[^,\s']+", values.group(1))) == 1:
            return True
        if _one_tenant(subject, parent, key):
            return True
    return False


def told(subject: Subject, one: Unique) -> tuple[Severity, tuple[str, ...]] | None:
    """How much a conflict tells a role that row security binds, and to which roles; None when nothing."""
    columns = frozenset[str]().union(*one.elements)
    kinds: set[Guess] = set()
    for name in columns:
        if one.relation.column(name) is not None and name != key_of(subject, one.relation):
            kinds.add(_kind(subject, one, name))
    if kinds & {"random", "number"}:
        return None
    who = tuple(
        dict.fromkeys(
            writer.role.name
            for writer in writers(subject, one.relation)
            if not read_by_all(subject, one.relation, writer.role.oid)
            and (writer.columns & columns or (not columns and writer.command == "INSERT"))
            and not _out_of_reach(subject, one, writer)
        )
    )
    if not who:
        return None
    return ("low" if "foreign" in kinds or by_design(subject, one) else "medium"), who


def by_design(subject: Subject, one: Unique) -> bool:
    """Whether it is what tenants or people are found by before a tenant is known: a tenant's slug, a login."""
    kind = subject.tenancy.of(one.relation.oid).kind
    return found_by(one.relation, kind, frozenset[str]().union(*one.elements))


def _out_of_reach(subject: Subject, one: Unique, writer: Writer) -> bool:
    """Whether the index covers only rows with a flag that is false unless somebody else sets it."""
    predicate = index_predicate(subject.catalog, one.index) if one.index is not None else None
    found = ways(predicate) if predicate is not None else None
    return (
        writer.command == "INSERT"
        and bool(found)
        and all(
            any(
                condition.value is True
                and isinstance(condition.atom, e.Column)
                and condition.atom.name not in writer.columns
                and (column := one.relation.column(condition.atom.name)) is not None
                and column.default == "false"
                for condition in way
            )
            for way in found or ()
        )
    )


def _kind(subject: Subject, one: Unique, name: str) -> Guess:
    column = one.relation.column(name)
    assert column is not None
    found = guess(subject, one.relation, column)
    alone = one.index is not None and one.index.primary and one.index.columns == (column.number,)
    if (
        found == "natural"
        and alone
        and column.base_type in ("integer", "bigint", "smallint")
        and one.relation.oid in referred(subject)
    ):
        return "number"
    return found


def scope_columns(subject: Subject, relation: Relation) -> tuple[str, ...]:
    """Columns to put before a key so that it holds within one tenant."""
    classified = subject.tenancy.of(relation.oid)
    if classified.path:
        return classified.path[0].columns
    return (classified.key,) if classified.key is not None and keyed(subject, relation.oid) else ()
