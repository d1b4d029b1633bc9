"""Relations that say who belongs to which tenant."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.tenancy import words
from rlsaudit.tenancy.model import Tenancy

_LOGIN = re.compile(r"(db|pg|sql|database)_?(user|role|login)(_?name)?$|rol(e_?)?name$", re.IGNORECASE)


def memberships(catalog: Catalog, tenancy: Tenancy) -> Iterator[tuple[Relation, Column, Column]]:
    """(relation, who, tenant key) of those that tie somebody to a tenant; those of database roles first."""
    found = []
    for oid in tenancy.tenant_data():
        relation, classified = catalog.relation(oid), tenancy.of(oid)
        if not relation.holds_rows or classified.path or oid == tenancy.registry:
            continue
        tenant = relation.column(classified.key) if classified.key else None
        if tenant is None:
            continue
        unique = [set(one.columns) for one in catalog.constraints_of(oid) if one.kind in ("primary key", "unique")]
        users = [
            column for column in relation.columns
            if (names_login(column) or words.user_like(column.name))
            and any(column.number in columns <= {column.number, tenant.number} for columns in unique)
            and column.number != tenant.number
        ]  # fmt: skip
        found += [(relation, user, tenant) for user in sorted(users, key=lambda one: not names_login(one))[:1]]
    yield from sorted(found, key=lambda one: not names_login(one[1]))


def names_login(column: Column) -> bool:
    """Whether it names database roles."""
    return column.base_type == "name" or bool(_LOGIN.match(column.name))
