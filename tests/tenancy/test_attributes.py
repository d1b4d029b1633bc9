"""Context beyond tenant and user: given one value, which the seeded rows have too."""

from __future__ import annotations

import pytest

SCHEMA = """
CREATE ROLE x_app LOGIN;
CREATE TYPE plan AS ENUM ('free', 'pro');
CREATE TABLE tenants (id int PRIMARY KEY);
CREATE TABLE parcels (tenant_id int NOT NULL REFERENCES tenants, id int PRIMARY KEY, region {type} NOT NULL, note text);
ALTER TABLE parcels ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON parcels USING (tenant_id = current_setting('app.tenant_id', true)::int
    AND region = current_setting('app.region', true)::{type});
GRANT SELECT, INSERT, UPDATE, DELETE ON parcels TO x_app;
"""


@pytest.mark.parametrize("type_", ["int", "text", "plan", "uuid"])
def test_rows_and_sessions_agree_on_the_attribute(schema, type_) -> None:
    loaded = schema(SCHEMA.format(type=type_))
    result = loaded.probe()
    assert loaded.tenancy.attributes[loaded.oid("public.parcels")].keys() == {"region"}
    states = {cell.command: cell.state for cell in result.cells if cell.relation == "public.parcels"}
    assert set(states.values()) == {"held"}, [cell for cell in result.cells if cell.state == "not covered"]


def test_a_value_compared_with_constants_is_no_attribute(schema) -> None:
    loaded = schema(
        SCHEMA.format(type="text").replace(
            "AND region = current_setting('app.region', true)::text", "AND current_setting('app.region', true) = 'eu'"
        )
    )
    assert not loaded.tenancy.attributes
