"""Whether a user's id names the same person in every tenant."""

from __future__ import annotations

from typing import Literal

from rlsaudit.checks._reading import Use

from rlsaudit.catalog.relations import Column, Constraint, Relation
from rlsaudit.check import Subject
from rlsaudit.tenancy import words

Ids = Literal["within a tenant", "of one tenant", "tied", "anywhere"]
"""``within a tenant``: two tenants may use one id for two people.  ``of one tenant``: ids are unique, and each person has
one tenant.  ``tied``: and a foreign key holds the row to that tenant.  ``anywhere``: a person may be of several tenants."""


def user_ids(subject: Subject, use: Use, name: str) -> Ids:
    """What the ids in a column of users are, by the table that they refer to, or the table of users itself."""
    column = use.relation.column(name)
    if column is None:
        return "anywhere"
    for constraint in subject.catalog.constraints_of(use.relation.oid):
        if constraint.kind == "foreign key" and column.number in constraint.columns:
            people = subject.catalog.find_relation(constraint.referenced)
            position = constraint.columns.index(column.number)
            their = people.column_number(constraint.referenced_columns[position]) if people else None
            if people is not None and their is not None:
                return _of(subject, people, their, _with_key(use, constraint))
    return _of(subject, use.relation, column, False) if not words.user_like(name) else "anywhere"


def _of(subject: Subject, people: Relation, column: Column, tied: bool) -> Ids:
    classified = subject.tenancy.of(people.oid)
    key = people.column(classified.key) if classified.key and not classified.path else None
    if classified.kind != "tenant" or key is None:
        return "anywhere"
    unique = {
        frozenset(one.columns) for one in subject.catalog.indexes_of(people.oid) if one.unique and not one.predicate
    }
    if frozenset({column.number}) in unique:
        return "tied" if tied else "of one tenant"
    # One sequence, or randomness, gives no id twice even where nothing forbids it.
    alone = column.sequence or column.base_type == "uuid"
    return "within a tenant" if frozenset({key.number, column.number}) in unique and not alone else "anywhere"


def _with_key(use: Use, constraint: Constraint) -> bool:
    key = use.relation.column(use.place.key or "")
    return key is not None and key.number in constraint.columns and constraint.enforced and constraint.validated
