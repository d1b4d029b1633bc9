"""From a loaded scratch database to a World: choose tenants, seed them, install the oracle, read the truth back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import psycopg

from rlsaudit.catalog.model import Catalog, Relation
from rlsaudit.probe import ownership, plan
from rlsaudit.probe.oracle import Digest, parse_digest
from rlsaudit.probe.seed import Filled, Place, Seeded, Seeder
from rlsaudit.probe.session import Reply
from rlsaudit.probe.statement_text import name
from rlsaudit.probe.world import SHARED, Row, Tenant, World, homes, marks
from rlsaudit.tenancy.model import Tenancy

Connection = psycopg.Connection[tuple[object, ...]]


def populate(connection: Connection, catalog: Catalog, tenancy: Tenancy) -> World:
    """Seed the database behind ``connection`` (a superuser's, autocommit) and describe what stands in it.

    Tries sets of tenant keys until the schema accepts one for every tenant; the last set is kept as it is.
    """
    families = plan.key_families(tenancy)
    for attempt, family in enumerate(families):
        tenants = _tenants(tenancy, family)
        seeded = _seed(connection, catalog, tenancy, tenants, final=attempt == len(families) - 1)
        if seeded is not None:
            return _describe(connection, catalog, tenancy, tenants, seeded)
    raise AssertionError("the last family of keys is always kept")


def _tenants(tenancy: Tenancy, family: tuple[str, ...]) -> tuple[Tenant, ...]:
    users = plan.user_values(tenancy, len(family))
    return tuple(Tenant(chr(65 + n), key, user) for n, (key, user) in enumerate(zip(family, users, strict=True)))


class _Rejected(Exception):
    pass


def _seed(
    connection: Connection, catalog: Catalog, tenancy: Tenancy, tenants: tuple[Tenant, ...], *, final: bool
) -> Seeded | None:
    try:
        with connection.transaction():
            seeded = Seeder(connection, catalog, tenancy, tenants).run()
            if not final and not _every_tenant_has_rows(catalog, tenancy, tenants, seeded):
                raise _Rejected
    except _Rejected:
        return None
    return seeded


def _every_tenant_has_rows(catalog: Catalog, tenancy: Tenancy, tenants: tuple[Tenant, ...], seeded: Seeded) -> bool:
    """A set of keys is good when no relation took one tenant's rows and refused another's."""
    for relation in plan.seedable(catalog, tenancy):
        filled = [bool(seeded.rows[relation.oid, tenant.name]) for tenant in tenants]
        if tenancy.of(relation.oid).tenant_data and any(filled) != all(filled):
            return False
    root = tenancy.registry
    return root is None or all(seeded.rows[root, tenant.name] for tenant in tenants)


def _describe(
    connection: Connection, catalog: Catalog, tenancy: Tenancy, tenants: tuple[Tenant, ...], seeded: Seeded
) -> World:
    _refresh(connection, catalog)
    ownership.install(connection, catalog, tenancy, tenants)
    ownership.install_release(connection, catalog, tenancy)
    rows: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for relation in ownership.digested(catalog, tenancy):
        for owner, row in ownership.owned_rows(connection, catalog, tenancy.of(relation.oid), tenants):
            rows[relation.oid, owner].append(row)
    connection.execute("ANALYZE")
    known = marks((*_owned_values(rows, tenants), *_common_values(tenancy, seeded)))
    return World(
        tenants=tenants,
        rows={place: tuple(found) for place, found in rows.items()},
        spare=_spare(tenants, seeded.proposed),
        marks=known,
        homes=homes(known, rows),
        baseline=digest(connection),
        failures=seeded.failures,
    )


def digest(connection: Connection) -> Digest:
    """Count and hash of every relation's rows by owner, as they stand now."""
    records = connection.execute(ownership.DIGEST).fetchall()
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


def _spare(
    tenants: tuple[Tenant, ...], proposed: Mapping[Place, list[Filled]]
) -> dict[tuple[int, str], tuple[Row, ...]]:
    keys = {tenant.name: tenant.key for tenant in tenants}
    return {
        (oid, keys.get(name, SHARED) if name else SHARED): tuple(rows) for (oid, name), rows in proposed.items() if rows
    }
