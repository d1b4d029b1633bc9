"""One scratch server for a whole session of tests, and schemas loaded into it."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.cells import doubts_of
from rlsaudit.probe.replay import script
from rlsaudit.probe.result import ProbeResult
from rlsaudit.probe.run import probe
from rlsaudit.prove.prove import prove
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.infer import Declared, infer
from rlsaudit.tenancy.model import Classified, Tenancy

_MEMORY = Path("/dev/shm")
_ROOM = 6 << 30
"""Bytes that all servers of a run have use for, and more."""
PG_BIN = os.environ.get("RLSAUDIT_PG_BIN")
_NUMBERS = itertools.count(1)


@dataclass
class Loaded:
    """A database of the scratch server with the objects of one schema."""

    server: ScratchServer
    name: str
    catalog: Catalog
    _tenancy: Tenancy | None = field(default=None)

    @property
    def tenancy(self) -> Tenancy:
        """What is inferred without any configuration."""
        if self._tenancy is None:
            self._tenancy = infer(self.catalog)
        return self._tenancy

    def of(self, relation: str, tenancy: Tenancy | None = None) -> Classified:
        """The class of ``schema.name``."""
        return (tenancy or self.tenancy).of(self.oid(relation))

    def oid(self, relation: str) -> int:
        return next(r.oid for r in self.catalog.relations if r.qualified == relation)

    def connect(self, user: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        return self.server.connect(self.name, user)

    def probe(
        self, declared: Declared | None = None, *, seed: int = 0, budget: float = 0.0, proving: bool = False
    ) -> ProbeResult:
        """With ``proving`` policies are proven first, as a scan does."""
        tenancy = infer(self.catalog, declared) if declared else self.tenancy
        proofs = prove(self.catalog, tenancy, visibility_of(self.catalog)) if proving else ()
        return probe(
            self.server,
            self.name,
            self.catalog,
            tenancy,
            seed=seed,
            budget=budget,
            progress=lambda what, done, of: None,
            doubts=doubts_of(self.catalog, tenancy, proofs) if proving else None,
        )

    def schema_script(self) -> str:
        """``schema.sql`` as it is put beside replay scripts."""
        return script.schema_script(self.server.dump_schema(self.name, data=True), self.catalog)


Load = Callable[[str], Loaded]


def pytest_configure(config: pytest.Config) -> None:
    """Servers have their files in memory where there is room: making those of new databases takes half of a run."""
    if hasattr(config, "workerinput") or "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return
    for left in _MEMORY.glob("rt-*-*"):  # by a run that was killed
        if not Path("/proc", left.name.split("-")[1]).exists():
            shutil.rmtree(left, ignore_errors=True)
    if shutil.disk_usage(_MEMORY).free > _ROOM:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.gettempdir()  # what tests leave stays where it can be looked at
        os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix=f"rt-{os.getpid()}-", dir=_MEMORY)
        Path(tempfile.tempdir).chmod(0o1777)
        config.add_cleanup(lambda: shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One cache directory for all tests: Hypothesis reads the sources of a checkout when it finds none."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    place.mkdir(exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(place)


@pytest.fixture(scope="session")
def server() -> Iterator[ScratchServer]:
    """The embedded server, or the one of ``RLSAUDIT_PG_BIN``; one for all tests of a process."""
    with ScratchServer(Path(PG_BIN) if PG_BIN else None) as running:
        yield running


@pytest.fixture
def schema(server: ScratchServer) -> Iterator[Load]:
    """Load SQL into a database of its own; it and the roles made meanwhile are gone after the test."""
    names: list[str] = []
    known = _roles(server)

    def load(text: str) -> Loaded:
        name = f"test_{next(_NUMBERS)}"
        server.create_database(name)
        names.append(name)
        with server.connect(name) as connection:
            connection.execute(text.encode())
            return Loaded(server, name, load_catalog(connection))

    yield load
    for name in names:
        server.drop_database(name)
    _drop_roles(server, [role for role in _roles(server) if role not in known])


def _roles(server: ScratchServer) -> list[str]:
    with server.connect() as connection:
        query = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres'"
        return [str(name) for (name,) in connection.execute(query)]


def _drop_roles(server: ScratchServer, roles: Sequence[str]) -> None:
    with server.connect() as connection:
        for role in roles:
            connection.execute(psycopg.sql.SQL("DROP ROLE {}").format(psycopg.sql.Identifier(role)))


@pytest.fixture(autouse=True)
def _minimum_version(request: pytest.FixtureRequest) -> None:
    """``@pytest.mark.pg(16)``: skipped on an older server."""
    marker = request.node.get_closest_marker("pg")
    if marker is not None:
        running = request.getfixturevalue("server")
        if running.major < marker.args[0]:
            pytest.skip(f"needs PostgreSQL {marker.args[0]}, this is {running.major}")


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the environment of the person who runs the tests has no say in them."""
    for name in os.environ:
        if name.startswith("PG") or (name.startswith("RLSAUDIT_") and name != "RLSAUDIT_PG_BIN"):
            monkeypatch.delenv(name)
