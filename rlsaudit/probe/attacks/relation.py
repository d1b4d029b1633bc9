"""The deterministic attacks on one relation: pure, from the catalog, the privileges and the seeded world.

Every write is tried both with and without reading a column.  A statement that reads one (WHERE, RETURNING,
``SET x = column``) is also bound by the SELECT policies, to the old row and the new one, and so hides what the
write policies let through (PostgreSQL manual, CREATE POLICY, "Policies Applied by Command Type").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Command, Relation
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.probe.attacks import statement_shapes
from rlsaudit.probe.attacks.unique_keys import with_fresh_values
from rlsaudit.probe.ground.ownership import primary_key
from rlsaudit.probe.ground.statement_text import columns, insert, literal, matching, name, text
from rlsaudit.probe.ground.world import Row, Tenant, World
from rlsaudit.probe.seeding.plan import column_pairs, foreign_keys
from rlsaudit.tenancy.model import Tenancy

Aim = Literal["own", "foreign", "blind", "peek"]
"""``own``: must work, or the cell is not alive.  ``foreign``: names another tenant's row.  ``blind``: names none.
``peek``: lets a cheap predicate of the attacker's own see the rows."""

_TOUCHED = 4
"""How many columns of a relation are written one by one."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One statement under one tenant's context."""

    relation: int
    command: Command
    aim: Aim
    statement: str
    tenant: Tenant
    key_at: int = -1
    """Position of the tenant key among the columns that come back, or -1."""


@dataclass(frozen=True)
class Target:
    """What the attacks need to know about one relation, for one role."""

    catalog: Catalog
    tenancy: Tenancy
    relation: Relation
    readable: tuple[str, ...]
    insertable: tuple[str, ...]
    updatable: tuple[str, ...]
    deletable: bool
    key: tuple[str, ...]
    unique: frozenset[str] = frozenset()
    """Columns that take part in a unique index."""

    @property
    def tenant_key(self) -> str | None:
        """The tenant key column, when the relation has one of its own."""
        classified = self.tenancy.of(self.relation.oid)
        return classified.key if not classified.path else None


def target(catalog: Catalog, tenancy: Tenancy, visibility: Visibility, role: int, relation: Relation) -> Target:
    """The privileges of ``role`` on ``relation``, as columns it may name in each command."""
    may = {command: visibility.may(role, relation, command) for command in ("SELECT", "INSERT", "UPDATE", "DELETE")}
    return Target(
        catalog,
        tenancy,
        relation,
        readable=visibility.columns(role, relation, "SELECT") if may["SELECT"] else (),
        insertable=visibility.columns(role, relation, "INSERT") if may["INSERT"] else (),
        updatable=visibility.columns(role, relation, "UPDATE") if may["UPDATE"] else (),
        deletable=may["DELETE"],
        key=primary_key(catalog, relation),
        unique=frozenset(
            column.name
            for index in catalog.indexes_of(relation.oid)
            for number in (index.columns if index.unique else ())
            if (column := relation.column_number(number))
        ),
    )


def attacks(on: Target, world: World, tenant: Tenant, command: Command) -> Iterator[Attack]:
    """Attacks of one command under ``tenant``'s context, the positive controls first."""
    make = {"SELECT": _selects, "INSERT": _inserts, "UPDATE": _updates, "DELETE": _deletes}[command]
    for aim, statement in make(on, world, tenant):
        yield Attack(on.relation.oid, command, aim, text(statement), tenant, _key_position(on, command, aim))


def _key_position(on: Target, command: Command, aim: Aim) -> int:
    """Where a SELECT of the readable columns shows the tenant key."""
    shows = command == "SELECT" and on.tenant_key is not None and on.tenant_key in on.readable
    return on.readable.index(on.tenant_key) if shows and on.tenant_key is not None and aim != "peek" else -1


Made = Iterator[tuple[Aim, sql.Composed]]


def _rows(on: Target, world: World, tenant: Tenant) -> tuple[Row, ...]:
    """Rows of ``tenant`` that stand in the relation, or in what it is a part or a view of."""
    common = {} if on.tenancy.of(on.relation.oid).tenant_data else world.common
    return next((rows for oid in _stems(on) if (rows := world.of(oid, tenant.key) or common.get(oid, ()))), ())


