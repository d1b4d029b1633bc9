"""From a loaded scratch database to a World: choose tenants, seed them, install the oracle, read the truth back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import psycopg

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.ground import ownership
from rlsaudit.probe.ground.digest import digest_of, install
from rlsaudit.probe.ground.oracle import Digest, parse_digest
from rlsaudit.probe.ground.session import Reply
from rlsaudit.probe.ground.statement_text import name
from rlsaudit.probe.ground.world import SHARED, Row, Tenant, World, homes, marks
from rlsaudit.probe.seeding import identities, server_side
from rlsaudit.probe.seeding.dictate import Filled, Place
from rlsaudit.probe.seeding.hooks import run_hooks
from rlsaudit.probe.seeding.seed import Rejected, Seeded, Seeder
from rlsaudit.tenancy.model import Tenancy

Connection = psycopg.Connection[tuple[object, ...]]


def populate(connection: Connection, catalog: Catalog, tenancy: Tenancy) -> World:
    """Seed the database behind ``connection`` (a superuser's, autocommit) and describe what stands in it.

    Tries sets of tenants until the schema accepts one for every tenant; else the first set is kept as far as it goes.
    Raises UsageError when a statement of ``[seed] sql`` fails.
    """
    server_side.install(connection)
    empty = [relation for relation in _nobodys(catalog, tenancy) if not _rows(connection, catalog, tenancy, relation)]
    stood = {
        r.oid: rows for r in ownership.digested(catalog, tenancy) if (rows := _rows(connection, catalog, tenancy, r))
    }
    with connection.transaction():  # what is tried on the server sets savepoints
        tried = identities.families(connection, catalog, tenancy)
    for tenants in tried if len(tried) > 1 else ():
        try:
            world = _seeded(connection, catalog, tenancy, tenants, strict=True)
            break
        except Rejected:
            continue
    else:
        world = _seeded(connection, catalog, tenancy, tried[0], strict=False)
    made = {r.oid: rows for r in empty if (rows := _rows(connection, catalog, tenancy, r))}
    return replace(world, made=made, stood=stood)


def _nobodys(catalog: Catalog, tenancy: Tenancy) -> tuple[Relation, ...]:
    """Tables without tenant data, into which triggers and rules may write."""
    return tuple(
        r
        for r in catalog.relations
        if r.kind in ("table", "partitioned table")
        and not (r.is_partition or r.extension or tenancy.of(r.oid).tenant_data)
    )


def _rows(connection: Connection, catalog: Catalog, tenancy: Tenancy, relation: Relation) -> tuple[Row, ...]:
    return tuple(row for _, row in ownership.owned_rows(connection, catalog, tenancy.of(relation.oid), ()))


def _seeded(
    connection: Connection, catalog: Catalog, tenancy: Tenancy, tenants: tuple[Tenant, ...], *, strict: bool
) -> World:
    with connection.transaction():
        seeder = Seeder(connection, catalog, tenancy, tenants, strict=strict)
        seeded = seeder.run()
        if tenancy.seeding.sql:
            run_hooks(connection, tenancy, tenants)
            seeded = seeder.again()
        failures = seeder.remedies()
    return _describe(connection, catalog, tenancy, tenants, seeded, failures)


def _describe(
    connection: Connection,
    catalog: Catalog,
    tenancy: Tenancy,
    tenants: tuple[Tenant, ...],
    seeded: Seeded,
    failures: Mapping[int, str],
) -> World:
    _refresh(connection, catalog)
    install(connection, catalog, tenancy, tenants)
    rows: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for relation in ownership.digested(catalog, tenancy):
        for owner, row in ownership.owned_rows(connection, catalog, tenancy.of(relation.oid), tenants):
            rows[relation.oid, owner].append(row)
    connection.execute("ANALYZE")
    owned = (*_owned_values(rows, tenants), *_common_values(tenancy, seeded))
    borrowed = {value for found in seeded.strays.values() for row in found for value in row.values()}
    borrowed &= {value for owner, value in owned if owner != SHARED}  # a stray row names users, and marks none of them
    known = marks((owner, value) for owner, value in owned if owner != SHARED or value not in borrowed)
    strays = {
        oid: frozenset(marks((SHARED, value) for row in found for value in row.values()))
        & {mark for mark, owner in known.items() if owner == SHARED}
        for oid, found in seeded.strays.items()
    }
    return World(
        tenants=tenants,
        rows={place: tuple(found) for place, found in rows.items()},
        spare=_spare(tenants, seeded.proposed),
        marks=known,
        homes=homes(known, rows),
        baseline=digest(connection),
        common=_common(tenancy, seeded.rows),
        brought=frozenset(seeded.brought),
        common_spare=_common(tenancy, seeded.proposed),
        strays=strays,
        failures=failures,
    )


def digest(connection: Connection, asked: str = digest_of(None)) -> Digest:
    """Count and hash of every relation's rows by owner, as they stand now; or of those that ``asked`` asks for."""
    records = connection.execute(asked.encode()).fetchall()
    return parse_digest(Reply(rows=tuple(tuple(None if c is None else str(c) for c in record) for record in records)))


def _refresh(connection: Connection, catalog: Catalog) -> None:
    """A materialized view is empty until it is refreshed, and an empty one would prove nothing."""
    views = [r for r in catalog.relations if r.kind == "materialized view"]
    for _ in range(2 if len(views) > 1 else len(views)):  # twice, because one may read another
        for view in views:
            try:
                with connection.transaction():
                    connection.execute(_refresh_statement(view))
            except psycopg.Error:
                continue


def _refresh_statement(view: Relation) -> psycopg.sql.Composed:
    return psycopg.sql.SQL("REFRESH MATERIALIZED VIEW {}").format(name(view))


def _owned_values(
    rows: Mapping[tuple[int, str], list[Row]], tenants: tuple[Tenant, ...]
) -> Iterator[tuple[str, str | None]]:
    """(owner label, value); what triggers made for an owner that is none of the tenants counts as everybody's."""
    known = {tenant.key for tenant in tenants}
    for (_, owner), found in rows.items():
        for row in found:
            yield from ((owner if owner in known else SHARED, value) for value in row.values())


def _common_values(tenancy: Tenancy, seeded: Seeded) -> Iterator[tuple[str, str | None]]:
    """Values of rows that are nobody's: a tenant's row that refers to one shows its key, and so may everybody's."""
    for (oid, tenant), found in seeded.rows.items():
        if tenant is None and not tenancy.of(oid).tenant_data:
            for row in found:
                yield from ((SHARED, value) for value in row.values())


def _common(tenancy: Tenancy, rows: Mapping[Place, list[Filled]]) -> dict[int, tuple[Row, ...]]:
    return {oid: tuple(found) for (oid, _), found in rows.items() if found and not tenancy.of(oid).tenant_data}


def _spare(
    tenants: tuple[Tenant, ...], proposed: Mapping[Place, list[Filled]]
) -> dict[tuple[int, str], tuple[Row, ...]]:
    keys = {tenant.name: tenant.key for tenant in tenants}
    return {
        (oid, keys.get(name, SHARED) if name else SHARED): tuple(rows) for (oid, name), rows in proposed.items() if rows
    }
