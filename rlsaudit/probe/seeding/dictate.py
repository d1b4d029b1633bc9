"""What a row must have: the tenant key, the acting user, and a parent for every foreign key.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Column, Constraint, Relation
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.probe.seeding import plan
from rlsaudit.tenancy.model import Tenancy

Filled = dict[str, str | None]
Place = tuple[int, str | None]
"""(relation OID, tenant name); None for rows that belong to nobody or to everybody."""


@dataclass
class Dictated:
    """``values`` for the columns that are not free; ``missing`` says why there can be no row."""

    values: Filled = field(default_factory=dict)
    alternatives: dict[str, tuple[str | None, ...]] = field(default_factory=dict)
    """Column of a foreign key → what else it may be, the other columns being as they are."""
    itself: list[tuple[tuple[str, str], ...]] = field(default_factory=list)
    """(referencing column, referenced column) of foreign keys that the row must fulfil by itself."""
    missing: str = ""


class Dictator:
    """Reads the rows that have been made so far; ``failures`` explains a parent that has none."""

    def __init__(
        self,
        catalog: Catalog,
        tenancy: Tenancy,
        rows: Mapping[Place, list[Filled]],
        failures: Mapping[int, str],
    ) -> None:
        self._catalog = catalog
        self._tenancy = tenancy
        self._rows = rows
        self._failures = failures

    def dictated(
        self, relation: Relation, tenant: Tenant | None, serial: int, promised: Mapping[int, Filled] | None = None
    ) -> Dictated:
        """``promised``: relation OID → the row of a cycle that will be inserted by the same statement."""
        classified = self._tenancy.of(relation.oid)
        found = Dictated()
        if classified.tenant_data and not classified.path and classified.key:
            found.values[classified.key] = tenant.key if tenant else None
        if tenant is not None:
            found.values.update(self._attributes(relation))
            found.values.update(self._principal(relation, tenant))
        for position, constraint in enumerate(plan.foreign_keys(self._catalog, relation)):
            self._reference(found, relation, constraint, tenant, serial >> position, promised or {})
            if found.missing:
                break
        return found

    def _attributes(self, relation: Relation) -> Iterator[tuple[str, str]]:
        """What policies hold against other context; where it must be unique only the first row can have it."""
        for named, value in self._tenancy.attributes.get(relation.oid, {}).items():
            column = relation.column(named)
            unique = column is not None and any(
                index.unique and index.columns == (column.number,) for index in self._catalog.indexes_of(relation.oid)
            )
            if not unique or not any(oid == relation.oid and rows for (oid, _), rows in self._rows.items()):
                yield named, value

    def _principal(self, relation: Relation, tenant: Tenant) -> Iterator[tuple[str, str]]:
        named = self._tenancy.principal_columns.get(relation.oid, ())
        classified = self._tenancy.of(relation.oid)
        key = relation.column(classified.key) if classified.key and not classified.path else None
        count = len(self._rows.get((relation.oid, tenant.name), ()))
        for column in relation.columns:
            if column.name not in named or column.name == classified.key:
                continue
            # One row per user, or per user and tenant: the second row is another user's.
            alone = any(
                set(constraint.columns) - {key.number if key else 0} == {column.number}
                for constraint in self._catalog.constraints_of(relation.oid)
                if constraint.kind in ("primary key", "unique")
            )
            users = (tenant.user, *tenant.fellows)
            if alone and count >= len(users) and not self._refers(relation, column):
                continue  # where users are kept one more is a new one
            yield column.name, users[count % len(users)] if alone else tenant.user

    def _refers(self, relation: Relation, column: Column) -> bool:
        return any(column.number in constraint.columns for constraint in self._catalog.foreign_keys_of(relation.oid))

    def _reference(
        self,
        found: Dictated,
        relation: Relation,
        constraint: Constraint,
        tenant: Tenant | None,
        serial: int,
        promised: Mapping[int, Filled],
    ) -> None:
        pairs = plan.column_pairs(self._catalog, constraint)
        fixed = found.values
        known = {here: fixed[here] for here, _ in pairs if here in fixed and fixed[here] is not None}
        if len(known) == len(pairs) and any(here in found.alternatives for here, _ in pairs):
            return
        if constraint.referenced in promised:
            row = promised[constraint.referenced]
            fixed.update({here: row.get(there) for here, there in pairs if here not in known})
            return
        parents = self._parents(constraint.referenced, tenant)
        fitting = [p for p in parents if all(p.get(there) == known[here] for here, there in pairs if here in known)]
        fitting = self._of_user(relation, constraint, fixed, fitting) or fitting
        if fitting:
            # Two foreign keys of one row walk their parents at different speeds, so that all pairs come up.
            chosen = fitting[serial % len(fitting)]
            free = [(here, there) for here, there in pairs if here not in fixed]
            fixed.update({here: chosen.get(there) for here, there in free})
            if len(free) == 1:
                found.alternatives[free[0][0]] = tuple(dict.fromkeys(p.get(free[0][1]) for p in fitting))
            return
        principals = self._tenancy.principal_columns.get(relation.oid, ())
        for here, _ in pairs:
            if here in known and here in principals and _optional(relation, here):
                # The user is not there yet; the column is filled later (``late references``).
                fixed[here] = None
        optional = [here for here, _ in pairs if here not in fixed and _optional(relation, here)]
        if optional or any(fixed.get(here, "") is None for here, _ in pairs):
            fixed.update(dict.fromkeys(optional))
        elif constraint.referenced == relation.oid:
            found.itself.append(pairs)
        else:
            self._missing(found, constraint)

    def _of_user(
        self, relation: Relation, constraint: Constraint, fixed: Mapping[str, str | None], parents: list[Filled]
    ) -> list[Filled]:
        """Where people's sessions are kept, the user of the session: whom the session's own name stands for."""
        if self._tenancy.of(relation.oid).kind != "principal":
            return []
        users = {fixed[column] for column in self._tenancy.principal_columns.get(relation.oid, ()) if column in fixed}
        named = self._tenancy.principal_columns.get(constraint.referenced, ())
        return [parent for parent in parents if any(parent.get(column) in users for column in named)]

    def _missing(self, found: Dictated, constraint: Constraint) -> None:
        parent = self._catalog.find_relation(constraint.referenced)
        name = parent.qualified if parent else f"relation {constraint.referenced}"
        cause = self._failures.get(constraint.referenced, "it has no rows for this tenant")
        found.missing = f"{constraint.name} needs a row of {name}, which could not be seeded: {cause}"

    def _parents(self, parent: int, tenant: Tenant | None) -> list[Filled]:
        own = self._rows.get((parent, tenant.name), []) if tenant else []
        return own or self._rows.get((parent, None), [])


def _optional(relation: Relation, name: str) -> bool:
    column = relation.column(name)
    return column is not None and not column.not_null