def _spare(on: Target, world: World, tenant: Tenant) -> tuple[Row, ...]:
    common = {} if on.tenancy.of(on.relation.oid).tenant_data else world.common_spare
    stems = _stems(on)
    return next((rows for oid in stems if (rows := world.spare.get((oid, tenant.key), ()) or common.get(oid, ()))), ())


def _stems(on: Target) -> tuple[int, ...]:
    """The relation, its parents, and of a view the relations it reads."""
    return (
        on.relation.oid,
        *on.relation.parents,
        *on.catalog.mentions("relation", on.relation.oid, "relation"),
    )


def _selects(on: Target, world: World, tenant: Tenant) -> Made:
    if not on.readable:
        return
    relation, listed = name(on.relation), columns(on.readable)
    yield "own", sql.SQL("SELECT {} FROM {}").format(listed, relation)
    if on.relation.kind == "table":
        yield "blind", sql.SQL("SELECT {} FROM ONLY {}").format(listed, relation)
    for other in world.others(tenant):
        if on.tenant_key in on.readable and on.tenant_key is not None:
            yield (
                "foreign",
                sql.SQL("SELECT {} FROM {} WHERE {} = {}").format(
                    listed, relation, sql.Identifier(on.tenant_key), literal(other.key)
                ),
            )
        for row in _rows(on, world, other)[:1]:
            if on.key and set(on.key) <= set(on.readable):
                yield (
                    "foreign",
                    sql.SQL("SELECT {} FROM {} WHERE {}").format(listed, relation, matching(on.relation, row, on.key)),
                )
    if tenant is world.tenants[0]:
        yield from statement_shapes.reads(on.relation, on.readable, lockable=bool(on.updatable))
    # A cheap predicate sees rows before an expensive one refuses them, unless a security barrier stands between.
    yield (
        "peek",
        sql.SQL(
            "SELECT current_setting('rlsaudit.seen', true), c.n "  # a count that nobody reads would not be made at all
            "FROM (SELECT count(*) AS n FROM {} AS t WHERE pg_temp.rlsaudit_peek(ROW({})::text)) AS c"
        ).format(relation, sql.SQL(", ").join(sql.Identifier("t", c) for c in on.readable)),
    )


def _inserts(on: Target, world: World, tenant: Tenant) -> Made:
    if not on.insertable:
        return
    for row in _spare(on, world, tenant):
        own = _permitted(row, on.insertable)
        yield "own", insert(on.relation, own)
        yield from _forged(on, world, tenant, own)
        if on.tenant_key in own and on.tenant_key is not None and on.tenancy.of(on.relation.oid).shared_rows:
            yield "foreign", insert(on.relation, {**own, on.tenant_key: None})
        if on.tenant_key in own:
            yield "blind", insert(on.relation, {c: v for c, v in own.items() if c != on.tenant_key})
        for other in world.others(tenant)[:1]:
            for pointed in pointing(on, world, other):
                if set(pointed) <= set(own):
                    yield "blind", insert(on.relation, {**own, **pointed})
    for other in world.others(tenant):
        # Rows that are there already too: a trigger may turn an INSERT into an update of them.
        for row in _spare(on, world, other):
            theirs = _permitted(row, on.insertable)
            yield "foreign", insert(on.relation, theirs)
            for column in _sharing(on):
                yield "foreign", insert(on.relation, {**theirs, column: tenant.key})
        for row in _occupying(on, world, tenant, other):
            yield "blind", insert(on.relation, _permitted(row, on.insertable))
        yield from _upserts(on, world, other)
    first = tenant is world.tenants[0]
    for row in _spare(on, world, world.others(tenant)[0])[:1] if first else ():
        yield from statement_shapes.inserts(on.catalog, on.relation, _permitted(row, on.insertable), on.readable)


def _forged(on: Target, world: World, tenant: Tenant, own: dict[str, str | None]) -> Made:
    """An own row that says it is another tenant's."""
    for other in world.others(tenant):
        if on.tenant_key in own and on.tenant_key is not None:
            forged = {**own, on.tenant_key: other.key}
            yield "foreign", insert(on.relation, forged)
            # The acting user's own name on a row of another tenant: how one joins where one does not belong.
            if mine := {c: tenant.user for c in on.tenancy.principal_columns.get(on.relation.oid, ()) if c in own}:
                yield "foreign", insert(on.relation, {**forged, **mine})
            for column in _sharing(on):
                yield "foreign", insert(on.relation, {**forged, column: tenant.key})
            if on.readable:
                yield (
                    "foreign",
                    sql.SQL("{} RETURNING {}").format(insert(on.relation, forged), columns(on.readable[:1])),
                )


