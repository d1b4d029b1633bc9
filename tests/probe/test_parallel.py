"""Several sessions at once: the same results in the same order, whatever their number."""

from __future__ import annotations

import pytest

from rlsaudit.catalog.visibility import Visibility
from rlsaudit.probe.attacks.sweep import Arena, sweep
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.parallel import copies, jobs_for, sweep_all
from rlsaudit.probe.seeding.populate import populate

OPEN = 3


def tables(number: int) -> str:
    made = [
        "CREATE ROLE par_app LOGIN; CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL); GRANT SELECT ON tenants TO par_app;"
    ]
    for at in range(number):
        guarded = f"ALTER TABLE t{at} ENABLE ROW LEVEL SECURITY;" if at != OPEN else ""
        made.append(
            f"CREATE TABLE t{at} (tenant_id int NOT NULL REFERENCES tenants, id int, body text NOT NULL, PRIMARY KEY (tenant_id, id));"
            f"{guarded} GRANT SELECT, INSERT, UPDATE, DELETE ON t{at} TO par_app;"
            f"CREATE POLICY p ON t{at} USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);"
        )
    return "".join(made)


@pytest.fixture
def arena(schema):
    loaded = schema(tables(9))
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
    return loaded, Arena(loaded.catalog, loaded.tenancy, Visibility(loaded.catalog), world)


def test_results_do_not_depend_on_the_number_of_sessions(arena) -> None:
    loaded, made = arena
    role = made.tenancy.roles[0]
    databases = copies(loaded.server, loaded.name, made, 3)
    assert len(databases) == 3
    try:
        runs = []
        for names in (databases[:1], databases):
            sessions = [Session(loaded.server.conninfo(name, role.name), role.name) for name in names]
            told = []
            found = {}
            sweep_all(made, sessions, role.oid, found, lambda *step, to=told: to.append(step))
            runs.append(
                [(key, one.trials, one.alive, [leak.statement for leak in one.leaks]) for key, one in found.items()]
            )
            assert [what.relation for what, _, _ in told] == [r.qualified for r in made.relations()]
        assert runs[0] == runs[1]
        assert {key[0] for key, _, _, leaks in runs[0] if leaks} >= {loaded.oid(f"public.t{OPEN}")}
    finally:
        for name in databases[1:]:
            loaded.server.drop_database(name)


def test_what_was_done_by_the_time_of_a_signal_is_kept(arena, monkeypatch) -> None:
    """Of the relation that is being attacked too."""
    loaded, made = arena
    role = made.tenancy.roles[0]
    session = Session(loaded.server.conninfo(loaded.name, role.name), role.name)
    whole = session.transaction

    def signalled(statements):
        if any("DELETE FROM" in statement and '"t0"' in statement for statement in statements):
            raise KeyboardInterrupt
        return whole(statements)

    monkeypatch.setattr(session, "transaction", signalled)
    found = {}
    with pytest.raises(KeyboardInterrupt):
        sweep_all(made, [session], role.oid, found, lambda what, done, of: None)
    session.close()
    assert [command for oid, _, command in found if oid == loaded.oid("public.t0")] == ["SELECT", "INSERT", "UPDATE"]


def test_a_cell_that_leaks_is_left_at_once_where_that_is_enough(arena) -> None:
    loaded, made = arena
    role = made.tenancy.roles[0]
    session = Session(loaded.server.conninfo(loaded.name, role.name), role.name)
    found = dict(sweep(made, session, role.oid, made.relations(), first_leak=True))
    session.close()
    assert len(found[loaded.oid(f"public.t{OPEN}"), role.name, "SELECT"].leaks) == 1
    assert found[loaded.oid("public.t0"), role.name, "SELECT"].leaks == []


def test_one_session_for_each_core_at_most_four() -> None:
    assert 1 <= jobs_for(0) <= 4
    assert jobs_for(7) == 7
