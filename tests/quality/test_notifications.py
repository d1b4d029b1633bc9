"""NOTIFY reaches every session that listens, and ``row_security = off`` must open nothing: planted, and beside it sound."""

from __future__ import annotations

import pytest

BASE = """
CREATE ROLE n_app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE docs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY; ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
CREATE POLICY p ON docs USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT ON tenants TO n_app; GRANT SELECT, {granted} ON docs TO n_app;
CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify({channel}, {payload}); RETURN NEW; END $$;
CREATE TRIGGER told AFTER INSERT OR UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION told();
"""
ROW, ID = "row_to_json(NEW)::text", "NEW.id::text"


@pytest.mark.parametrize("granted", ["INSERT", "UPDATE"])
@pytest.mark.parametrize("channel", ["'docs_changed'", "'docs_' || NEW.tenant_id"])
@pytest.mark.parametrize("payload", [ROW, ID])
def test_rows_in_a_payload_are_heard(schema, granted, channel, payload) -> None:
    found = schema(BASE.format(granted=granted, channel=channel, payload=payload)).probe().findings
    heard = [f for f in found if "LISTEN" in f.message]
    assert [(f.severity, f.confirmed) for f in heard] == ([("high", True)] if payload == ROW else []), found


def test_a_function_that_sends_rows_is_heard(schema) -> None:
    sends = (
        "CREATE FUNCTION tell() RETURNS void LANGUAGE sql AS "
        "$$ SELECT pg_notify('all', string_agg(body, ',')) FROM docs $$;"
    )
    found = schema(BASE.format(granted="UPDATE", channel="'x'", payload=ID) + sends).probe().findings
    assert ["call of public.tell()" in f.message and f.confirmed for f in found] == [True]


GUARDED = """
CREATE ROLE r_app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON docs USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
CREATE TABLE events (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL);
CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF {skipped} NEW.tenant_id IS DISTINCT FROM NULLIF(current_setting('app.tenant_id', true), '')::int
  THEN RAISE EXCEPTION 'not yours' USING ERRCODE = 'insufficient_privilege'; END IF; RETURN NEW; END $$;
CREATE TRIGGER own BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION own();
GRANT SELECT ON tenants, docs TO r_app; GRANT INSERT ON events TO r_app;
"""


@pytest.mark.parametrize("skipped", ["", "current_setting('row_security') = 'on' AND"])
def test_row_security_off_opens_nothing(schema, skipped) -> None:
    found = [f for f in schema(GUARDED.format(skipped=skipped)).probe().findings if "row_security" in f.message]
    assert [(f.object, f.command, f.confirmed) for f in found] == [("public.events", "INSERT", True)] * bool(skipped)