def _sharing(on: Target) -> Iterator[str]:
    """Columns beside the tenant key that may name a tenant and that a policy looks at: with whom a row is shared, say."""
    key = on.relation.column(on.tenant_key) if on.tenant_key else None
    texts = " ".join(f"{p.using} {p.check}" for p in on.catalog.policies_of(on.relation.oid))
    for column in on.relation.columns:
        alike = key is not None and column.base_type == key.base_type and column.name not in (on.tenant_key, *on.key)
        if alike and column.name in on.insertable and column.name in texts:
            yield column.name


def _occupying(on: Target, world: World, tenant: Tenant, other: Tenant) -> Iterator[dict[str, str | None]]:
    """An own row under the identity of a row of ``other`` that is there already."""
    key = next((found for oid in _stems(on) if (found := primary_key(on.catalog, on.catalog.relation(oid)))), ())
    for own in _spare(on, world, tenant)[:1]:
        for taken in _rows(on, world, other)[:1]:
            yield {**own, **{column: taken.get(column) for column in key if column in own}}


def pointing(on: Target, world: World, other: Tenant) -> Iterator[dict[str, str | None]]:
    """Foreign key columns, the tenant key not among them, with the values of a row of ``other``: the confused deputy."""
    for constraint in foreign_keys(on.catalog, on.relation):
        pairs = column_pairs(on.catalog, constraint)
        if constraint.referenced == on.relation.oid or on.tenant_key in [here for here, _ in pairs]:
            continue
        for row in world.of(constraint.referenced, other.key)[:1]:
            yield {here: row.get(there) for here, there in pairs}


def _upserts(on: Target, world: World, other: Tenant) -> Made:
    """ON CONFLICT reaches the row that is already there: the other tenant's."""
    touched = [c for c in on.updatable if c not in on.key]
    if not (on.key and touched and on.key != (on.tenant_key,)):
        return
    for row in _rows(on, world, other)[:1]:
        given = _permitted(row, on.insertable)
        if set(on.key) <= set(given):
            yield (
                "foreign",
                sql.SQL("{} ON CONFLICT ({}) DO UPDATE SET {} = EXCLUDED.{}").format(
                    insert(on.relation, given),
                    columns(on.key),
                    sql.Identifier(touched[0]),
                    sql.Identifier(touched[0]),
                ),
            )


def _updates(on: Target, world: World, tenant: Tenant) -> Made:
    if not on.updatable:
        return
    relation, own = name(on.relation), _rows(on, world, tenant)
    plain = [c for c in on.updatable if c not in on.key and c != on.tenant_key and not _generated(on.relation, c)]
    # The same constant in several rows breaks a unique key and would hide what the policy lets through.
    plain.sort(key=lambda column: column in on.unique)
    # Nothing but keys: then those, for the policies are asked about them all the same.
    plain = plain or [c for c in on.updatable if c != on.tenant_key and not _generated(on.relation, c)]
    plain = plain or [c for c in on.updatable if not _generated(on.relation, c)]
    for column in plain[:_TOUCHED]:
        target_ = sql.Identifier(column)
        if own:
            constant = literal(own[0].get(column))
            yield "own", sql.SQL("UPDATE {} SET {} = {}").format(relation, target_, constant)
        if column in on.unique and (fresh := with_fresh_values(on.relation, column)) is not None:
            yield "own", fresh
        if column in on.readable:
            yield "own", sql.SQL("UPDATE {} SET {} = {}").format(relation, target_, target_)
    for other in world.others(tenant):
        for row in _rows(on, world, other)[:1]:
            if plain and on.key:
                change = sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(
                    relation,
                    sql.Identifier(plain[0]),
                    literal(row.get(plain[0])),
                    matching(on.relation, row, on.key),
                )
                yield "foreign", change
        yield from _moves(on, world, tenant, other)
    for column in plain[:1] if tenant is world.tenants[0] else ():
        value = own[0].get(column) if own else None
        yield from statement_shapes.updates(on.catalog, on.relation, column, value, on.readable)
    for other in world.others(tenant)[:1]:
        for pointed in pointing(on, world, other):
            if set(pointed) <= set(on.updatable):
                yield "blind", _set(on, pointed)
        # A column of the key's type may name the tenant that a trigger acts for.
        key = on.relation.column(on.tenant_key) if on.tenant_key else None
        for named in (c.name for c in on.relation.columns if key and c.base_type == key.base_type and c.name in plain):
            yield "blind", _set(on, {named: other.key})


