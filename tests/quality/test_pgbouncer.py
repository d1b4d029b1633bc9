"""A real pooler: two clients, one server connection, PgBouncer in transaction mode."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from rlsaudit.source.server import ScratchServer

Connection = psycopg.Connection[tuple[object, ...]]

SEEDS = """
RESET ROLE;
INSERT INTO shop.tenants VALUES (1, 'one'), (11, 'eleven');
INSERT INTO shop.notes VALUES (1, 1, 'a', 'of one'), (11, 1, 'b', 'of eleven');
"""
BODIES = "SELECT body FROM shop.notes ORDER BY body"


@pytest.fixture
def pooled(server: ScratchServer, schema, base, tmp_path: Path) -> Iterator[str]:
    """A connection string through PgBouncer to a database with the sound schema and two tenants."""
    binary = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/sbin")
    if binary is None:
        pytest.skip("no PgBouncer is installed (apt-get install pgbouncer), so nothing went through a pooler")
    loaded = schema(base + SEEDS)
    owner = server.directory.stat()
    place = Path(str(server.directory)) / "pool"
    place.mkdir(mode=0o700, exist_ok=True)
    (place / "users.txt").write_text('"q_app" ""\n', encoding="utf-8")
    (place / "pgbouncer.ini").write_text(
        f"""[databases]
{loaded.name} = host={server.directory} port=5432 pool_size=1
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {place}
auth_type = any
auth_file = {place}/users.txt
pool_mode = transaction
max_client_conn = 20
ignore_startup_parameters = extra_float_digits,options
""",
        encoding="utf-8",
    )
    for path in (place, *place.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)
    as_user = ["-u", pwd.getpwuid(owner.st_uid).pw_name] if os.geteuid() == 0 else []
    # The database is of q_app alone: ``auth_type = any`` would log in as whoever the entry names.
    ini = place / "pgbouncer.ini"
    ini.write_text(ini.read_text().replace("pool_size=1", "pool_size=1 user=q_app"), encoding="utf-8")
    with (tmp_path / "pgbouncer.log").open("wb") as log:
        running = subprocess.Popen([binary, *as_user, ini], stdout=log, stderr=log)
    try:
        address = f"host={place} port=6432 user=q_app dbname={loaded.name}"
        _await(address, running, tmp_path / "pgbouncer.log")
        yield address
    finally:
        running.terminate()
        running.wait(10)
        shutil.rmtree(place)


def _await(address: str, running: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(address).close()
        except psycopg.OperationalError:
            assert running.poll() is None and time.monotonic() < until, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        else:
            return


def _client(address: str) -> Connection:
    return psycopg.connect(address, autocommit=True, prepare_threshold=None)


def _bodies(client: Connection) -> list[object]:
    return [body for (body,) in client.execute(BODIES)]


def test_both_clients_share_one_server_connection(pooled: str) -> None:
    with _client(pooled) as one, _client(pooled) as other:
        served = {client.execute("SELECT pg_backend_pid()").fetchone() for client in (one, other)}
    assert len(served) == 1


def test_set_local_ends_with_the_transaction(pooled: str) -> None:
    with _client(pooled) as one, _client(pooled) as other:
        with one.transaction():
            one.execute("SELECT set_config('app.tenant_id', '1', true)")
            assert _bodies(one) == ["of one"]
        assert _bodies(other) == []
        with other.transaction():
            other.execute("SELECT set_config('app.tenant_id', '11', true)")
            assert _bodies(other) == ["of eleven"]
        assert _bodies(one) == []


def test_a_session_wide_set_serves_the_next_client(pooled: str) -> None:
    """The planted leak: what the two tests around it hold against."""
    with _client(pooled) as one, _client(pooled) as other:
        with one.transaction():
            one.execute("SELECT set_config('app.tenant_id', '1', false)")
        assert _bodies(other) == ["of one"]
        other.execute("RESET app.tenant_id")
        assert _bodies(one) == []


def test_a_temporary_table_serves_the_next_client(pooled: str) -> None:
    with _client(pooled) as one, _client(pooled) as other:
        with one.transaction():
            one.execute("SELECT set_config('app.tenant_id', '1', true)")
            one.execute(f"CREATE TEMP TABLE kept AS {BODIES}")
        assert _bodies(other) == []
        assert other.execute("SELECT * FROM kept").fetchall() == [("of one",)]
