"""One transaction on the target itself, rolled back whatever happens, and the refusal to open it on a production database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.errors import NotTrustworthy, UsageError
from rlsaudit.source.dsn import redact

_LOCK_SECONDS = 5
_SURROUNDINGS = """
SELECT (SELECT count(*) FROM pg_catalog.pg_replication_slots),
       (SELECT count(*) FROM pg_catalog.pg_stat_replication),
       (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database()
           AND pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend'),
       (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), current_user, pg_catalog.pg_is_in_recovery()
"""

Connection = psycopg.Connection[tuple[object, ...]]


class Held(psycopg.Connection[tuple[object, ...]]):
    """A session that never leaves its one transaction.

    ANALYZE is passed over: it writes counts into pg_class that no rollback takes back.
    """

    def execute(self, query: Any, *arguments: Any, **options: Any) -> psycopg.Cursor[tuple[object, ...]]:
        return super().execute(b"SELECT" if query == "ANALYZE" else query, *arguments, **options)


@contextmanager
def held(dsn: str, catalog: Catalog, guarded: tuple[int, ...], *, agreed: bool) -> Iterator[Held]:
    """The database of ``dsn`` as if it had no rows, in a transaction that is rolled back when the block ends.

    ``guarded`` are the relations in which rows are taken for a sign of production; such signs are refused unless
    ``agreed``.  Raises UsageError then, and NotTrustworthy when the transaction cannot be had.
    """
    try:
        connection = Held.connect(
            make_conninfo(dsn, application_name="rlsaudit"), autocommit=True, prepare_threshold=None
        )
    except psycopg.Error as error:
        raise NotTrustworthy(f"cannot connect: {_said(error)}") from None
    try:
        signs = _signs(connection, catalog, guarded)
        if signs and not agreed:
            raise UsageError(
                f"--in-place empties and attacks the database in a transaction that is rolled back, and this one looks like "
                f"production ({'; '.join(signs)}); use a copy, or say --yes if nobody works on it"
            )
        try:
            _begin(connection, catalog)
        except psycopg.Error as error:
            raise NotTrustworthy(f"the target cannot be taken for --in-place: {_said(error)}") from error
        yield connection
    finally:
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=5)
        connection.close()  # the server rolls back what is open


def _signs(connection: Connection, catalog: Catalog, guarded: tuple[int, ...]) -> list[str]:
    """What speaks for production.  Raises NotTrustworthy where in-place cannot work at all."""
    row = connection.execute(_SURROUNDINGS).fetchone()
    assert row is not None
    slots, standbys, sessions, superuser, login, standby = row
    if standby:
        raise NotTrustworthy("the target is a standby, on which nothing can be tried; leave out --in-place")
    if not superuser:
        raise NotTrustworthy(
            f"--in-place wants a superuser, and {login} is none: only a superuser can act as the application roles without "
            "their passwords; connect as one, or leave it out to copy into the embedded server"
        )
    found = [f"its name is {catalog.server.database}"] if "prod" in catalog.server.database.lower() else []
    found += [f"{slots} replication slots"] if slots else []
    found += [f"{standbys} standbys"] if standbys else []
    found += [f"{sessions} other sessions"] if sessions else []
    holding = [one.qualified for one in map(catalog.relation, guarded) if one.holds_rows and _has_rows(connection, one)]
    found += [f"rows in {', '.join(holding[:3])}{' and others' if len(holding) > 3 else ''}"] if holding else []
    return found


def _has_rows(connection: Connection, relation: Relation) -> bool:
    if relation.kind == "foreign table":
        return False
    row = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(_name(relation))).fetchone()
    return bool(row and row[0])


def _begin(connection: Connection, catalog: Catalog) -> None:
    """Begin, and give every table and sequence a file of its own that the rollback throws away.

    Without that, what is drawn from a sequence would stay drawn.
    """
    connection.execute("BEGIN")
    connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(f"{_LOCK_SECONDS}s")))
    connection.execute("SET LOCAL statement_timeout = 0")
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    if connection.info.server_version >= 170000:
        connection.execute("SET LOCAL transaction_timeout = 0")
        connection.execute("SET LOCAL event_triggers = off")
    tables = [one for one in catalog.relations if one.kind in ("table", "partitioned table") and one.extension is None]
    connection.execute("SET LOCAL session_replication_role = replica")
    if tables:
        listed = sql.SQL(", ").join(_name(one) for one in tables)
        connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(listed))
    connection.execute("SET LOCAL session_replication_role = origin")
    for one in catalog.relations:
        if one.kind == "sequence":
            connection.execute(sql.SQL("ALTER SEQUENCE {} RESTART").format(_name(one)))


def _name(relation: Relation) -> sql.Identifier:
    return sql.Identifier(relation.schema, relation.name)


def _said(error: psycopg.Error) -> str:
    return redact(" ".join((error.diag.message_primary or str(error)).split()))
