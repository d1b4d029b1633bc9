"""What is found shrinks, also over several visits; what does not show again is told as unstable and not dropped."""

from __future__ import annotations

import re

from rlsaudit.probe import replaying, run
from rlsaudit.probe.judging import partial
from rlsaudit.probe.replay import shrink


def test_rows_of_a_leak_over_several_visits_shrink_too(schema) -> None:
    found = (
        schema("""
        CREATE ROLE k_app LOGIN;
        CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
        CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL);
        ALTER TABLE tenants ENABLE ROW LEVEL SECURITY; ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE FUNCTION become(t int) RETURNS void LANGUAGE sql AS $$ SELECT set_config('app.tenant_id', t::text, false) $$;
        CREATE POLICY p ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
        CREATE POLICY p ON docs USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
        GRANT SELECT ON tenants, docs TO k_app;
    """)
        .probe()
        .findings
    )
    carried = [f for f in found if f.property == "carryover"]
    assert carried
    assert all(f.confirmed for f in carried)
    assert [len(re.findall(r"^INSERT INTO", f.replay, re.MULTILINE)) for f in carried] == [1] * len(carried)


def test_what_does_not_replay_is_told_as_unstable(schema, monkeypatch) -> None:
    monkeypatch.setattr(replaying, "confirm", lambda *given, **named: False)
    found = (
        schema("""
        CREATE ROLE u_app LOGIN;
        CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
        CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL);
        ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
        GRANT SELECT ON tenants, docs TO u_app;
    """)
        .probe()
        .findings
    )
    assert [(f.object, f.severity, f.confirmed, "Unstable" in f.message) for f in found if f.property == "read"] == [
        ("public.docs", "critical", False, True)
    ]


MANY = """
DO $$ BEGIN CREATE ROLE m_app LOGIN; EXCEPTION WHEN duplicate_object THEN END $$;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL);
CREATE FUNCTION own() RETURNS int LANGUAGE sql STABLE AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;
DO $$ BEGIN FOR n IN 1..12 LOOP
    EXECUTE format('CREATE TABLE other_%s (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text)', n);
    EXECUTE format('ALTER TABLE other_%s ENABLE ROW LEVEL SECURITY', n);
    EXECUTE format('CREATE POLICY p ON other_%s USING (tenant_id = own())', n);
END LOOP; END $$;
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY; ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants USING (id = own());
CREATE FUNCTION open_to_all() RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$ BEGIN {} END $$;
CREATE POLICY p ON docs USING (tenant_id = own() OR open_to_all());
GRANT SELECT ON ALL TABLES IN SCHEMA public TO m_app;
"""


def _read(schema, monkeypatch, body: str):
    """The leak of docs, and how many rows were stored at once while it shrank."""
    stored = []
    put = shrink.put

    def counting(connection, stage, rows, also=()) -> None:
        stored.append(len(rows))
        put(connection, stage, rows, also)

    monkeypatch.setattr(shrink, "put", counting)
    (found,) = [f for f in schema(MANY.format(body)).probe().findings if f.property == "read"]
    return found, stored


def test_rows_of_what_a_leak_is_not_about_are_not_even_tried(schema, monkeypatch) -> None:
    found, stored = _read(schema, monkeypatch, "RETURN true;")
    assert found.confirmed
    assert len(re.findall(r"^INSERT INTO", found.replay, re.MULTILINE)) == 1
    assert 0 < max(stored) <= 12


def test_what_only_a_function_asks_for_is_found_among_all_rows(schema, monkeypatch) -> None:
    found, stored = _read(
        schema,
        monkeypatch,
        "DECLARE r boolean; BEGIN EXECUTE 'SELECT EXISTS (SELECT FROM other_' || 7 || ')' INTO r; RETURN r; END;",
    )
    assert found.confirmed
    assert len(re.findall(r"^INSERT INTO", found.replay, re.MULTILINE)) == 2
    assert max(stored) > 24


def test_scripts_of_an_interrupted_run_hold_what_a_large_schema_s_leak_is_about(schema, monkeypatch) -> None:
    def interrupted(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "replayed", interrupted)
    scripts = {}
    for most in (10, 1000):
        monkeypatch.setattr(partial, "_MOST_ROWS", most)
        (found,) = [f for f in schema(MANY.format("RETURN true;")).probe().findings if f.property == "read"]
        assert not found.confirmed
        scripts[most] = found.replay.count("\nINSERT INTO")
    assert 0 < scripts[10] <= 12
    assert scripts[1000] > 24
