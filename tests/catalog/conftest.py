"""Servers for the catalog's tests: the embedded one, and the one in RLSAUDIT_PG_BIN when it is set."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rlsaudit.source.server import ScratchServer

_OTHER = os.environ.get("RLSAUDIT_PG_BIN")
_NUMBERS = itertools.count()

Database = Callable[..., psycopg.Connection[Any]]


@pytest.fixture(scope="session", params=[None, *([_OTHER] if _OTHER else [])], ids=lambda path: path or "embedded")
def server(request: pytest.FixtureRequest) -> Iterator[ScratchServer]:
    with ScratchServer(Path(request.param) if request.param else None) as running:
        yield running


@pytest.fixture
def database(server: ScratchServer) -> Iterator[Database]:
    """Makes a database and connects to it as the superuser; ``script`` is run there first."""
    opened: list[psycopg.Connection[Any]] = []

    def make(script: str = "") -> psycopg.Connection[Any]:
        name = f"catalog_{next(_NUMBERS)}"
        server.create_database(name)
        connection = psycopg.connect(server.conninfo(dbname=name), autocommit=True)
        opened.append(connection)
        if script:
            connection.execute(script)
        return connection

    yield make
    for connection in opened:
        connection.close()


@pytest.fixture(scope="module")
def nasty(server: ScratchServer) -> Iterator[psycopg.Connection[Any]]:
    """A connection to one database made by nasty.sql, shared by the tests of a module, which only read."""
    name = f"nasty_{next(_NUMBERS)}"
    server.create_database(name)
    script = Path(__file__).with_name("nasty.sql").read_text(encoding="utf-8")
    with psycopg.connect(server.conninfo(dbname=name), autocommit=True) as connection:
        connection.execute(script)
        if server.major >= 18:
            connection.execute("CREATE TABLE zoo.virtual_column (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL)")
            connection.execute("ALTER TABLE zoo.child ADD CONSTRAINT loose CHECK (id <> 7) NOT ENFORCED")
        yield connection
