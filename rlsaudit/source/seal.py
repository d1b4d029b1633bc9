"""Cutting a scratch database off from other servers before anything is tried in it."""

from __future__ import annotations

import psycopg
from psycopg import sql

_WRAPPERS = """
SELECT fdwname FROM pg_catalog.pg_foreign_data_wrapper WHERE fdwhandler <> 0 ORDER BY fdwname
"""
_SUBSCRIPTIONS = """
SELECT subname FROM pg_catalog.pg_subscription s
JOIN pg_catalog.pg_database d ON d.oid = s.subdbid AND d.datname = pg_catalog.current_database()
ORDER BY subname
"""
# Without its library none of the extension's functions can be called, not even by a definer function.
_DBLINK = """
UPDATE pg_catalog.pg_proc SET probin = 'cut off by rlsaudit' WHERE oid IN (
  SELECT d.objid FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_extension'::regclass
  WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.deptype = 'e' AND e.extname = 'dblink')
"""


def seal(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[str, ...]:
    """Take the handlers from foreign-data wrappers, disable subscriptions and dblink.

    ``connection`` is a superuser's.  Returns notes.  Raises psycopg.Error.
    """
    notes: list[str] = []
    for (wrapper,) in connection.execute(_WRAPPERS).fetchall():
        name = str(wrapper)
        statement = "ALTER FOREIGN DATA WRAPPER {} NO HANDLER"
        connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
        notes.append(f"foreign-data wrapper {name} is cut off: foreign tables cannot be read in the scratch copy")
    for (subscription,) in connection.execute(_SUBSCRIPTIONS).fetchall():
        disable = sql.SQL("ALTER SUBSCRIPTION {} DISABLE")
        connection.execute(disable.format(sql.Identifier(str(subscription))))
    if connection.execute(_DBLINK).rowcount:
        notes.append("extension dblink is cut off: its functions fail in the scratch copy")
    return tuple(notes)
