"""What a row must fulfil to land in a partition: the server's own text of its bounds."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.ground.statement_text import name
from rlsaudit.probe.seeding import plan
from rlsaudit.probe.seeding.server_side import Connection

_LEAVES = 200
"""Partitions of one root that are given rows of their own; more would take longer than they teach."""


def bounds_of(connection: Connection, catalog: Catalog, root: Relation, number: int) -> tuple[str, ...]:
    """The bounds of one of the partitions, those with bounds of their own in turn."""
    leaves = list(plan.leaves(catalog, root))
    if not leaves:
        return ()
    ordered = sorted(leaves, key=lambda leaf: leaf.partition_bound == "DEFAULT")
    found = _definition(connection, ordered[number % len(ordered)])
    return (found,) if found else ()


def empty_leaves(connection: Connection, catalog: Catalog, root: Relation) -> Iterator[tuple[str, ...]]:
    """The bounds of every partition that holds no row yet."""
    for leaf in list(plan.leaves(catalog, root))[:_LEAVES]:
        query = sql.SQL("SELECT FROM {} LIMIT 1").format(name(leaf))
        if connection.execute(query).fetchone() is None:
            found = _definition(connection, leaf)
            yield (found,) if found else ()


def _definition(connection: Connection, leaf: Relation) -> str:
    """``pg_get_partition_constraintdef``: the bounds of the leaf and of what it is a partition of."""
    row = connection.execute("SELECT pg_get_partition_constraintdef(%s::oid)", (leaf.oid,)).fetchone()
    return str(row[0]) if row and row[0] else ""
