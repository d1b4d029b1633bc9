"""Whose row is it: SQL expressions for a row's owner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.ground.statement_text import name
from rlsaudit.probe.ground.world import SHARED, Tenant
from rlsaudit.tenancy.model import Classified, Step, Tenancy


def owner(catalog: Catalog, classified: Classified, tenants: Iterable[Tenant], alias: str = "t") -> sql.Composable:
    """An expression over ``alias`` that gives the owner's label (tenant key as text), or NULL.

    A key column names it; a child asks its parent through the foreign key; a principal without either is looked up
    among the users that were seeded.
    """
    if classified.key is not None:
        last = sql.Identifier(_alias(alias, classified.path), classified.key)
        return _through(catalog, classified.path, sql.SQL("{}::text").format(last), alias, 0)
    relation = catalog.relation(classified.path[-1].relation if classified.path else classified.relation)
    identity, tenants = primary_key(catalog, relation), tuple(tenants)
    if len(identity) != 1 or not tenants:
        return sql.SQL("NULL::text")
    cases = [
        sql.SQL("WHEN {} THEN {}").format(sql.Literal(user), sql.Literal(tenant.key))
        for tenant in tenants
        for user in (tenant.user, *tenant.fellows)
    ]
    column = sql.Identifier(_alias(alias, classified.path), identity[0])
    found = sql.SQL("CASE {}::text {} END").format(column, sql.SQL(" ").join(cases))
    return _through(catalog, classified.path, found, alias, 0)


def _alias(alias: str, path: tuple[Step, ...]) -> str:
    """What ``_through`` calls the last relation of the path."""
    return f"p{len(path) - 1}" if path else alias


def _through(catalog: Catalog, path: tuple[Step, ...], found: sql.Composable, alias: str, depth: int) -> sql.Composable:
    if not path:
        return found
    step, parent = path[0], f"p{depth}"
    joined = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(parent, there), sql.Identifier(alias, here))
        for here, there in zip(step.columns, step.referenced_columns, strict=True)
    )
    return sql.SQL("(SELECT {} FROM {} AS {} WHERE {} LIMIT 1)").format(
        _through(catalog, path[1:], found, parent, depth + 1),
        name(catalog.relation(step.relation)),
        sql.Identifier(parent),
        joined,
    )


def primary_key(catalog: Catalog, relation: Relation) -> tuple[str, ...]:
    """Column names of the primary key, or of a unique key over NOT NULL columns, or nothing."""
    keys = [c for c in catalog.constraints_of(relation.oid) if c.kind in ("primary key", "unique")]
    for constraint in sorted(keys, key=lambda c: c.kind != "primary key"):
        columns = [relation.column_number(number) for number in constraint.columns]
        if all(column is not None and column.not_null for column in columns):
            return tuple(column.name for column in columns if column is not None)
    return ()


def digested(catalog: Catalog, tenancy: Tenancy) -> tuple[Relation, ...]:
    """Relations whose rows are guarded by the digest: tenant data that holds rows, partitions only through their root."""
    relations = (catalog.relation(oid) for oid in tenancy.tenant_data())
    return tuple(r for r in relations if r.kind in ("table", "partitioned table") and not r.is_partition)


def owned_rows(
    connection: psycopg.Connection[tuple[object, ...]],
    catalog: Catalog,
    classified: Classified,
    tenants: tuple[Tenant, ...],
) -> list[tuple[str, Mapping[str, str | None]]]:
    """Every row of the relation as (owner label, column → text), read by the privileged identity."""
    relation = catalog.relation(classified.relation)
    columns = [sql.SQL("t.{}::text").format(sql.Identifier(column.name)) for column in relation.columns]
    query = sql.SQL("SELECT COALESCE({}, {}), {} FROM {}{} AS t").format(
        owner(catalog, classified, tenants),
        sql.Literal(SHARED),
        sql.SQL(", ").join([*columns]) if columns else sql.SQL("NULL"),
        only(relation),
        name(relation),
    )
    names = [column.name for column in relation.columns]
    return [(str(row[0]), dict(zip(names, row[1:], strict=False))) for row in connection.execute(query)]  # type: ignore[arg-type]


def only(relation: Relation) -> sql.SQL:
    """Inheritance children are relations of their own, partitions are counted through their root."""
    return sql.SQL("" if relation.kind == "partitioned table" else "ONLY ")
