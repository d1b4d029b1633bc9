"""Cutting a scratch database off from other servers before anything is tried in it."""

from __future__ import annotations

import psycopg
from psycopg import sql

_WRAPPERS = """
SELECT fdwname FROM pg_catalog.pg_foreign_data_wrapper WHERE fdwhandler <> 0 ORDER BY fdwname
"""
_MAPPINGS = "SELECT srvname, umuser = 0, usename FROM pg_catalog.pg_user_mappings ORDER BY srvname, umuser"
_SUBSCRIPTIONS = """
SELECT subname FROM pg_catalog.pg_subscription s
JOIN pg_catalog.pg_database d ON d.oid = s.subdbid AND d.datname = pg_catalog.current_database()
ORDER BY subname
"""


def seal(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[str, ...]:
    """Take the handlers from foreign-data wrappers, drop user mappings and disable subscriptions; the notes.

    ``connection`` is a superuser's.  Raises psycopg.Error.
    """
    notes: list[str] = []
    for (wrapper,) in connection.execute(_WRAPPERS).fetchall():
        name = str(wrapper)
        statement = "ALTER FOREIGN DATA WRAPPER {} NO HANDLER"
        connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
        notes.append(
            f"foreign-data wrapper {name} is cut off: foreign tables cannot be read in the scratch copy"
        )
    for server, public, user in connection.execute(_MAPPINGS).fetchall():
        who = sql.SQL("PUBLIC") if public else sql.Identifier(str(user))
        statement = "DROP USER MAPPING IF EXISTS FOR {} SERVER {}"
        connection.execute(sql.SQL(statement).format(who, sql.Identifier(str(server))))
    for (subscription,) in connection.execute(_SUBSCRIPTIONS).fetchall():
        name = sql.Identifier(str(subscription))
        connection.execute(sql.SQL("ALTER SUBSCRIPTION {} DISABLE").format(name))
    return tuple(notes)
