"""Triggers that fire for a superuser's own hand as well: ENABLE ALWAYS and ENABLE REPLICA."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation, Trigger
from rlsaudit.probe.ground.statement_text import name

Connection = psycopg.Connection[tuple[object, ...]]


def silence(connection: Connection, catalog: Catalog, *relations: Relation) -> None:
    """Switch off the triggers of these relations that fire although ``session_replication_role`` is ``replica``."""
    for relation, trigger in _firing(catalog, relations):
        _alter(connection, relation, "DISABLE TRIGGER {}", trigger)


def restore(connection: Connection, catalog: Catalog, *relations: Relation) -> None:
    """Switch them on again, as they were."""
    for relation, trigger in _firing(catalog, relations):
        _alter(connection, relation, f"ENABLE {trigger.enabled.upper()} TRIGGER {{}}", trigger)


def _firing(catalog: Catalog, relations: Iterable[Relation]) -> list[tuple[Relation, Trigger]]:
    return [
        (relation, trigger)
        for relation in relations
        for trigger in catalog.triggers_of(relation.oid)
        if trigger.enabled in ("always", "replica")
    ]


def _alter(connection: Connection, relation: Relation, change: str, trigger: Trigger) -> None:
    changed = sql.SQL(change).format(sql.Identifier(trigger.name))
    connection.execute(sql.SQL("ALTER TABLE {} {}").format(name(relation), changed))
