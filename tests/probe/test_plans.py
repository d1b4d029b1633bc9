"""Which plans find a tenant's rows by the key, on a copy without rows that the planner takes for a large database."""

from __future__ import annotations

from rlsaudit.probe.planner.plans import Planned, findings, plans

TENANT = "tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int"
SCHEMA = f"""
CREATE ROLE n_app LOGIN;
CREATE TABLE good (id int PRIMARY KEY, tenant_id int NOT NULL, body text CHECK (body ~ '^never$'));
CREATE INDEX good_tenant ON good (tenant_id, id);
CREATE TABLE missing (LIKE good INCLUDING CONSTRAINTS, PRIMARY KEY (id));
CREATE TABLE wrapped (LIKE good);
CREATE INDEX wrapped_tenant ON wrapped (tenant_id);
CREATE TABLE by_text (LIKE good);
CREATE INDEX by_text_tenant ON by_text ((tenant_id::text));
CREATE TABLE parts (LIKE good) PARTITION BY LIST (tenant_id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_11 PARTITION OF parts FOR VALUES IN (11);
CREATE TABLE hashed (LIKE good) PARTITION BY HASH (id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX hashed_tenant ON hashed (tenant_id);
CREATE TABLE closed (LIKE good);
DO $$ DECLARE t text; BEGIN FOREACH t IN ARRAY '{{good,missing,wrapped,by_text,parts,hashed,closed}}'::text[] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY; GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO n_app', t, t);
END LOOP; END $$;
CREATE POLICY own ON good USING ({TENANT});
CREATE POLICY own ON missing USING ({TENANT});
CREATE POLICY own ON wrapped USING (tenant_id::text = current_setting('app.tenant_id', true));
CREATE POLICY own ON by_text USING (tenant_id::text = current_setting('app.tenant_id', true));
CREATE POLICY own ON parts USING ({TENANT});
CREATE POLICY own ON hashed USING ({TENANT});
"""


def _ways(planned: tuple[Planned, ...]) -> dict[str, set[tuple[str, str]]]:
    found: dict[str, set[tuple[str, str]]] = {}
    for one in planned:
        found.setdefault(one.relation.removeprefix("public."), set()).add((one.way, one.detail))
    return found


def _plans(loaded) -> tuple[Planned, ...]:
    return plans(loaded.server, loaded.name, loaded.catalog, loaded.tenancy, lambda what, done, of: None)


def test_a_missing_index_stands_beside_a_good_one(schema) -> None:
    loaded = schema(SCHEMA)
    planned = _plans(loaded)
    assert {one.command for one in planned if one.relation == "public.good"} == {"SELECT", "UPDATE", "DELETE"}
    ways = _ways(planned)
    assert ways["good"] == {("key index", "good_tenant")}
    assert ways["missing"] == {("whole table", "missing")}
    assert ways["wrapped"] == {("whole table", "wrapped")}
    assert ways["by_text"] == {("key index", "by_text_tenant")}
    assert ways["parts"] == {("partition", "1 of 2 partitions")}
    assert {way for way, _ in ways["hashed"]} == {"key index"}
    assert ("no rows", "one-time filter") in ways["closed"]


def test_only_what_an_index_could_serve_is_a_finding(schema) -> None:
    (found,) = findings(_plans(schema(SCHEMA)))
    assert (found.object, found.severity, found.source) == ("public.wrapped", "low", "check")
    assert "wrapped_tenant" in found.message


def test_the_source_is_left_as_it_was(schema) -> None:
    loaded = schema(SCHEMA)
    _plans(loaded)
    with loaded.connect() as connection:
        size = connection.execute("SELECT pg_relation_size('good'), count(*) FROM good").fetchone()
        copies = connection.execute("SELECT count(*) FROM pg_database WHERE datname ~ 'plans'").fetchone()
    assert (size, copies) == ((0, 0), (0,))


def test_what_cannot_be_planned_says_why(schema) -> None:
    loaded = schema("""
        CREATE ROLE n_app LOGIN;
        CREATE TABLE notes (tenant_id int NOT NULL, x text);
        CREATE FUNCTION nope(text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON notes USING (tenant_id = current_setting('app.tenant_id')::int AND tenant_id > nope('x'));
        GRANT SELECT ON notes TO n_app;
    """)
    (only,) = _plans(loaded)
    assert (only.way, only.detail) == ("not planned", "never")


def test_an_array_of_the_subquery_is_what_an_index_can_answer(schema) -> None:
    loaded = schema("""
        CREATE ROLE n_app LOGIN;
        CREATE TABLE members (member text, tenant_id int, PRIMARY KEY (member, tenant_id));
        CREATE TABLE slow (tenant_id int NOT NULL, x text); CREATE INDEX slow_tenant ON slow (tenant_id);
        CREATE TABLE fast (LIKE slow); CREATE INDEX fast_tenant ON fast (tenant_id);
        ALTER TABLE slow ENABLE ROW LEVEL SECURITY; ALTER TABLE fast ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON slow USING (tenant_id IN
            (SELECT m.tenant_id FROM members m WHERE m.member = current_setting('app.user', true)));
        CREATE POLICY own ON fast USING (tenant_id = ANY (ARRAY(
            SELECT m.tenant_id FROM members m WHERE m.member = current_setting('app.user', true))));
        GRANT SELECT ON members, slow, fast TO n_app;
    """)
    ways = _ways(_plans(loaded))
    assert ways["slow"] == {("whole table", "slow")}
    assert ways["fast"] == {("key index", "fast_tenant")}
