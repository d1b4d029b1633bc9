"""A directory of hard examples: what was found one night is tried first the next."""

from __future__ import annotations

import secrets

from rlsaudit.catalog.visibility import Visibility
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.attacks.workload import workloads
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
