"""No role that fills tenant tables is left out in silence."""

from __future__ import annotations

SCHEMA = """
CREATE ROLE x_owner {owner};
CREATE ROLE x_reader LOGIN;
SET ROLE x_owner;
CREATE SCHEMA shop;
CREATE TABLE shop.docs (tenant_id int NOT NULL, id int PRIMARY KEY);
ALTER TABLE shop.docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON shop.docs USING (tenant_id = current_setting('app.tenant_id', true)::int);
GRANT USAGE ON SCHEMA shop TO x_reader;
GRANT SELECT ON shop.docs TO x_reader;
RESET ROLE;
"""


def names(loaded) -> set[str]:
    return {role.name for role in loaded.tenancy.roles}


def test_an_owner_is_tested_when_nobody_else_can_write(schema) -> None:
    prepared = (
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO x_owner', current_database()); END $$; SET ROLE"
    )
    loaded = schema(SCHEMA.format(owner="LOGIN").replace("SET ROLE", prepared, 1))
    assert names(loaded) == {"x_owner", "x_reader"}


def test_who_is_left_out_is_named(schema) -> None:
    prepared = (
        "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO x_owner', current_database()); END $$; SET ROLE"
    )
    loaded = schema(
        SCHEMA.format(owner="LOGIN").replace("SET ROLE", prepared, 1) + "GRANT INSERT ON shop.docs TO x_reader;"
    )
    assert names(loaded) == {"x_reader"}
    assert any("x_owner" in note and "--role" in note for note in loaded.tenancy.notes)