def _set(on: Target, values: Mapping[str, str | None]) -> sql.Composed:
    changes = (sql.SQL("{} = {}").format(sql.Identifier(c), literal(v)) for c, v in values.items())
    return sql.SQL("UPDATE {} SET {}").format(name(on.relation), sql.SQL(", ").join(changes))


def _moves(on: Target, world: World, tenant: Tenant, other: Tenant) -> Made:
    """Give a row of one's own to another tenant, by the key or by the foreign key that tells whose it is."""
    relation, own = name(on.relation), _rows(on, world, tenant)
    key = on.tenant_key
    if key is not None and key in on.updatable:
        # One row only, picked by its identity, so that unique keys do not stand in for the policy.
        for row in own[:1]:
            if on.key:
                there = matching(on.relation, row, on.key)
                yield (
                    "foreign",
                    sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(
                        relation, sql.Identifier(key), literal(other.key), there
                    ),
                )
        yield (
            "blind",
            sql.SQL("UPDATE {} SET {} = {}").format(relation, sql.Identifier(key), literal(other.key)),
        )
        yield (
            "blind",
            sql.SQL("UPDATE {} SET {} = {}").format(relation, sql.Identifier(key), literal(tenant.key)),
        )
        # A foreign key over the tenant key refuses the move unless what it refers to moves along.
        for taker in (other, tenant):
            along = {key: taker.key, **_referring(on, world, taker, key)}
            if len(along) > 1 and set(along) <= set(on.updatable):
                yield "blind", _set(on, along)
    for step in on.tenancy.of(on.relation.oid).path[:1]:
        theirs = _rows(on, world, other)
        movable = [c for c in step.columns if c in on.updatable]
        if theirs and len(movable) == len(step.columns):
            moved = sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(c), literal(theirs[0].get(c))) for c in movable
            )
            yield "blind", sql.SQL("UPDATE {} SET {}").format(relation, moved)
            for row in own[:1]:
                if on.key:
                    yield (
                        "foreign",
                        sql.SQL("UPDATE {} SET {} WHERE {}").format(
                            relation, moved, matching(on.relation, row, on.key)
                        ),
                    )


def _referring(on: Target, world: World, other: Tenant, key: str) -> dict[str, str | None]:
    """Columns of foreign keys over the tenant key, with what a row of ``other`` has in them."""
    found: dict[str, str | None] = {}
    for constraint in foreign_keys(on.catalog, on.relation):
        pairs = column_pairs(on.catalog, constraint)
        for row in world.of(constraint.referenced, other.key)[:1] if key in [here for here, _ in pairs] else ():
            found |= {here: row.get(there) for here, there in pairs}
    return found


def _deletes(on: Target, world: World, tenant: Tenant) -> Made:
    if not on.deletable:
        return
    relation = name(on.relation)
    yield "own", sql.SQL("DELETE FROM {}").format(relation)
    if on.readable:
        yield "own", sql.SQL("DELETE FROM {} RETURNING {}").format(relation, columns(on.readable))
    for other in world.others(tenant):
        for row in _rows(on, world, other)[:1]:
            if on.key:
                yield (
                    "foreign",
                    sql.SQL("DELETE FROM {} WHERE {}").format(relation, matching(on.relation, row, on.key)),
                )
    if tenant is world.tenants[0]:
        theirs = next(iter(_rows(on, world, world.others(tenant)[0])), {})
        yield from statement_shapes.deletes(on.catalog, on.relation, theirs, on.key, on.readable)


def _permitted(row: Row, allowed: tuple[str, ...]) -> dict[str, str | None]:
    return {column: value for column, value in row.items() if column in allowed}


def _generated(relation: Relation, column: str) -> bool:
    found = relation.column(column)
    return found is not None and (bool(found.generated) or found.identity == "always")
