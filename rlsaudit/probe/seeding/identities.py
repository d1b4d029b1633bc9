"""Who the tenants and their users are: keys that a sloppy comparison confuses, as far as the schema takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.probe.seeding import plan, server_side, shapes, values
from rlsaudit.probe.seeding.checks_solver import demand
from rlsaudit.probe.seeding.server_side import Connection, Problem
from rlsaudit.probe.seeding.supply import Supply
from rlsaudit.tenancy.model import Tenancy

FAMILIES = 4
"""Sets of tenants that are tried at most."""
_SAMPLES = 12

Place = tuple[Relation, Column]


def families(connection: Connection, catalog: Catalog, tenancy: Tenancy) -> tuple[tuple[Tenant, ...], ...]:
    """Sets of tenants to try, the most adversarial first; the keys pass the key columns' types and own CHECKs."""
    if tenancy.context.login:
        only = plan.key_families(tenancy)[0]
        return (_tenants(only, plan.user_values(tenancy, len(only))),)
    columns = _key_columns(catalog, tenancy)
    supply = Supply(connection, catalog, tenancy, [relation for relation, _ in columns])
    probe = _Filter(connection, catalog, columns)
    wanted = plan.TENANTS + (tenancy.key_type != "uuid")
    found: list[tuple[str, ...]] = []
    for family in plan.key_families(tenancy):
        keys = probe.passing(family)
        if len(keys) >= plan.TENANTS:
            found.append(keys[:wanted])
    if len(found) < 2 and columns:
        grown = _grown(probe, tuple(_samples(connection, supply, probe, columns)))
        if len(grown) >= 2:
            found.append(grown[:wanted])
    found = list(dict.fromkeys(found)) or [plan.key_families(tenancy)[0][:wanted]]
    users = _users(connection, catalog, tenancy, 2 * wanted)
    return tuple(_tenants(keys, users) for keys in found[:FAMILIES])


def _tenants(keys: tuple[str, ...], users: tuple[str, ...]) -> tuple[Tenant, ...]:
    count = len(keys)
    return tuple(
        Tenant(chr(65 + n), key, users[n % len(users)], users[count + n : count + n + 1]) for n, key in enumerate(keys)
    )


def _key_columns(catalog: Catalog, tenancy: Tenancy) -> tuple[Place, ...]:
    """Every column that holds a tenant key, the registry's first."""
    found = []
    for oid in sorted(tenancy.tenant_data(), key=lambda oid: oid != tenancy.registry):
        classified, relation = tenancy.of(oid), catalog.relation(oid)
        column = relation.column(classified.key) if classified.key and not classified.path else None
        if column is not None and relation.kind in ("table", "partitioned table"):
            found.append((relation, column))
    return tuple(found)


def _user_columns(catalog: Catalog, tenancy: Tenancy) -> tuple[Place, ...]:
    return tuple(
        (relation, column)
        for oid, names in tenancy.principal_columns.items()
        if (relation := catalog.find_relation(oid)) is not None and relation.kind in ("table", "partitioned table")
        for name in names
        if (column := relation.column(name)) is not None
    )


@dataclass(frozen=True)
class _Filter:
    """Asks the server which values all the columns take."""

    connection: Connection
    catalog: Catalog
    columns: tuple[Place, ...]

    def passing(self, given: Iterable[str]) -> tuple[str, ...]:
        left = tuple(dict.fromkeys(given))
        for kind in dict.fromkeys(column.type for _, column in self.columns):
            taken = server_side.accepted(self.connection, kind, left)
            # What a cast would cut, an INSERT refuses.
            left = tuple(value for value in left if _same(taken.get(value), value))
        for column, expressions in self._checks():
            if left:
                problem = Problem([column], {column.name: left}, expressions)
                kept = {one[column.name] for one in server_side.solve(self.connection, problem, len(left))}
                left = tuple(value for value in left if any(_same(one, value) for one in kept))
        return left

    def texts(self) -> tuple[str, ...]:
        """The CHECKs of the columns and of their domains."""
        checks = (text for _, expressions in self._checks() for text in expressions)
        return tuple(dict.fromkeys((*checks, *(t for _, column in self.columns for t in column.domain_checks))))

    def _checks(self) -> Iterator[tuple[Column, tuple[str, ...]]]:
        for relation, column in self.columns:
            demands = (
                demand(c) for c in self.catalog.constraints_of(relation.oid) if c.kind == "check" and c.expression
            )
            expressions = tuple(one.expression for one in demands if one.columns == {column.number})
            if expressions:
                yield column, expressions


def _same(stored: str | None, given: str) -> bool:
    return stored is not None and stored.lower().strip() == given.lower().strip()


def _samples(connection: Connection, supply: Supply, probe: _Filter, columns: tuple[Place, ...]) -> Iterator[str]:
    """Keys that the schema takes: from the column's default, its constraints and its type."""
    relation, column = columns[0]
    proposed = [*_defaults(connection, columns)]
    for serial in range(1, _SAMPLES):
        proposed += shapes.wanted_text(probe.texts(), values.token(serial % 5, serial), serial * 7919)[:60]
        proposed += supply.pool(relation, column, serial % 5, serial * 7919, mined_first=False)
    yield from probe.passing(proposed)


def _defaults(connection: Connection, columns: tuple[Place, ...]) -> Iterator[str]:
    """What the default of a key column gives, asked for some times."""
    expression = next((column.default for _, column in columns[:3] if column.default and not column.generated), None)
    if expression is None:
        return
    try:
        with connection.transaction(force_rollback=True):
            query = sql.SQL("SELECT ({})::text FROM generate_series(1, 6)").format(sql.SQL(expression))
            found = connection.execute(query).fetchall()
    except psycopg.Error:
        return
    yield from (str(value) for (value,) in found if value is not None)


def _grown(probe: _Filter, samples: tuple[str, ...]) -> tuple[str, ...]:
    """A sample and what it can be mistaken for, then other samples."""
    for sample in samples[:3]:
        twins = probe.passing(one for one in _twins(sample) if one not in samples[:1])
        if twins:
            return tuple(dict.fromkeys((sample, *twins[:2], *samples, *twins)))
    return samples


def _twins(sample: str) -> Iterator[str]:
    yield sample.swapcase()
    yield from (sample[: n + 1] + sample[n + 1 :].swapcase() for n, c in enumerate(sample) if c in "_-.:")
    yield from (sample[:-1] + last for last in ("1", "2", "b", "B") if last != sample[-1:])
    yield sample + "1"
    yield sample[:-1]
    yield from (sample[:n] + "x" + sample[n + 1 :] for n, c in enumerate(sample) if c in "_-")
    yield from shapes.mutations(sample, 7)
    yield sample[::-1]


def _users(connection: Connection, catalog: Catalog, tenancy: Tenancy, count: int) -> tuple[str, ...]:
    """Principals, of the principal's type."""
    written = plan.user_values(tenancy, count)
    columns = _user_columns(catalog, tenancy)
    probe = _Filter(connection, catalog, columns)
    passing = probe.passing(written) if columns else written
    if len(passing) == count:
        return passing
    supply = Supply(connection, catalog, tenancy, [relation for relation, _ in columns])
    samples = tuple(_samples(connection, supply, probe, columns))
    grown = [v for sample in samples for n in range(1, count + 1) for v in (sample, *shapes.mutations(sample, n * 11))]
    found = probe.passing(grown)
    return found[:count] if len(found) >= count else written
