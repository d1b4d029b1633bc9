"""Rows that no INSERT of ours makes: functions and procedures that fill a relation, and references that come late."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Constraint, Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.probe.ground.ownership import owner, primary_key
from rlsaudit.probe.ground.statement_text import literal, matching, name, text
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.probe.seeding import plan
from rlsaudit.probe.seeding.dictate import Filled, Place
from rlsaudit.probe.seeding.propose import Proposer
from rlsaudit.probe.seeding.writer import Connection, Refusal, Way, Writer, as_row, as_text
from rlsaudit.tenancy import words
from rlsaudit.tenancy.model import Tenancy

_TRIES = 6
_WAYS: tuple[Way, ...] = ("context", "role")


def standing(
    connection: Connection,
    catalog: Catalog,
    tenancy: Tenancy,
    tenants: tuple[Tenant, ...],
    relation: Relation,
    tenant: Tenant | None,
) -> list[Filled]:
    """The tenant's rows that inserts elsewhere have brought about, or reference rows that the schema brought along."""
    classified = tenancy.of(relation.oid)
    if tenant is None and classified.tenant_data:
        return []
    condition: sql.Composable = sql.SQL("true")
    if tenant is not None:
        condition = sql.SQL("{} = {}").format(owner(catalog, classified, tenants), sql.Literal(tenant.key))
    query = sql.SQL("SELECT {} FROM {} AS t WHERE {} LIMIT 5").format(as_text(relation), name(relation), condition)
    try:
        with connection.transaction():
            return [as_row(relation, record) for record in connection.execute(query).fetchall()]
    except psycopg.Error:
        return []


def by_functions(
    writer: Writer, catalog: Catalog, proposer: Proposer, relation: Relation, tenant: Tenant, serial: int
) -> bool:
    """Call what has an INSERT into the relation in its body; True when a call went through."""
    done = False
    for function in _filling(catalog, relation):
        for number in range(_TRIES):
            statement = _call(proposer, relation, function, tenant, serial * 10 + number, number)
            if not isinstance(writer.run(statement, tenant, keep=True, way=_WAYS[number % 2]), Refusal):
                done = True
                break
    return done


def _filling(catalog: Catalog, relation: Relation) -> Iterator[Function]:
    pattern = re.compile(rf'\binsert\s+into\s+(?:"?\w+"?\.)?"?{re.escape(relation.name)}"?(?!\w)', re.IGNORECASE)
    for function in catalog.functions:
        callable_ = function.kind in ("function", "procedure") and function.returns not in ("trigger", "event_trigger")
        if callable_ and function.extension is None and pattern.search(function.source):
            yield function


def _call(proposer: Proposer, relation: Relation, function: Function, tenant: Tenant, serial: int, number: int) -> str:
    arguments = []
    for position, kind in enumerate(function.argument_types):
        named = function.argument_names[position] if position < len(function.argument_names) else ""
        value = _argument(proposer, relation, named, kind, tenant, serial, number)
        arguments.append(sql.SQL("{}::{}").format(literal(value), sql.SQL(kind)))
    verb = "CALL" if function.kind == "procedure" else "SELECT"
    called = sql.SQL("{} {}.{}({})").format(
        sql.SQL(verb), sql.Identifier(function.schema), sql.Identifier(function.name), sql.SQL(", ").join(arguments)
    )
    return text(called)


def _argument(
    proposer: Proposer, relation: Relation, named: str, kind: str, tenant: Tenant, serial: int, number: int
) -> str | None:
    if words.tenant_like(named) and not words.user_like(named):
        return tenant.key
    if words.user_like(named):
        return tenant.user
    bare = re.sub(r"^(p|in|arg|v|new)_|_(in|arg)$|^_+|_+$", "", named.lower())
    column = next((c for c in relation.columns if c.name.lower() == bare), None)
    if column is not None:
        pool = proposer.pool(relation, column, tenant, serial)
    else:
        pool = proposer.supply.of_argument(named, kind, proposer.band(tenant), serial)
    return pool[number // 2 % len(pool)] if pool else None


def late_references(
    writer: Writer,
    catalog: Catalog,
    tenancy: Tenancy,
    tenants: tuple[Tenant, ...],
    rows: Mapping[Place, list[Filled]],
    order: Iterable[Relation],
) -> None:
    """Fill foreign keys that were left NULL because what they refer to came later, such as a tenant's owner."""
    seen: set[int] = set()
    for relation in order:
        seen.add(relation.oid)
        late = [c for c in plan.foreign_keys(catalog, relation) if c.referenced not in seen]
        for constraint in late if tenancy.of(relation.oid).tenant_data else ():
            for tenant in tenants:
                for row in rows.get((relation.oid, tenant.name), ()):
                    _refer(writer, catalog, tenancy, relation, constraint, tenant, row, rows)


def _refer(
    writer: Writer,
    catalog: Catalog,
    tenancy: Tenancy,
    relation: Relation,
    constraint: Constraint,
    tenant: Tenant,
    row: Filled,
    rows: Mapping[Place, list[Filled]],
) -> None:
    pairs = plan.column_pairs(catalog, constraint)
    parents = rows.get((constraint.referenced, tenant.name), ())
    # The acting user where the column is the user's, else whatever comes first.
    users = tenancy.principal_columns.get(relation.oid, ())
    ordered = sorted(parents, key=lambda p: not any(p.get(t) == tenant.user for h, t in pairs if h in users))
    free = [(here, there) for here, there in pairs if row.get(here) is None]
    key = primary_key(catalog, relation)
    fitting = [
        p for p in ordered if all(p.get(there) == row[here] for here, there in pairs if row.get(here) is not None)
    ]
    if not free or not fitting or not key:
        return
    values = {here: fitting[0].get(there) for here, there in free}
    changes = (sql.SQL("{} = {}").format(sql.Identifier(c), literal(v)) for c, v in values.items())
    statement = text(
        sql.SQL("UPDATE {} SET {} WHERE {}").format(
            name(relation), sql.SQL(", ").join(changes), matching(relation, row, key)
        )
    )
    if not isinstance(writer.run(statement, tenant, keep=True), Refusal):
        row.update(values)
