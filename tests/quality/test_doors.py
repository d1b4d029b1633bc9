"""Doors beside the tables: functions with every kind of argument, triggers and views that act for somebody else.

Each is one small change to a sound schema; the probe must find it and psql must show it again.
"""

from __future__ import annotations

import pytest

BASE = """
CREATE ROLE x_app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE docs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
CREATE POLICY p ON docs USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT ON tenants TO x_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO x_app;
"""
OWN = "tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int"
DEFINER = "SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp"


def reading(arguments: str, condition: str) -> str:
    return (
        f"CREATE FUNCTION found({arguments}) RETURNS SETOF docs LANGUAGE sql STABLE {DEFINER} "
        f"AS $$ SELECT * FROM docs WHERE {condition} $$;"
    )


LEAKY = {
    "no argument, open without a context": (
        reading("", f"{OWN} OR current_setting('app.tenant_id', true) IS NULL"), "closed", "public.found()"),
    "date": (reading("since date", "since IS NOT NULL"), "read", "public.found(date)"),
    "array": (reading("ids int[]", "id = ANY (ids)"), "read", "public.found(integer[])"),
    "a word of the body": (reading("scope text", f"{OWN} OR scope = 'everything'"), "read", "public.found(text)"),
    "zero": (reading("folder int", f"{OWN} OR folder = 0"), "read", "public.found(integer)"),
    "json": (
        f"CREATE FUNCTION save(payload jsonb) RETURNS void LANGUAGE sql {DEFINER} "
        "AS $$ UPDATE docs SET body = 'x' WHERE id = (payload ->> 'id')::int $$;", "write", "public.save(jsonb)"),
    "trigger that acts on the row referred to": (
        "CREATE TABLE payments (id int PRIMARY KEY, tenant_id int NOT NULL, doc_id int REFERENCES docs);"
        "ALTER TABLE payments ENABLE ROW LEVEL SECURITY;"
        f"CREATE POLICY p ON payments USING ({OWN}); GRANT SELECT, INSERT ON payments TO x_app;"
        f"CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql {DEFINER} "
        "AS $$ BEGIN UPDATE docs SET body = 'paid by ' || NEW.id WHERE id = NEW.doc_id; RETURN NEW; END $$;"
        "CREATE TRIGGER touch AFTER INSERT ON payments FOR EACH ROW EXECUTE FUNCTION touch();",
        "write", "public.payments"),
    "INSTEAD OF trigger that overwrites": (
        f"CREATE VIEW editable AS SELECT id, body FROM docs WHERE {OWN}; GRANT SELECT, INSERT ON editable TO x_app;"
        f"CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql {DEFINER} AS $$ BEGIN "
        "INSERT INTO docs VALUES (NEW.id, NULLIF(current_setting('app.tenant_id', true), '')::int, NEW.body) "
        "ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body; RETURN NEW; END $$;"
        "CREATE TRIGGER put INSTEAD OF INSERT ON editable FOR EACH ROW EXECUTE FUNCTION put();",
        "write", "public.editable"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEAKY)
def test_door_is_found_and_replays(schema, kind) -> None:
    change, broken, door = LEAKY[kind]
    found = schema(BASE + change).probe().findings
    assert [(f.object, f.confirmed) for f in found if f.property == broken and f.object == door] == [(door, True)]


@pytest.mark.parametrize(
    "change",
    [
        reading("", OWN),
        reading("since date", f"since IS NOT NULL AND {OWN}"),
        reading("ids int[]", f"id = ANY (ids) AND {OWN}"),
        reading("scope text", f"scope = 'everything' AND {OWN}"),
    ],
)
def test_the_same_function_with_the_tenant_is_fine(schema, change) -> None:
    assert schema(BASE + change).probe().findings == ()
