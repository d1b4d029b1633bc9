"""A server for the checks' tests, and schemas from text to findings."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from rlsaudit.catalog.load import load_catalog
from rlsaudit.check import run_checks
from rlsaudit.finding import Finding
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.infer import Declared, infer

PG_BIN = os.environ.get("RLSAUDIT_PG_BIN")
_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[ScratchServer]:
    with ScratchServer(Path(PG_BIN) if PG_BIN else None) as running:
        yield running


class Schema:
    """A fresh database made by a script; ``findings`` audits it as it is now."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]], roles: tuple[str, ...]) -> None:
        self.connection = connection
        self.roles = roles

    def execute(self, script: str) -> None:
        self.connection.execute(script.encode())

    def findings(self) -> tuple[Finding, ...]:
        catalog = load_catalog(self.connection)
        return run_checks(catalog, infer(catalog, Declared(roles=self.roles)))

    def of(self, check: str) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings() if finding.check == check)


@pytest.fixture
def schema(server: ScratchServer) -> Iterator[Callable[..., Schema]]:
    """Makes a schema; its database and its roles are gone after the test."""
    made: list[tuple[str, psycopg.Connection[tuple[object, ...]]]] = []

    def make(script: str, roles: tuple[str, ...] = ("app",)) -> Schema:
        name = f"checks_{next(_NUMBERS)}"
        server.create_database(name)
        connection = server.connect(name)
        made.append((name, connection))
        connection.execute(script.encode())
        return Schema(connection, roles)

    yield make
    for name, connection in made:
        connection.close()
        server.drop_database(name)
    with server.connect() as connection:
        query = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> current_user"
        for (role,) in connection.execute(query).fetchall():
            # Privileges on parameters outlive the database.
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(str(role))))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(str(role))))
