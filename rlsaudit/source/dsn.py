"""Opening the user's database: by libpq's rules only, and only for reading."""

from __future__ import annotations

import re

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rlsaudit.errors import NotTrustworthy, UsageError

_STATEMENT_TIMEOUT = "60s"
_CONNECT_TIMEOUT = "10"
_DATABASES = """
    SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate AND datname <> 'postgres' ORDER BY 1
"""

# user:password@ of a URI, up to the last @: who forgets to encode a password forgets it for @, / and # too.
_USERINFO = re.compile(r"(?P<before>\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/?#@'\"]*:)\S*(?=@)")
_PASSWORD = re.compile(
    r"""(?P<before>\b\w*pass(?:word|wd)?["']?\s*(?:=|:)\s*)(?:'(?:[^'\\]|\\.|'')*'?|"(?:[^"\\]|\\.)*"?|[^\s&'"]+)""",
    re.IGNORECASE,
)
_SQL_PASSWORD = re.compile(
    r"""(?P<before>\bpassword\s+)(?:E'(?:[^'\\]|''|\\.)*'?|(?:U&)?'(?:[^']|'')*'?|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)""",
    re.IGNORECASE | re.DOTALL,
)
_HIDDEN = r"\g<before>********"


def redact(text: str) -> str:
    """``text`` with every password hidden.

    Known forms: the userinfo of a URI (encoded or not), ``?password=``, ``password=`` of a connection string
    (bare or quoted), ``PGPASSWORD=`` and its like, and ``PASSWORD '…'`` of CREATE ROLE.
    """
    hidden = _USERINFO.sub(_HIDDEN, text)
    for secret in _secrets(text):
        hidden = hidden.replace(secret, "********")
    return _SQL_PASSWORD.sub(_HIDDEN, _PASSWORD.sub(_HIDDEN, hidden))


def _secrets(text: str) -> list[str]:
    """The passwords that libpq reads out of a text, as they are written there; none when it is no connection string."""
    try:
        given = conninfo_to_dict(text)
    except psycopg.Error:
        return []
    found = [str(given[name]) for name in ("password", "sslpassword") if given.get(name)]
    written = (re.sub(r"([\\' ])", r"\\\1", secret) for secret in found)
    return [secret for secret in (*found, *written) if secret in text]


def looks_like_dsn(source: str) -> bool:
    """True of a URI or a ``keyword=value`` string that libpq would take."""
    if source.startswith(("postgresql://", "postgres://")):
        return True
    return re.match(r"\s*[a-z_]+\s*=", source) is not None


def parameters(dsn: str) -> dict[str, str]:
    """The keywords that a DSN sets.  Raises NotTrustworthy when libpq cannot read it."""
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.Error as error:
        # libpq quotes the piece it stumbled over, and that may be the password.
        raise _unreadable() from _Silent(type(error).__name__)
    if not re.fullmatch(r"[\d,\s]*", given.get("port", "")) or "@" in given.get("host", "")[1:]:
        # A password with a bare / or @ in it has become part of the port or the host.
        raise _unreadable()
    return given


def apart(source: str) -> tuple[str, str]:
    """A connection string without its password, and the password: other users of a machine see arguments.

    What is no connection string comes back as it is.  Raises NotTrustworthy when libpq cannot read it.
    """
    if not looks_like_dsn(source):
        return source, ""
    given = parameters(source)
    secret = given.pop("password", "")
    return (make_conninfo(**given), secret) if secret else (source, "")


def of_service(name: str) -> str:
    """The connection string that names a libpq service."""
    return make_conninfo(service=name)


def databases(source: str, query: str = "") -> list[tuple[str, str]]:
    """Name and connection string of each database that ``query`` names: by default all that take connections.

    Raises NotTrustworthy when the connection fails, UsageError when the query does.
    """
    with connect(source) as connection:
        try:
            names = [str(row[0]) for row in connection.execute((query or _DATABASES).encode()).fetchall()]
        except (psycopg.Error, IndexError) as error:
            raise UsageError(f"--query: {' '.join(str(error).split())}") from error
    return [(name, make_conninfo(source, dbname=name)) for name in names]


def _unreadable() -> NotTrustworthy:
    return NotTrustworthy(
        "the connection string cannot be read; it must be a postgresql:// URI with special characters "
        "percent-encoded, or keyword=value pairs"
    )


def connect(dsn: str) -> psycopg.Connection[tuple[object, ...]]:
    """A read-only session on a database; ``dsn`` may be empty (PG* variables) or ``service=name``.

    The session is read-only by default_transaction_read_only, has an empty search_path, a statement_timeout
    of 60 s and the application_name ``rlsaudit``.  Raises NotTrustworthy when the connection fails.
    """
    given = parameters(dsn)
    settings = {"application_name": "rlsaudit"}
    if "connect_timeout" not in given:
        settings["connect_timeout"] = _CONNECT_TIMEOUT
    try:
        connection = psycopg.connect(make_conninfo(dsn, **settings), autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise NotTrustworthy(f"cannot connect: {_reason(error, given)}") from _Silent(type(error).__name__)
    try:
        # After the connection, not as startup options: a pooler refuses those.
        connection.execute("SET default_transaction_read_only = on")
        connection.execute(f"SET statement_timeout = '{_STATEMENT_TIMEOUT}'")
        connection.execute("SELECT pg_catalog.set_config('search_path', '', false)")
    except psycopg.Error as error:
        connection.close()
        raise NotTrustworthy(f"the session cannot be made read-only: {_reason(error, given)}") from error
    return connection


class _Silent(Exception):
    """Stands in for an error whose text could hold a password, so that no traceback shows it."""


def _reason(error: psycopg.Error, given: dict[str, str]) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = redact("; ".join(dict.fromkeys(lines)) or type(error).__name__)
    for name in ("password", "sslpassword"):
        if given.get(name):
            text = text.replace(given[name], "********")
    return text
