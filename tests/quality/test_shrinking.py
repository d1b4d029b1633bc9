"""What is found shrinks, also over several visits; what does not show again is told as unstable and not dropped."""

from __future__ import annotations

import re

from rlsaudit.probe import replaying


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
