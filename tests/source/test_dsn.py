from __future__ import annotations

import traceback

import psycopg
import pytest

from rlsaudit.errors import NotTrustworthy
from rlsaudit.source.dsn import connect, looks_like_dsn, redact
from rlsaudit.source.server import ScratchServer

CANARY = "canary"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:canary@host/db",
        "postgres://user:can%40canary@host:5432/db?sslmode=require",
        "postgresql://user:p@canary@host/db",
        "postgresql://user:p/canary#x?y@host/db",
        "postgresql://:canary@host",
        "postgresql+psycopg://user:canary@host",
        "postgresql://host/db?password=canary&user=x",
        "postgresql://host/db?user=x&sslpassword=canary",
        "host=h password=canary user=x",
        "host=h password = 'two canary \\' words' user=x",
        "password='canary",
        'postgresql://user:can"canary@host/db',
        "postgresql://user:can'canary@host/db",
        "host=h password=can&canary",
        "host=h password=can'canary",
        "host=h password=can\\ canary",
        "postgresql://host/db?password=can'canary",
        'postgresq://user:can"canary@host/db',
        "PGPASSWORD=canary psql",
        "{'password': 'canary', 'user': 'x'}",
        '{"password": "canary"}',
        "CREATE ROLE x LOGIN PASSWORD 'it''s canary' SUPERUSER",
        "ALTER ROLE x ENCRYPTED PASSWORD E'a\\'canary'",
        "create user x password $q$canary$q$",
        "OPTIONS (user 'x', password 'canary')",
    ],
)
def test_redact_hides_every_form(text: str) -> None:
    assert CANARY not in redact(text)
    assert "********" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user@host:5432/db",
        'password authentication failed for user "x"',
        "fe_sendauth: no password supplied",
        "ALTER ROLE x PASSWORD NULL",
        "host=h passfile=/home/x/.pgpass",
        "https://example.org:80/path",
    ],
)
def test_redact_leaves_the_rest_alone(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://user:canary@localhost:1/db",
        "postgresql://user:can%zzcanary@localhost:1/db",
        "postgresql://user:p@canary@localhost:1/db",
        "postgresql://user:a/canary@localhost:1/db",
        "postgresql://user:canary/@localhost:1/db",
        "host=localhost port=1 password=canary nonsense=1",
        "host=localhost port=1 password='canary",
        "service=no_such_service password=canary",
        "host=localhost port=1 passwort=canary",
    ],
)
def test_no_connection_is_one_line_without_the_password(dsn: str) -> None:
    with pytest.raises(NotTrustworthy) as caught:
        connect(dsn)
    assert "\n" not in str(caught.value)
    assert CANARY not in "".join(traceback.format_exception_only(caught.value))
    chain: BaseException | None = caught.value
    while chain is not None:
        assert CANARY not in str(chain)
        chain = chain.__cause__


def test_the_session_cannot_write(server: ScratchServer, database: str) -> None:
    with connect(server.conninfo(database)) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE t()")
        settings = connection.execute(
            "SELECT current_setting('search_path'), current_setting('application_name'), "
            "current_setting('statement_timeout')"
        ).fetchone()
    assert settings == ("", "rlsaudit", "1min")


def test_the_environment_alone_is_enough(server: ScratchServer, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", str(server.directory))
    monkeypatch.setenv("PGUSER", "postgres")
    monkeypatch.setenv("PGDATABASE", database)
    with connect("") as connection:
        assert connection.info.dbname == database


def test_what_looks_like_a_dsn() -> None:
    assert looks_like_dsn("postgres://h") and looks_like_dsn("service=prod") and looks_like_dsn("host = h")
    assert not looks_like_dsn("schema.sql")
