"""Long nights: what was found one night is tried first the next, and time goes to what stands near each other."""

from __future__ import annotations

import secrets

import pytest

from rlsaudit.catalog.visibility import Visibility
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.attacks.workload import Workload, workloads
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.seeding.populate import populate

LEAKY = """
CREATE ROLE n_app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY; ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
CREATE POLICY p ON docs USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
CREATE POLICY d ON docs FOR DELETE USING (true);
GRANT SELECT ON tenants TO n_app; GRANT SELECT, DELETE ON docs TO n_app;
"""


def test_second_night_finds_at_once_what_the_first_found(schema, tmp_path) -> None:
    loaded = schema(LEAKY)
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
    arena = Arena(loaded.catalog, loaded.tenancy, Visibility(loaded.catalog), world)
    role = loaded.tenancy.roles[0]
    session = Session(loaded.server.conninfo(loaded.name, role.name), role.name)
    kept = tmp_path / secrets.token_hex(2)

    def night(examples: int, **given):
        found, _ = workloads(arena, session, role.oid, seed=1, examples=examples, seconds=9, seen=set(), **given)
        return {leak.command for leak in found}

    assert "DELETE" in night(150, database=kept)
    assert list(kept.rglob("*"))
    assert "DELETE" in night(1, database=kept)
    assert "DELETE" not in night(1)
    session.close()


MINE = "NULLIF(current_setting('app.tenant_id', true), '')::int"
APART = f"""
CREATE TABLE docs (tenant_id int NOT NULL, id int, body text NOT NULL, PRIMARY KEY (tenant_id, id));
CREATE TABLE holds (tenant_id int NOT NULL, id int, doc int NOT NULL, PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, doc) REFERENCES docs);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY; ALTER TABLE holds ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON holds USING (tenant_id = {MINE});
CREATE POLICY own ON docs USING (tenant_id = {MINE}
    OR ({MINE} IS NOT NULL AND NOT EXISTS (SELECT FROM holds h WHERE h.tenant_id = {MINE})));
GRANT SELECT, UPDATE ON docs TO a_app; GRANT SELECT, DELETE ON holds TO a_app;
"""
BESIDE = """
CREATE TABLE beside_{0} (tenant_id int NOT NULL, id int, title text NOT NULL, body text, n int, PRIMARY KEY (tenant_id, id));
ALTER TABLE beside_{0} ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON beside_{0} USING (tenant_id = {1});
GRANT SELECT, INSERT, UPDATE, DELETE ON beside_{0} TO a_app;
"""


class _Enough(BaseException):
    """The leak is found: the rest of the night is not waited for."""


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_statements_that_leak_together_are_found_among_many_tables(schema, seed) -> None:
    """Without its own holds a tenant sees all docs; programs drawn from sixty tables hardly ever have both statements."""
    loaded = schema(f"CREATE ROLE a_app LOGIN; {''.join(BESIDE.format(n, MINE) for n in range(60))} {APART}")
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
    arena = Arena(loaded.catalog, loaded.tenancy, Visibility(loaded.catalog), world)
    role, docs = loaded.tenancy.roles[0], loaded.oid("public.docs")

    class Seen(set):
        def add(self, place) -> None:
            super().add(place)
            if place[0] == docs:
                raise _Enough

    session = Session(loaded.server.conninfo(loaded.name, role.name), role.name)
    work = Workload(arena, session, role.oid, seed, 150, Seen())
    try:
        with pytest.raises(_Enough):
            work.run(120)
    finally:
        session.close()
    assert work.programs < 62 * 150 * 2, "it took more than two rounds in each neighbourhood"
