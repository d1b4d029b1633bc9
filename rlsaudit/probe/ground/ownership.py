"""Whose row is it: SQL expressions for a row's owner, and the digest function that every write is judged by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import LiteralString

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog, Constraint, Relation
from rlsaudit.probe.ground.statement_text import name
from rlsaudit.probe.ground.world import SHARED, Tenant
from rlsaudit.tenancy.model import Classified, Step, Tenancy

SCHEMA = "rlsaudit_oracle"
DIGEST = f"SELECT * FROM {SCHEMA}.digest()"


def digest_of(relations: Iterable[int] | None) -> str:
    """The digest of some relations only; of all for None.  On a large schema the whole digest costs more than the attack."""
    if relations is None:
        return DIGEST
    return f"SELECT * FROM {SCHEMA}.digest('{{{','.join(str(oid) for oid in sorted(relations))}}}')"


def release(relation: Relation) -> str:
    """A statement that removes every row that refers to ``relation``, so that a foreign key cannot stand in for a policy."""
    return f"SELECT {SCHEMA}.release({relation.oid})"


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


def install(
    connection: psycopg.Connection[tuple[object, ...]],
    catalog: Catalog,
    tenancy: Tenancy,
    tenants: tuple[Tenant, ...],
) -> None:
    """Create the digest function in the scratch database: ``(relation oid, owner text, count text, hash text)``.

    It is SECURITY DEFINER of a superuser, so that it sees all rows inside the attacker's own transaction.
    """
    counted = {
        relation.oid: sql.SQL(
            "SELECT {oid}::bigint::text, COALESCE({owner}, {shared}), count(*)::text, "
            "COALESCE(sum(hashtextextended(t::text, 0)), 0)::text FROM {only}{table} AS t GROUP BY 2"
        )
        .format(
            oid=sql.Literal(relation.oid),
            owner=owner(catalog, tenancy.of(relation.oid), tenants),
            shared=sql.Literal(SHARED),
            only=_only(relation),
            table=name(relation),
        )
        .as_string(connection)
        for relation in digested(catalog, tenancy)
    }
    # One query over all relations costs its start-up for each of them: where few are wanted, a query for each of those.
    body = " ".join(
        f"IF {oid} = ANY (wanted) THEN RETURN QUERY {counting}; END IF;" for oid, counting in counted.items()
    )
    if counted:
        whole = " UNION ALL ".join(f"({counting})" for counting in counted.values())
        body = f"IF wanted IS NULL THEN RETURN QUERY {whole}; RETURN; END IF; {body}"
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO PUBLIC").format(sql.Identifier(SCHEMA)))
    connection.execute(
        sql.SQL(
            "CREATE FUNCTION {}.digest(wanted bigint[] DEFAULT NULL) RETURNS TABLE(relation text, owner text, rows text, hash text) "
            "LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp "
            "SET row_security = on AS {}"
        ).format(sql.Identifier(SCHEMA), sql.Literal(f"#variable_conflict use_column\nBEGIN {body} END"))
    )
    _callable(connection, "digest(bigint[])")


def reach(catalog: Catalog, relation: Relation) -> frozenset[int] | None:
    """Relations whose rows a statement on ``relation`` can change: itself, its partition tree, and through foreign keys.

    None, meaning any, for a view and wherever a trigger or a rule may carry the change further.
    """
    found = {relation.oid}
    queue = [relation]
    while queue:
        one = queue.pop()
        near = (
            *(catalog.find_relation(oid) for oid in one.parents),
            *catalog.children_of(one.oid),
            *referrers(catalog, one),
        )
        for other in near:
            if other is not None and other.oid not in found:
                found.add(other.oid)
                queue.append(other)
    altered = {trigger.relation for trigger in catalog.triggers} | {rule.relation for rule in catalog.rules}
    return None if found & altered or not relation.holds_rows else frozenset(found)


def referrers(catalog: Catalog, relation: Relation) -> tuple[Relation, ...]:
    """Relations with a foreign key to ``relation``, and those that refer to them in turn."""
    referring: dict[int, list[Constraint]] = {}
    for one in catalog.constraints:
        if one.kind == "foreign key":
            referring.setdefault(one.referenced, []).append(one)
    found: dict[int, Relation] = {}
    queue = [relation.oid]
    while queue:
        parent = queue.pop()
        for constraint in referring.get(parent, ()):
            child = catalog.find_relation(constraint.relation)
            if child and child.oid not in (*found, relation.oid) and not child.is_partition:
                found[child.oid] = child
                queue.append(child.oid)
    return tuple(found.values())


def install_release(connection: psycopg.Connection[tuple[object, ...]], catalog: Catalog, tenancy: Tenancy) -> None:
    """Create ``release(oid)``: as a superuser and without firing triggers, empty whatever refers to the relation."""
    branches = [
        sql.SQL("IF relation = {} THEN {} END IF;").format(
            sql.Literal(relation.oid),
            sql.SQL(" ").join(sql.SQL("DELETE FROM {};").format(name(child)) for child in children),
        )
        for relation in digested(catalog, tenancy)
        if (children := referrers(catalog, relation))
    ]
    body = sql.SQL(" ").join(branches).as_string(connection) if branches else "NULL;"
    connection.execute(
        sql.SQL(
            "CREATE FUNCTION {}.release(relation bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER "
            "SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS {}"
        ).format(sql.Identifier(SCHEMA), sql.Literal(f"BEGIN {body} END"))
    )
    _callable(connection, "release(bigint)")


def _callable(connection: psycopg.Connection[tuple[object, ...]], signature: LiteralString) -> None:
    """Let every role call it, also where default privileges take EXECUTE on new functions from PUBLIC."""
    connection.execute(
        sql.SQL("GRANT EXECUTE ON FUNCTION {}.{} TO PUBLIC").format(sql.Identifier(SCHEMA), sql.SQL(signature))
    )


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
        _only(relation),
        name(relation),
    )
    names = [column.name for column in relation.columns]
    return [(str(row[0]), dict(zip(names, row[1:], strict=False))) for row in connection.execute(query)]  # type: ignore[arg-type]


def _only(relation: Relation) -> sql.SQL:
    """Inheritance children are relations of their own, partitions are counted through their root."""
    return sql.SQL("" if relation.kind == "partitioned table" else "ONLY ")
