"""Sessions as they are in life: a login for each tenant, a token for each session, a switch that opens, a pooled state."""

from __future__ import annotations

import pytest

from rlsaudit.finding import Finding
from rlsaudit.tenancy.infer import Declared
from rlsaudit.tenancy.model import Context, Persona

ROLES = """
CREATE ROLE q_owner NOLOGIN;
CREATE ROLE q_clients NOLOGIN;
CREATE SCHEMA shop AUTHORIZATION q_owner;
GRANT USAGE ON SCHEMA shop TO q_clients;
SET ROLE q_owner;
CREATE TABLE shop.orders (order_id integer PRIMARY KEY, customer name NOT NULL DEFAULT current_user, body text NOT NULL);
CREATE TABLE shop.lines (line_id integer PRIMARY KEY, order_id integer NOT NULL REFERENCES shop.orders, what text NOT NULL);
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.lines ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.orders TO q_clients USING (customer = current_user);
CREATE POLICY own ON shop.lines TO q_clients USING (order_id IN (SELECT order_id FROM shop.orders));
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.orders, shop.lines TO q_clients;
"""
TENANTS = '''
RESET ROLE;
CREATE ROLE "o'neill & ""sons""" LOGIN IN ROLE q_clients CONNECTION LIMIT 0 VALID UNTIL '2001-01-01';
ALTER ROLE "o'neill & ""sons""" SET search_path = nowhere;
CREATE ROLE "x234567890123456789012345678901234567890123456789012345678901 ñ" LOGIN IN ROLE q_clients;
SET ROLE q_owner;
'''
TOKENS = """
CREATE TABLE shop.sessions (token text PRIMARY KEY, tenant_id integer NOT NULL REFERENCES shop.tenants);
CREATE OR REPLACE FUNCTION shop.tenant() RETURNS integer LANGUAGE sql STABLE SECURITY DEFINER SET search_path = shop, pg_temp
    AS $$ SELECT tenant_id FROM shop.sessions WHERE token = current_setting('app.session', true) $$;
"""
STATE = """
CREATE FUNCTION shop.summary() RETURNS text LANGUAGE plpgsql AS $$
DECLARE kept text := current_setting('shop.summary', true);
BEGIN
    IF COALESCE(kept, '') = '' THEN
        SELECT string_agg(body, ',') INTO kept FROM shop.notes;
        PERFORM set_config('shop.summary', COALESCE(kept, ''), %s);
    END IF;
    RETURN kept;
END $$;
GRANT EXECUTE ON FUNCTION shop.summary() TO q_app;
"""


def _states(result) -> dict[tuple[str, str], str]:
    return {(cell.relation, cell.command): cell.state for cell in result.cells if cell.state != "no privilege"}


def _told(result) -> list[tuple[str, str, str, str]]:
    return [(f.property, f.object, f.command, f.severity) for f in result.findings if f.property != "interference"]


def _one(result, broken: str) -> Finding:
    (found,) = [finding for finding in result.findings if finding.property == broken]
    return found


def _assert_replays(found: Finding, result, psql, mended: str = "") -> None:
    assert found.confirmed
    assert psql(found.replay, result.schema) == "LEAK"
    if mended:
        assert psql(found.replay, result.schema + f"\nSET ROLE q_owner;\n{mended}\nRESET ROLE;\n") == "HELD"


@pytest.mark.parametrize("tenants", ["", TENANTS], ids=["made for the probe", "of the schema, with hostile names"])
def test_a_login_for_each_tenant_is_held(schema, tenants: str) -> None:
    loaded = schema(ROLES + tenants)
    result = loaded.probe()
    assert _told(result) == []
    assert set(_states(result).values()) == {"held"} and len(_states(result)) == 8
    assert any("logs in as a role of its own" in note for note in result.notes)
    carried = next(p for p in result.properties if p.property == "carryover")
    assert carried.outcome == "not covered" and "SET ROLE" in carried.reason


@pytest.mark.parametrize(
    ("tenants", "bad", "mend", "told"),
    [
        ("", "CREATE POLICY more ON shop.orders FOR SELECT USING (true);", "DROP POLICY more ON shop.orders;",
         ("read", "shop.orders", "SELECT", "critical")),
        (TENANTS, "CREATE POLICY more ON shop.orders FOR INSERT WITH CHECK (true);", "DROP POLICY more ON shop.orders;",
         ("forge", "shop.orders", "INSERT", "critical")),
        (TENANTS, "CREATE POLICY more ON shop.lines FOR DELETE USING (true);", "DROP POLICY more ON shop.lines;",
         ("write", "shop.lines", "DELETE", "critical")),
        ("", "CREATE VIEW shop.everything AS SELECT body FROM shop.orders; GRANT SELECT ON shop.everything TO q_clients;",
         "ALTER VIEW shop.everything SET (security_invoker);", ("read", "shop.everything", "SELECT", "critical")),
    ],
)  # fmt: skip
def test_a_leak_between_logins(schema, psql, tenants: str, bad: str, mend: str, told) -> None:
    result = schema(ROLES + tenants + bad).probe()
    assert told in _told(result)
    _assert_replays(next(f for f in result.findings if f.property == told[0]), result, psql, mend)


def test_no_role_of_a_tenant_is_left_behind(schema, server) -> None:
    def roles() -> set[object]:
        with server.connect() as connection:
            return {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}

    loaded = schema(ROLES)
    before = roles()
    loaded.probe()
    assert roles() == before


def test_a_declared_login(schema) -> None:
    personas = (Persona("tenant", (), ":tenant"),)
    result = schema(ROLES).probe(Declared(context=Context(personas=personas, declared=True)))
    assert set(_states(result).values()) == {"held"}


