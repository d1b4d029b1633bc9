"""The server goes away under a session: what is repeated, what ends the run, and what would have been a false leak."""

from __future__ import annotations

import psycopg
import pytest

from rlsaudit.catalog.visibility import Visibility
from rlsaudit.errors import NotTrustworthy, ServerLost
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground import session as sessions
from rlsaudit.probe.ground.lost import lost
from rlsaudit.probe.ledger import session_of
from rlsaudit.probe.seeding.populate import populate
from rlsaudit.source.server import ScratchServer

TABLE = """
CREATE ROLE s_app LOGIN;
CREATE TABLE notes (tenant_id int NOT NULL, id int PRIMARY KEY, body text NOT NULL);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON notes USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT ON notes TO s_app;
CREATE FUNCTION leave() RETURNS boolean LANGUAGE sql AS 'SELECT pg_terminate_backend(pg_backend_pid())';
"""
PID = "SELECT pg_backend_pid()"


def seeded(loaded):
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
    return Arena(loaded.catalog, loaded.tenancy, Visibility(loaded.catalog), world)


@pytest.fixture
def standing(schema):
    """A seeded world and a session of its role; ``away`` ends the session's connection, as a restart does."""
    loaded = schema(TABLE)
    arena = seeded(loaded)
    session = session_of(loaded.server, loaded.name, arena, loaded.tenancy.roles[0])

    def away() -> None:
        pid = session.transaction([PID]).replies[0].rows[0][0]
        with loaded.server.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    yield loaded, session, away
    session.close()


def test_a_program_is_run_again_when_the_connection_was_lost(standing) -> None:
    _, session, away = standing
    session.prepare("SET application_name = 'prepared'")
    first = session.transaction([PID]).replies
    away()
    again = session.transaction([PID, "SHOW application_name"]).replies
    assert first[0].rows != again[0].rows
    assert [reply.sqlstate for reply in again] == ["", ""]
    assert again[1].rows == (("prepared",),)


def test_a_connection_that_is_lost_while_it_is_being_opened_is_opened_again(standing, monkeypatch) -> None:
    loaded, session, _ = standing
    session.conninfo, session.settings = (
        loaded.server.conninfo(loaded.name),
        (),
    )  # as on a target: SET SESSION AUTHORIZATION
    real, lives = sessions._become, []

    def become(connection, role) -> None:
        lives.append(connection)
        if len(lives) == 1:
            with loaded.server.connect() as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
        real(connection, role)

    monkeypatch.setattr(sessions, "_become", become)
    assert session.transaction(["SELECT current_user"]).replies[0].rows == (("s_app",),)
    assert len(lives) == 2
    assert lives[0].closed


def test_what_never_ran_is_no_failed_statement(standing) -> None:
    _, session, away = standing
    session.back = None
    away()
    with pytest.raises(ServerLost):
        session.transaction([PID])
    assert not session.transaction([PID]).failed


def test_a_statement_that_ends_its_own_session_fails(standing) -> None:
    _, session, _ = standing
    before = session.statements
    transcript = session.transaction(["SELECT 1", "SELECT leave()", "SELECT 2"])
    assert transcript.failed is not None
    assert transcript.failed.sqlstate == "57P01"
    assert session.statements - before == 2 * 5, "it was not tried twice"


def test_what_was_left_in_a_session_cannot_be_had_again(standing) -> None:
    """An earlier stay on the same connection would be missing, and the next tenant would see nothing of it."""
    _, session, away = standing
    session.run(["BEGIN", "SELECT 1", "COMMIT"])
    away()
    with pytest.raises(ServerLost):
        session.transaction([PID])
    session.close()
    assert not session.transaction([PID]).failed


def test_nobody_knows_what_a_lost_visit_had_committed(standing) -> None:
    _, session, away = standing
    away()
    with pytest.raises(ServerLost):
        session.run(["BEGIN", "SELECT 1", "COMMIT"])


def test_a_world_that_came_back_without_rows_is_none(standing) -> None:
    loaded, session, away = standing
    away()
    with loaded.connect() as connection:
        connection.execute("TRUNCATE notes")
    with pytest.raises(ServerLost, match="without all rows"):
        session.transaction([PID])


@pytest.mark.parametrize("persistence", ["UNLOGGED", ""])
def test_a_new_connection_finds_all_rows_where_a_crash_can_take_some(schema, persistence) -> None:
    """The server crashed when no connection was open: nobody was told, and an attack would be said to have done it."""
    loaded = schema(TABLE.replace("CREATE TABLE", f"CREATE {persistence} TABLE"))
    arena, role = seeded(loaded), loaded.tenancy.roles[0]
    session = session_of(loaded.server, loaded.name, arena, role, seeded=True)
    assert not session.transaction([PID]).failed
    session.close()
    with loaded.connect() as connection:
        connection.execute("TRUNCATE notes")
    if persistence:
        with pytest.raises(ServerLost, match="without all rows"):
            session.transaction([PID])
    else:
        assert not session.transaction([PID]).failed
    session.close()


def test_rows_that_were_added_are_none_too_few(schema) -> None:
    """A read that the schema logs is committed where visits are."""
    loaded = schema(TABLE.replace("CREATE TABLE", "CREATE UNLOGGED TABLE"))
    arena, role = seeded(loaded), loaded.tenancy.roles[0]
    session = session_of(loaded.server, loaded.name, arena, role, seeded=True)
    with loaded.connect() as connection:
        connection.execute("INSERT INTO notes SELECT tenant_id, id + 100000, body FROM notes")
    assert not session.transaction([PID]).failed
    session.close()


@pytest.mark.parametrize(
    ("more", "watched"),
    [
        ("CREATE UNLOGGED TABLE cache (k int);", False),
        ("CREATE TABLE parted (tenant_id int NOT NULL, id int) PARTITION BY LIST (tenant_id);"
         "CREATE TABLE part PARTITION OF parted DEFAULT PARTITION BY LIST (id);"
         "CREATE UNLOGGED TABLE leaf PARTITION OF part DEFAULT; GRANT SELECT ON parted TO s_app;", True),
    ],
)  # fmt: skip
def test_only_rows_of_tenants_that_a_crash_can_take_are_looked_for(schema, more, watched) -> None:
    loaded = schema(TABLE + more)
    session = session_of(loaded.server, loaded.name, seeded(loaded), loaded.tenancy.roles[0], seeded=True)
    assert (session.fresh is not None) is watched


def test_a_superusers_block_does_not_end_quietly(server) -> None:
    with pytest.raises(ServerLost), server.connect() as connection:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert connection.closed
    with server.connect() as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT FROM missing")


def test_which_errors_say_so(server) -> None:
    said = []
    for statement in (
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "SELECT 1 / 0",
        "SET statement_timeout = 1; SELECT pg_sleep(1)",
    ):
        with psycopg.connect(server.conninfo()) as connection, pytest.raises(psycopg.Error) as raised:
            connection.execute(statement)
        said.append(bool(lost(raised.value)))
    assert said == [True, False, False]
    wrapped = NotTrustworthy("a leak could not be taken out")
    wrapped.__context__ = ServerLost("gone\nnow")
    assert lost(wrapped) == "gone now"
    assert lost(NotTrustworthy("something else")) == ""


def test_a_scratch_server_that_has_ended_is_not_waited_for(server) -> None:
    with ScratchServer(server.binary("postgres").parent) as own:
        own.await_back()
        assert own._process is not None
        own._process.kill()
        own._process.wait()
        with pytest.raises(ServerLost, match="has ended"):
            own.await_back()
