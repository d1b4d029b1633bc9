"""Whether one set of policies admits rows that another one, of another catalog, does not: ``after and not before``.

Two catalogs number their columns, relations and functions differently, so a predicate is first put into the terms of
one of them, by name.  What cannot be is no answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Command, Relation
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.prove import smt
from rlsaudit.prove.encode import Encoder
from rlsaudit.prove.goals import Answer, Session, Side, refute
from rlsaudit.prove.smt import Term
from rlsaudit.prove.tables import NO_WORLD, NOTHING, Reader, combined, key_of
from rlsaudit.prove.values import Row
from rlsaudit.tenancy.model import ApplicationRole, Tenancy

EVERYTHING: Expression = e.Constant("true", "boolean")


class Untranslatable(Exception):
    """What a predicate names and the other catalog does not have."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How the objects of a predicate's catalog are called in another one."""

    catalog: Catalog
    """The one whose terms are wanted."""
    relations: Mapping[int, int]
    functions: Mapping[int, int]
    """Only functions that do the same in both."""


def admitted(
    catalog: Catalog, visibility: Visibility, role: int, relation: Relation, command: Command, side: Side
) -> Expression:
    """Which rows the role may reach with the command: none without the privilege, all where row security does not bind."""
    if not visibility.may(role, relation, command):
        return NOTHING
    if visibility.exempt(role, relation) is not None:
        return EVERYTHING
    return combined(catalog, visibility.policies(role, relation, command), side) or NOTHING


def wider(
    before: Expression, after: Expression, side: Side, relation: Relation, role: ApplicationRole, reader: Reader
) -> Answer:
    """Whether every row of ``relation`` that ``after`` admits was admitted by ``before``, both in the terms of the
    reader's catalog: ``holds``, or ``violated`` with a row that is new."""

    def violation(encoder: Encoder) -> Iterable[Term]:
        row = Row("row 1")
        if side == "new":
            encoder.new = {row.label}
        was = encoder.condition(before, row)
        yield encoder.condition(after, row).is_true
        yield smt.negation(was.is_true)
        if encoder.opaque == "error":
            yield smt.negation(was.error)  # or it may be what is not modelled

    return refute(violation, _session(before, after, relation, role, reader))


def _session(
    before: Expression, after: Expression, relation: Relation, role: ApplicationRole, reader: Reader
) -> Session:
    classified = reader.tenancy.relations.get(relation.oid)
    key = key_of(reader.catalog, classified) if classified is not None and classified.tenant_data else None
    return Session(role=role.name, world=NO_WORLD if key is None else reader.world(key, relation, (before, after)))


def reader_of(catalog: Catalog, tenancy: Tenancy, visibility: Visibility, role: ApplicationRole) -> Reader:
    return Reader(catalog, tenancy, visibility, role)


def translated(expression: Expression, relation: Relation, terms: Terms) -> Expression:
    """The predicate about rows of ``relation``, a relation of ``terms.catalog``, in that catalog's terms.

    Equal predicates of two catalogs become equal.  Raises Untranslatable.
    """
    return _Translation(relation, terms).of(expression, {})


Queries = Mapping[int, tuple[int, Mapping[int, int]]]
"""Number of a subquery around an expression → its new number, and its columns' sources → relations."""


class _Translation:
    def __init__(self, relation: Relation, terms: Terms) -> None:
        self.relation, self.terms = relation, terms

    def of(self, part: Expression, queries: Queries) -> Expression:
        match part:
            case e.Column():
                return self._column(part, queries)
            case e.Subquery():
                return self._subquery(part, queries)
            case e.Opaque() if part.type == "name":
                return replace(part, volatile=True)  # the name of which thing of the session is not kept
            case e.Call():
                function = self.terms.functions.get(part.function, -part.function) if part.user else part.function
                # The same function of the same row in the same session; that two calls may differ is no difference.
                volatility: e.Volatility = "stable" if part.volatility == "volatile" else part.volatility
                part = replace(part, function=function, volatility=volatility)
        values = {one.name: self._value(getattr(part, one.name), queries) for one in fields(part)}
        return _ordered(type(part)(**values))  # type: ignore[arg-type]

    def _value(self, value: object, queries: Queries) -> object:
        if isinstance(value, tuple):
            return tuple(self._value(item, queries) for item in value)
        return self.of(value, queries) if isinstance(value, Expression) else value

    def _column(self, column: e.Column, queries: Queries) -> e.Column:
        number, tables = queries.get(column.query, (0, {}))
        there: Relation | None = self.relation
        if column.level > 0:
            there = self.terms.catalog.find_relation(tables.get(column.source, 0))
        if column.number <= 0 or there is None:
            return replace(column, query=number)
        found = there.column(column.name)
        if found is None:
            raise Untranslatable(f"{there.qualified} has no column {column.name} any more")
        if found.base_type != column.type:
            raise Untranslatable(f"{there.qualified}.{column.name} is of another type")
        return replace(column, number=found.number, not_null=found.not_null, query=number)

    def _subquery(self, part: e.Subquery, queries: Queries) -> Expression:
        if not part.plain:
            # What it says is not kept whole, so two that look alike may differ.
            return e.Opaque("a subquery", type=part.type)
        tables = {source: self._relation(oid) for source, oid in part.tables}
        depth = len(queries) + 1
        inside = {**queries, part.query: (depth, tables)}
        condition, target, test = (
            None if one is None else self.of(one, inside) for one in (part.condition, part.target, part.test)
        )
        return replace(
            part,
            relations=tuple(self._relation(oid) for oid in part.relations),
            condition=condition,
            target=target,
            test=test,
            parts=(),
            query=depth,
            tables=tuple(tables.items()),
        )

    def _relation(self, oid: int) -> int:
        if oid not in self.terms.relations:
            raise Untranslatable("it reads a relation that is no more, or whose rows the role sees by other policies")
        return self.terms.relations[oid]


def _ordered(part: Expression) -> Expression:
    """The same with the operands of AND, OR and true equality in one order, whatever order they were written in."""
    match part:
        case e.And() | e.Or():
            return replace(part, arguments=tuple(sorted(dict.fromkeys(part.arguments), key=repr)))
        case e.Compare(operator="=", exact=True):
            left, right = sorted((part.left, part.right), key=repr)
            return replace(part, left=left, right=right)
    return part
