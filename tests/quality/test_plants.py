"""Leaks that rlsaudit plants itself: every kind is found on a sound schema, and a blind probe is told apart."""

from __future__ import annotations

import pytest

from rlsaudit.catalog.visibility import Visibility
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.detector import planting
from rlsaudit.probe.detector.plants import KINDS, plants
from rlsaudit.probe.ground import oracle
from rlsaudit.probe.seeding.populate import populate

PARTS = """
CREATE ROLE x_owner LOGIN;
GRANT USAGE, CREATE ON SCHEMA public TO x_owner;
SET ROLE x_owner;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE docs (id int NOT NULL, tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL,
    CHECK (tenant_id IS NOT DISTINCT FROM NULLIF(current_setting('app.tenant_id', true), '')::int OR current_user = 'postgres'),
    PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id);
CREATE TABLE docs_0 PARTITION OF docs FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE docs_1 PARTITION OF docs FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE tags (tenant_id int NOT NULL REFERENCES tenants, tag text NOT NULL, note text NOT NULL);
"""
TENANT = "NULLIF(current_setting('app.tenant_id', true), '')::int"
GUARDED = "".join(
    f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
    f"CREATE POLICY p ON {table} USING ({key} = {TENANT}) WITH CHECK ({key} = {TENANT});"
    for table, key in (("tenants", "id"), ("docs", "tenant_id"), ("tags", "tenant_id"))
)
APPLICATION = (
    "RESET ROLE; CREATE ROLE x_app LOGIN; GRANT SELECT ON tenants TO x_app;"
    "GRANT SELECT, INSERT, UPDATE, DELETE ON docs, tags TO x_app;"
)


def detector(result):
    return next(one for one in result.properties if one.property == "detector")


@pytest.mark.parametrize("mode", planting.MODES)
def test_planted_leaks_are_found(schema, server, monkeypatch, mode) -> None:
    seen = []
    note = planting.Planted.note
    monkeypatch.setattr(
        planting.Planted,
        "note",
        lambda self, plant, result: (seen.append((plant.kind, result)), note(self, plant, result)),
    )
    from rlsaudit.probe.run import probe

    loaded = schema(PARTS + GUARDED + APPLICATION)
    result = probe(
        server, loaded.name, loaded.catalog, loaded.tenancy, seed=0, budget=0, progress=lambda *_: None, plant=mode
    )
    found = {kind for kind, outcome in seen if outcome == "found"}
    owned = {"FORCE off for the owner"}
    assert set(KINDS) - owned - found == set(), [one for one in seen if one[1] != "found"]
    assert not [one for one in seen if one[1] == "missed"]
    number = sum(outcome == "found" for _, outcome in seen)
    assert f"found {number} of {number} planted leaks" in detector(result).reason
    assert detector(result).outcome == "held"
    assert result.findings == ()
    with loaded.connect() as connection:
        left = connection.execute("SELECT rolbypassrls FROM pg_roles WHERE rolname = 'x_app'").fetchone()
    assert left == (False,)


def test_force_off_is_planted_for_an_owner(schema, monkeypatch) -> None:
    seen = []
    note = planting.Planted.note
    monkeypatch.setattr(
        planting.Planted,
        "note",
        lambda self, plant, result: (seen.append((plant.kind, result)), note(self, plant, result)),
    )
    from rlsaudit.tenancy.infer import Declared

    schema(PARTS + GUARDED).probe(Declared(roles=("x_owner",)))
    assert ("FORCE off for the owner", "found") in seen


def test_plant_that_goes_unnoticed_leaves_the_cell_open(schema, monkeypatch) -> None:
    honest = oracle.changed

    def forgetful(*digests, **since):
        evidence = honest(*digests, **since)
        return None if evidence is not None and evidence.property == "forge" else evidence

    monkeypatch.setattr(oracle, "changed", forgetful)
    result = schema(PARTS + GUARDED + APPLICATION).probe()
    assert detector(result).outcome == "not covered"
    assert "missed: " in detector(result).reason
    cells = {(cell.relation, cell.command): cell for cell in result.cells}
    assert cells["public.tags", "INSERT"].state == "not covered"
    assert "went unnoticed" in cells["public.tags", "INSERT"].reason
    assert cells["public.tags", "SELECT"].state == "held"


def test_a_plant_changes_few_of_many_policies(schema) -> None:
    """Each that is changed takes the server as long as there are policies."""
    many = "".join(
        f"CREATE POLICY of_{n} ON tags FOR SELECT USING (tenant_id = {TENANT} AND note = '{n}');" for n in range(120)
    )
    loaded = schema(PARTS + GUARDED + many + APPLICATION)
    result = loaded.probe()
    assert detector(result).outcome == "held"
    assert result.findings == ()
    with loaded.connect() as connection:
        world = populate(connection, loaded.catalog, loaded.tenancy)
    arena = Arena(loaded.catalog, loaded.tenancy, Visibility(loaded.catalog), world)
    tags, role = loaded.catalog.relation(loaded.oid("public.tags")), loaded.tenancy.roles[0]
    made = {plant.kind: len(plant.made) for plant in plants(arena, role, tags, "SELECT")}
    assert made["USING (true)"] == made["open without context"] == made["row security off"] == 1
    assert max(made.values()) <= 100


def test_what_a_plant_changes_is_put_back(schema, monkeypatch) -> None:
    """A policy without any condition among them: ALTER POLICY could not take one away again."""
    states, whole = (
        [],
        "SELECT polname, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid) FROM pg_policy",
    )
    grow = planting._Garden.grow

    def watched(garden, plant):
        before = garden.connection.execute(whole).fetchall()
        result = grow(garden, plant)
        states.append((plant.kind, sorted(before) == sorted(garden.connection.execute(whole).fetchall())))
        return result

    monkeypatch.setattr(planting._Garden, "grow", watched)
    bare = (
        "CREATE POLICY bare ON tags; CREATE POLICY held ON tags AS RESTRICTIVE;"
        "CREATE POLICY new ON tags FOR INSERT WITH CHECK (tenant_id IS NULL);"
    )
    loaded = schema(PARTS + GUARDED + bare + APPLICATION)
    from rlsaudit.probe.run import probe

    probe(
        loaded.server, loaded.name, loaded.catalog, loaded.tenancy, seed=0, budget=0, progress=lambda *_: None, plant="all"
    )  # fmt: skip
    assert len({kind for kind, _ in states}) > 8
    assert [kind for kind, same in states if not same] == []


def test_nothing_is_planted_where_it_leaks_already(schema) -> None:
    result = schema(PARTS + GUARDED + "CREATE POLICY all_ ON tags USING (true);" + APPLICATION).probe()
    states = {(cell.relation, cell.command): cell.state for cell in result.cells}
    assert states["public.tags", "SELECT"] == "leak"
    assert detector(result).outcome == "held"
