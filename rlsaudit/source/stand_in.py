"""A role in the application's place, for schemas that are published without one."""

from __future__ import annotations

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog

STAND_IN = "rlsaudit_app"


def stand_in(connection: psycopg.Connection[tuple[object, ...]], catalog: Catalog) -> None:
    """Make the role in a scratch database, with the privileges that applications usually have.  Raises psycopg.Error."""
    role = sql.Identifier(STAND_IN)
    connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    for schema in catalog.schemas:
        name = sql.Identifier(schema.name)
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(name, role))
        for kind, privileges in (
            ("TABLES", "SELECT, INSERT, UPDATE, DELETE"),
            ("SEQUENCES", "USAGE, SELECT"),
        ):
            statement = sql.SQL("GRANT {} ON ALL {} IN SCHEMA {} TO {}")
            connection.execute(statement.format(sql.SQL(privileges), sql.SQL(kind), name, role))