def test_a_token_for_each_session(schema, base, psql) -> None:
    sound = schema(base + TOKENS).probe()
    assert _told(sound) == []
    assert {_states(sound)["shop.notes", one] for one in ("SELECT", "INSERT", "UPDATE", "DELETE")} == {"held"}


def test_a_leak_beside_tokens(schema, base, psql) -> None:
    result = schema(base + TOKENS + "CREATE POLICY more ON shop.notes FOR DELETE USING (true);").probe()
    assert ("write", "shop.notes", "DELETE", "critical") in _told(result)
    _assert_replays(_one(result, "write"), result, psql, "DROP POLICY more ON shop.notes;")


@pytest.mark.parametrize(
    ("condition", "named"),
    [
        ("current_setting('app.bypass_rls', true) = 'on'", "app.bypass_rls='on'"),
        ("current_setting('app.role', true) IN ('admin', 'support')", "app.role='admin'"),
        ("current_setting('app.is_superuser', true)::boolean", "app.is_superuser='on'"),
        ("current_setting('app.tenant_id', true) = '-1'", "app.tenant_id='-1'"),
        ("current_setting('app.actor', true) = 'job' AND current_setting('app.skip_rls', true) = '1'",
         "app.actor='job', app.skip_rls='1'"),
    ],
)  # fmt: skip
def test_a_setting_that_opens_is_one_finding(schema, base, psql, condition: str, named: str) -> None:
    bad = "".join(f"CREATE POLICY open ON shop.{one} USING ({condition});" for one in ("notes", "tenants"))
    loaded = schema(
        base + bad + "CREATE VIEW shop.v WITH (security_invoker) AS TABLE shop.notes; GRANT SELECT ON shop.v TO q_app;"
    )
    result = loaded.probe()
    ((broken, _, _, severity),) = _told(result)
    assert (broken, severity) == ("read", "high")
    found = _one(result, "read")
    assert named in found.message and "shop.v" in found.message
    assert set(_states(result).values()) == {"held"}
    _assert_replays(found, result, psql, "DROP POLICY open ON shop.notes; DROP POLICY open ON shop.tenants;")


def test_a_leak_of_an_ordinary_session_is_not_the_settings(schema, base) -> None:
    bad = """CREATE POLICY open ON shop.notes USING (current_setting('app.bypass_rls', true) = 'on');
        CREATE POLICY removes ON shop.notes FOR DELETE USING (true);"""
    result = schema(base + bad).probe()
    assert ("write", "shop.notes", "DELETE", "critical") in _told(result)
    assert _states(result)["shop.notes", "DELETE"] == "leak"
    assert _states(result)["shop.notes", "SELECT"] == "held"


def test_a_role_without_which_nothing_is_seen_is_no_opening(schema, base) -> None:
    """Nobody sees anything without being a member, so what members see of others is the policy's leak."""
    result = schema(
        base
        + """DROP POLICY own ON shop.notes;
        CREATE POLICY own ON shop.notes USING (current_setting('app.role', true) IN ('member', 'admin'));"""
    ).probe()
    assert ("read", "shop.notes", "SELECT", "critical") in _told(result)
    assert _states(result)["shop.notes", "SELECT"] == "leak"


@pytest.mark.parametrize(("local", "leaks"), [("true", False), ("false", True)])
def test_every_function_that_sets_the_context_is_tried(schema, base, psql, local: str, leaks: bool) -> None:
    """One function does it rightly, and the other is found only by being called."""
    setters = f"""
        CREATE FUNCTION shop.enter(tenant integer) RETURNS void LANGUAGE sql
            AS $$ SELECT set_config('app.tenant_id', tenant::text, true) $$;
        CREATE FUNCTION shop.enter_by_number(number integer, since date DEFAULT NULL) RETURNS void LANGUAGE plpgsql
            AS $$ BEGIN PERFORM set_config('app.tenant_id', number::text, {local}); END $$;
        GRANT EXECUTE ON FUNCTION shop.enter, shop.enter_by_number TO q_app;"""
    result = schema(base + setters).probe()
    assert [f.property for f in result.findings] == (["carryover"] if leaks else [])
    if leaks:
        found = _one(result, "carryover")
        assert "DISCARD ALL" in found.message
        _assert_replays(found, result, psql)


@pytest.mark.parametrize(("local", "leaks"), [("true", False), ("false", True)])
def test_what_a_function_keeps_serves_the_next_tenant(schema, base, psql, local: str, leaks: bool) -> None:
    result = schema(base + STATE % local).probe()
    carried = [f for f in result.findings if f.property == "carryover"]
    assert [f.object for f in carried] == (["shop.summary()"] if leaks else [])
    for found in carried:
        _assert_replays(found, result, psql)


@pytest.mark.parametrize(("reset", "leaks"), [("DISCARD ALL", False), ("RESET ALL", False), ("RESET ROLE", True)])
def test_the_pools_reset_is_run_between_visits(schema, base, psql, reset: str, leaks: bool) -> None:
    persona = Persona("tenant", ("SELECT set_config('app.tenant_id', :tenant, false)",))
    result = schema(base).probe(Declared(context=Context(personas=(persona,), reset=(reset,), declared=True)))
    assert [f.property for f in result.findings] == (["carryover"] if leaks else [])
    assert any("still has" in note for note in result.notes) == (reset != "DISCARD ALL")
    if leaks:
        found = _one(result, "carryover")
        assert f"{reset};" in found.replay
        _assert_replays(found, result, psql)
