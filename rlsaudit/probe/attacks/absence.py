"""Worlds that differ from the seeded one in other tenants' rows only: those rows gone, or other values in them."""

from __future__ import annotations

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground import ownership
from rlsaudit.probe.ground.silence import restore, silence
from rlsaudit.probe.ground.statement_text import name
from rlsaudit.probe.ground.world import Tenant

Connection = psycopg.Connection[tuple[object, ...]]


def remove_others(connection: Connection, arena: Arena, kept: Tenant) -> None:
    """Delete every row that belongs to a tenant other than ``kept``; triggers and foreign keys do not fire."""
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        for relation, belongs in _of_others(arena, kept):
            silence(connection, arena.catalog, relation)
            connection.execute(sql.SQL("DELETE FROM {} AS t WHERE {}").format(name(relation), belongs))
            restore(connection, arena.catalog, relation)
    _refresh(connection, arena.catalog)


def replace_others(connection: Connection, arena: Arena, kept: Tenant) -> None:
    """Give the rows of other tenants other values wherever nothing but the value depends on it."""
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        for relation, belongs in _of_others(arena, kept):
            silence(connection, arena.catalog, relation)
            for column, changed in _free(arena.catalog, relation):
                statement = sql.SQL("UPDATE {} AS t SET {} = {} WHERE {}").format(
                    name(relation), sql.Identifier(column), changed, belongs
                )
                try:
                    with connection.transaction():
                        connection.execute(statement)
                except psycopg.Error:
                    continue  # a value that does not fit stays as it was
            restore(connection, arena.catalog, relation)
    _refresh(connection, arena.catalog)


def _of_others(arena: Arena, kept: Tenant) -> list[tuple[Relation, sql.Composed]]:
    """Relations with rows of tenants, and the condition on ``t`` that picks those of others; children first, because
    a child's owner is told by its parent."""
    found = []
    others = [sql.Literal(tenant.key) for tenant in arena.world.tenants if tenant is not kept]
    relations = ownership.digested(arena.catalog, arena.tenancy)
    for relation in sorted(relations, key=lambda r: -len(arena.tenancy.of(r.oid).path)):
        whose = ownership.owner(arena.catalog, arena.tenancy.of(relation.oid), arena.world.tenants)
        found.append((relation, sql.SQL("{} IN ({})").format(whose, sql.SQL(", ").join(others))))
    return found


def _free(catalog: Catalog, relation: Relation) -> list[tuple[str, sql.Composed]]:
    """Plain text and number columns in no key, constraint, index or policy, each with an expression for another value."""
    bound = {n for c in catalog.constraints_of(relation.oid) if c.kind != "not null" for n in c.columns}
    bound |= {n for index in catalog.indexes_of(relation.oid) for n in index.columns}
    texts = " ".join(f"{p.using} {p.check}" for p in catalog.policies_of(relation.oid))
    found = []
    for column in relation.columns:
        if column.number in bound or column.generated or column.domain_checks or column.name in texts:
            continue
        named = sql.Identifier("t", column.name)
        if column.category == "S":
            found.append((column.name, sql.SQL("{} || '~'").format(named)))
        elif column.category == "N":
            found.append((column.name, sql.SQL("{} + 1").format(named)))
    return found


def _refresh(connection: Connection, catalog: Catalog) -> None:
    for view in (r for r in catalog.relations if r.kind == "materialized view"):
        try:
            connection.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(name(view)))
        except psycopg.Error:
            continue
    connection.execute("ANALYZE")
