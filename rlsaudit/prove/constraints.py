"""What CHECK constraints say of the rows under test: their own, and those of rows that foreign keys lead to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, subquery_relations, walk
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import check_predicate
from rlsaudit.catalog.relations import Relation
from rlsaudit.prove.tables import column_of


def checks_on(catalog: Catalog, relation: Relation, names: Collection[str]) -> tuple[Expression, ...]:
    """Conditions that are not false for any row of the relation, as far as they are about the columns of these names."""
    if any(not child.is_partition for child in catalog.children_of(relation.oid)):
        return ()  # a read of it shows the children's rows too
    numbers = {column.number for column in relation.columns if column.name in names}
    found = list(_own(catalog, relation, numbers))
    deterministic = all(one.deterministic for one in catalog.collations)
    for constraint in catalog.constraints_of(relation.oid):
        there = catalog.find_relation(constraint.referenced)
        sure = constraint.validated and constraint.enforced and not constraint.deferrable and deterministic
        if constraint.kind != "foreign key" or not sure or there is None or len(constraint.columns) != 1:
            continue
        ours = relation.column_number(constraint.columns[0])
        if ours is not None and ours.number in numbers:
            column = column_of(ours)
            for check in _own(catalog, there, set(constraint.referenced_columns)):
                moved = _put(check, {constraint.referenced_columns[0]: column})
                found.append(e.Or((e.NullTest(column, True), moved)))
    return tuple(dict.fromkeys(found))


def _own(catalog: Catalog, relation: Relation, numbers: set[int]) -> Iterator[Expression]:
    """The CHECKs that are about these columns alone."""
    for constraint in catalog.constraints_of(relation.oid):
        sure = constraint.kind == "check" and constraint.validated and constraint.enforced
        check = check_predicate(catalog, constraint) if sure and set(constraint.columns) <= numbers else None
        if check is not None and not subquery_relations(check) and not _changes(check):
            yield check


def _changes(expression: Expression) -> bool:
    """Whether it may give another answer now than when the row was written."""
    return any(
        isinstance(part, (e.Opaque, e.Setting, e.SessionRole))
        or (isinstance(part, (e.Call, e.Compare)) and part.volatility != "immutable")
        or (isinstance(part, e.Call) and part.user)
        for part in walk(expression)
    )


def _put(expression: Expression, columns: Mapping[int, e.Column]) -> Expression:
    if isinstance(expression, e.Column):
        return columns[expression.number]
    values = {one.name: _value(getattr(expression, one.name), columns) for one in fields(expression)}
    return type(expression)(**values)  # type: ignore[arg-type]


def _value(value: object, columns: Mapping[int, e.Column]) -> object:
    if isinstance(value, tuple):
        return tuple(_value(item, columns) for item in value)
    return _put(value, columns) if isinstance(value, Expression) else value


def rewritten(catalog: Catalog, relation: Relation) -> bool:
    """Whether a trigger or a domain may refuse or change values of the relation's rows, or of those it refers to."""
    for oid in (relation.oid, *(one.referenced for one in catalog.constraints_of(relation.oid) if one.referenced)):
        found = catalog.find_relation(oid)
        if found is None or any(column.domain_checks for column in found.columns):
            return True
        for trigger in catalog.triggers_of(oid):
            if trigger.row_level and trigger.enabled != "disabled" and {"INSERT", "UPDATE"} & set(trigger.events):
                return True
    return False
