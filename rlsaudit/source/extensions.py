"""Stand-ins for two extensions that schemas everywhere create for a function or two, and that small servers lack.

They give values of the right type, so that rows can be made; isolation does not depend on what the values are.
"""

from __future__ import annotations

import re

import psycopg
from psycopg import sql

_RANDOM_UUID = "RETURNS uuid LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.gen_random_uuid()'"
_HASH = (
    "LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT CASE pg_catalog.lower($2) WHEN 'md5' THEN pg_catalog.decode(pg_catalog.md5($1), 'hex') "
    "WHEN 'sha224' THEN pg_catalog.sha224({0}) WHEN 'sha384' THEN pg_catalog.sha384({0}) "
    "WHEN 'sha512' THEN pg_catalog.sha512({0}) ELSE pg_catalog.sha256({0}) END $$"
)

STAND_INS: dict[str, tuple[str, ...]] = {
    "uuid-ossp": (
        f"uuid_generate_v4() {_RANDOM_UUID}",
        f"uuid_generate_v1() {_RANDOM_UUID}",
        f"uuid_generate_v1mc() {_RANDOM_UUID}",
        "uuid_nil() RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT '00000000-0000-0000-0000-000000000000'::uuid $$",
    ),
    "pgcrypto": (
        f"gen_random_uuid() {_RANDOM_UUID}",
        "gen_random_bytes(integer) RETURNS bytea LANGUAGE sql VOLATILE STRICT AS $$ SELECT pg_catalog.substring("
        "pg_catalog.decode(pg_catalog.repeat(pg_catalog.md5(pg_catalog.random()::text), 64), 'hex'), 1, $1) $$",
        "digest(bytea, text) RETURNS bytea " + _HASH.format("$1"),
        "digest(text, text) RETURNS bytea " + _HASH.format("pg_catalog.convert_to($1, 'UTF8')"),
        # crypt(password, hash) gives the hash again, as the real one does
        "crypt(text, text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$ "
        "SELECT pg_catalog.left($2, 32) || pg_catalog.md5(pg_catalog.left($2, 32) || $1) $$",
        "gen_salt(text) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT pg_catalog.md5(pg_catalog.random()::text) $$",
        "gen_salt(text, integer) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT pg_catalog.md5(pg_catalog.random()::text) $$",
    ),
}
_SCHEMA = re.compile(r'\bSCHEMA\s+(?:"((?:[^"]|"")+)"|(\w+))', re.IGNORECASE)


def available(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[str, ...]:
    """Names of the extensions that the server can create.  Raises psycopg.Error."""
    rows = connection.execute("SELECT name FROM pg_catalog.pg_available_extensions ORDER BY name").fetchall()
    return tuple(str(name) for (name,) in rows)


def stand_in_for(connection: psycopg.Connection[tuple[object, ...]], name: str, statement: str) -> str | None:
    """Create stand-ins for the extension where ``statement`` would have put it; returns the note, None without any.

    Raises psycopg.Error, above all when the schema does not exist.
    """
    functions = STAND_INS.get(name)
    if functions is None:
        return None
    found = _SCHEMA.search(statement)
    schema = (found[1] or "").replace('""', '"') or found[2].lower() if found else _current_schema(connection)
    for function in functions:
        text = sql.SQL("CREATE OR REPLACE FUNCTION {}.{}").format(sql.Identifier(schema), sql.SQL(function))
        connection.execute(text)
    return (
        f"The scratch server lacks the extension {name}; stand-ins for its common functions were made in schema {schema} "
        "(their values are of the right type, not the real ones)."
    )


def _current_schema(connection: psycopg.Connection[tuple[object, ...]]) -> str:
    row = connection.execute("SELECT COALESCE(pg_catalog.current_schema(), 'public')").fetchone()
    return str(row[0]) if row else "public"
