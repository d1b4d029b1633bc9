"""Context beyond tenant and user: a region, a plan, a clearance that policies hold against a column of the row.

Every session is given one value of the column's type, and every seeded row has the same, so that such a condition
holds and the tenant's own rows can be seen.
"""

from __future__ import annotations

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Column
from rlsaudit.tenancy.keys import Keys
from rlsaudit.tenancy.sources import ROLE, Reading, Source

_BY_CATEGORY = {"N": "7", "S": "north", "B": "true"}
_BY_TYPE = {"uuid": "07070707-0000-4000-8000-000000000007", "date": "2026-07-07"}


def attribute_value(catalog: Catalog, reading: Reading, keys: Keys, source: Source) -> str | None:
    """The value to give ``source``; None when no column says what it is."""
    for oid, name in sorted(_columns(reading, keys, source)):
        relation = catalog.find_relation(oid)
        column = relation.column(name) if relation else None
        if column is not None and (value := _value(column)) is not None:
            return value
    return None


def attributes(catalog: Catalog, reading: Reading, keys: Keys) -> dict[int, dict[str, str]]:
    """Relation OID → columns that a row must have a certain value in."""
    found: dict[int, dict[str, str]] = {}
    for source in sorted(reading.sources - keys.tenant_sources - keys.user_sources):
        value = attribute_value(catalog, reading, keys, source)
        for oid, name in _columns(reading, keys, source) if value is not None else ():
            found.setdefault(oid, {})[name] = value or ""
    return found


def _columns(reading: Reading, keys: Keys, source: Source) -> set[tuple[int, str]]:
    if source.setting == ROLE or source in keys.tenant_sources | keys.user_sources:
        return set()
    if any(use.source == source and use.constant for use in reading.uses):
        return set()  # what is compared with constants is a choice of personas, not an attribute of rows
    return {
        (use.relation, use.column)
        for use in reading.uses
        if use.source == source and use.column and keys.columns.get(use.relation, ("",))[0] != use.column
    }


def _value(column: Column) -> str | None:
    if column.enum_labels:
        return column.enum_labels[0]
    return _BY_TYPE.get(column.base_type) or _BY_CATEGORY.get(column.category)
