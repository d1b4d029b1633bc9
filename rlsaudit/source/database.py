"""Making a database that behaves like another: its locale, and what CREATE DATABASE does not copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

import psycopg
from psycopg import sql

from rlsaudit import interrupt
from rlsaudit.errors import ServerLost

Connection = psycopg.Connection[tuple[object, ...]]

_SETTINGS = """
SELECT COALESCE(r.rolname, ''), s.setrole = 0, c.setting
FROM pg_catalog.pg_db_role_setting s
JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase AND d.datname = %s
LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (setting)
"""
_RIGHTS = """
SELECT o.rolname, COALESCE(g.rolname, ''), a.grantee = 0, a.privilege_type, a.is_grantable
FROM pg_catalog.pg_database d
JOIN pg_catalog.pg_roles o ON o.oid = d.datdba
CROSS JOIN LATERAL pg_catalog.aclexplode(COALESCE(d.datacl, pg_catalog.acldefault('d', d.datdba))) AS a
LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
WHERE d.datname = %s AND (g.oid IS NOT NULL OR a.grantee = 0)
"""
# Names of the columns differ by version; as a document they can be asked for one by one.
_LOCALE = """
SELECT pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, d.datlocprovider::text,
       COALESCE(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale')
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""


class Watched(psycopg.Connection[tuple[object, ...]]):
    """A connection whose block does not end quietly when the server went away within it."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        broken = self.broken
        super().__exit__(kind, value, traceback)
        if broken and (value is None or isinstance(value, Exception)):
            raise ServerLost("the connection to the server was lost") from value


def await_back(conninfo: str, seconds: float, ended: Callable[[], bool] = lambda: False) -> None:
    """Wait for a server that is starting again.

    Raises ServerLost when it is not back after so many seconds, or has ``ended`` for good.
    """
    deadline = time.monotonic() + seconds
    while not ended():
        try:
            psycopg.connect(conninfo).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise ServerLost(f"the server is not back after {seconds:g} s: {error}") from error
        else:
            return
        interrupt.check()
        time.sleep(0.2)
    raise ServerLost("the server has ended")


def like_current(connection: Connection) -> sql.Composable:
    """Options of CREATE DATABASE … TEMPLATE template0 for the encoding and locale of the session's database."""
    row = connection.execute(_LOCALE).fetchone()
    assert row is not None
    encoding, collate, ctype, provider, locale = row
    options = sql.SQL("ENCODING {} LC_COLLATE {} LC_CTYPE {}").format(*map(sql.Literal, (encoding, collate, ctype)))
    if provider == "i":
        options += sql.SQL(" LOCALE_PROVIDER icu ICU_LOCALE {}").format(sql.Literal(locale))
    elif provider == "b":
        options += sql.SQL(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}").format(sql.Literal(locale))
    return options


def settle(connection: Connection, template: str) -> None:
    """Give the session's database, a copy of ``template``, the owner, privileges and settings of that one, and no event triggers.

    What an event trigger does when something is created is the schema's business when it is loaded, not the probe's.
    Raises psycopg.Error.
    """
    name = sql.Identifier(connection.info.dbname)
    _entitle(connection, name, template)
    for role, everybody, setting in connection.execute(_SETTINGS, (template,)).fetchall():
        parameter, _, value = str(setting).partition("=")
        whose = sql.SQL("DATABASE {}").format(name)
        if not everybody:
            whose = sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(str(role)), name)
        given = sql.SQL(".").join(sql.Identifier(part) for part in parameter.split("."))
        statement = sql.SQL("ALTER {} SET {} FROM CURRENT").format(whose, given)
        try:
            with connection.transaction():  # FROM CURRENT, because a list must not be quoted as one value
                connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", (parameter, value))
                connection.execute(statement)
        except psycopg.Error:
            continue  # a parameter that no session may set; the database that is copied got it at its start alone
    for (trigger,) in connection.execute("SELECT evtname FROM pg_catalog.pg_event_trigger").fetchall():
        connection.execute(sql.SQL("ALTER EVENT TRIGGER {} DISABLE").format(sql.Identifier(str(trigger))))


def _entitle(connection: Connection, name: sql.Identifier, template: str) -> None:
    """Who may do what in the database: without its REVOKE TEMP everybody could make temporary tables again."""
    rights = connection.execute(_RIGHTS, (template,)).fetchall()
    for owner in {str(owner) for owner, *_ in rights}:
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(owner)))
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    for _, role, everybody, privilege, grantable in rights:
        whom = sql.SQL("PUBLIC") if everybody else sql.Identifier(str(role))
        option = sql.SQL(" WITH GRANT OPTION" if grantable and not everybody else "")
        statement = sql.SQL("GRANT {} ON DATABASE {} TO {}{}")
        connection.execute(statement.format(sql.SQL(str(privilege)), name, whom, option))
