"""One server for the tests of trees, predicates and proofs."""

from collections.abc import Callable, Iterator

import pytest

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.source.server import ScratchServer

Load = Callable[[str], Catalog]


@pytest.fixture(scope="session")
def prove_server() -> Iterator[ScratchServer]:
    with ScratchServer() as server:
        yield server


@pytest.fixture(scope="session")
def load(prove_server: ScratchServer) -> Load:
    """Runs SQL in a new database and gives its catalog."""
    count = 0

    def run(sql: str) -> Catalog:
        nonlocal count
        count += 1
        prove_server.create_database(f"prove_{count}")
        with prove_server.connect(f"prove_{count}") as connection:
            connection.execute(sql)  # type: ignore[call-overload]  # SQL of the tests
            connection.commit()
            return load_catalog(connection)

    return run
