"""Leaks that no policy on the row could stop: shared tables, context functions, foreign keys, publications; each planted,
and beside it the nearest sound thing.
"""

from __future__ import annotations

from io import BytesIO

import pytest

from rlsaudit.options import Options
from rlsaudit.scan import scan

OWN = "NULLIF(current_setting('app.tenant_id', true), '')::int"
BASE = f"""
CREATE ROLE b_app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE docs (tenant_id int NOT NULL REFERENCES tenants, id int, body text NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY; ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants USING (id = {OWN});
CREATE POLICY p ON docs USING (tenant_id = {OWN});
GRANT SELECT ON tenants TO b_app; GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO b_app;
"""
RATES = """
CREATE TABLE rates (country char(2) PRIMARY KEY, pct numeric(5, 2) NOT NULL CHECK (pct < 100));
INSERT INTO rates VALUES ('DE', 19);
"""
OPEN = "ALTER TABLE rates ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON rates USING ({});"
ALL = "GRANT SELECT, INSERT, UPDATE, DELETE ON rates TO b_app;"
FLAGS = """
CREATE TABLE flags (name text PRIMARY KEY, is_on boolean NOT NULL DEFAULT false); INSERT INTO flags VALUES ('x', false);
"""


def told(schema, change: str) -> list[tuple[str, str, str, tuple[str, ...], bool]]:
    found = schema(BASE + change).probe().findings
    return [(f.check, f.severity, f.object, f.commands or (f.command,), f.confirmed) for f in found]


@pytest.mark.parametrize(
    ("change", "table", "severity", "commands"),
    [
        (RATES + ALL, "rates", "high", ("DELETE", "INSERT", "UPDATE")),
        (RATES + "GRANT SELECT, UPDATE (pct) ON rates TO b_app;", "rates", "high", ("UPDATE",)),
        (RATES + "GRANT SELECT, INSERT ON rates TO b_app;", "rates", "medium", ("INSERT",)),
        (RATES + "GRANT SELECT, DELETE ON rates TO b_app;", "rates", "high", ("DELETE",)),
        (RATES + ALL + OPEN.format("true"), "rates", "high", ("DELETE", "INSERT", "UPDATE")),
        (FLAGS + "GRANT SELECT, UPDATE ON flags TO b_app;", "flags", "high", ("UPDATE",)),
    ],
)
def test_one_tenant_changes_what_all_read(schema, change, table, severity, commands) -> None:
    ((check, bad, thing, by, confirmed),) = told(schema, change)
    assert (check, bad, thing, confirmed) == ("PROBE-WRITE", severity, f"public.{table}", True)
    assert tuple(sorted(by)) == commands


@pytest.mark.parametrize(
    "change",
    [
        RATES + "GRANT SELECT ON rates TO b_app;",
        RATES + "GRANT INSERT, DELETE ON rates TO b_app;",
        RATES + ALL + OPEN.format("true").replace("ON rates", "ON rates FOR SELECT"),
        RATES + ALL + OPEN.format("current_setting('app.admin', true) = 'on'"),
        RATES + ALL + "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'fixed'; END $$;"
        "CREATE TRIGGER no BEFORE INSERT OR UPDATE OR DELETE ON rates FOR EACH STATEMENT EXECUTE FUNCTION no();",
        (RATES + ALL).replace("rates", "rate_changes"),
    ],
)  # fmt: skip
def test_what_tenants_only_read_is_fine(schema, change) -> None:
    assert told(schema, change) == []


ACT = """
CREATE TABLE logins ({user}, tenant_id int NOT NULL REFERENCES tenants, PRIMARY KEY (member, tenant_id));
CREATE FUNCTION act_for(wanted int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN {check} PERFORM set_config('app.tenant_id', wanted::text, true); END $$;
"""
LOGIN, USER = "member name", "member int NOT NULL"
MEMBER = "FROM public.logins l WHERE l.member = {} AND l.tenant_id = wanted"
REFUSE = "IF NOT EXISTS (SELECT {}) THEN RAISE EXCEPTION 'not a member'; END IF;"


@pytest.mark.parametrize(
    ("check", "leaks"),
    [
        ("", True),
        (f"PERFORM {MEMBER.format('session_user')};", True),
        (REFUSE.format("FROM public.logins l WHERE l.member = session_user"), True),
        (REFUSE.format("FROM public.logins l WHERE l.tenant_id = wanted"), False),
        (REFUSE.format(MEMBER.format("session_user")), False),
    ],
)
def test_a_context_function_asks_whose_login_it_is(schema, check, leaks) -> None:
    found = told(schema, ACT.format(user=LOGIN, check=check))
    assert found == ([("PROBE-READ", "high", "public.act_for(integer)", ("EXECUTE",), True)] if leaks else [])


@pytest.mark.parametrize(
    ("check", "leaks"),
    [("", True), (REFUSE.format(MEMBER.format("current_setting('app.user_id')::int")), False)],
)
def test_a_context_function_asks_which_user_acts(schema, check, leaks) -> None:
    seen = "tenant_id IN (SELECT tenant_id FROM logins l WHERE l.member = NULLIF(current_setting('app.user_id', true), '')::int)"
    policy = (
        f"DROP POLICY p ON docs; CREATE POLICY p ON docs USING (tenant_id = {OWN} OR false AND {seen});"
        "GRANT SELECT ON logins TO b_app;"
    )
    found = told(schema, ACT.format(user=USER, check=check) + policy)
    assert (("PROBE-READ", "high", "public.act_for(integer)", ("EXECUTE",), True) in found) == leaks, found


CARDS = f"""
CREATE TABLE cards (tenant_id int NOT NULL REFERENCES tenants, n int NOT NULL, doc_id int, body text NOT NULL,
  PRIMARY KEY (tenant_id, n), FOREIGN KEY (tenant_id, doc_id) REFERENCES docs {{}});
ALTER TABLE cards ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON cards USING (tenant_id = {OWN});
GRANT SELECT, {{}} ON cards TO b_app;
"""


@pytest.mark.parametrize("command", ["INSERT", "UPDATE"])
@pytest.mark.parametrize("held", ["", "DEFERRABLE INITIALLY DEFERRED"])
def test_a_foreign_key_keeps_references_at_home(schema, command, held) -> None:
    assert told(schema, CARDS.format(held, command)) == []


@pytest.mark.parametrize("command", ["INSERT", "UPDATE"])
def test_a_foreign_key_that_is_not_enforced_lets_foreign_references_in(schema, server, command) -> None:
    if server.version_num < 180000:
        pytest.skip("NOT ENFORCED is of PostgreSQL 18")
    found = told(schema, CARDS.format("NOT ENFORCED", command))
    assert found == [("PROBE-FORGE", "low", "public.cards", (command,), True)]


def test_a_foreign_key_with_its_triggers_off_lets_foreign_references_in(schema) -> None:
    """No dump keeps that state, so no replay shows it again."""
    ((check, bad, thing, _, _),) = told(schema, CARDS.format("", "INSERT") + "ALTER TABLE cards DISABLE TRIGGER ALL;")
    assert (check, bad, thing) == ("PROBE-FORGE", "low", "public.cards")


FEED = "CREATE ROLE b_feed LOGIN REPLICATION; CREATE PUBLICATION b_docs FOR TABLE docs {} WITH (publish = 'insert');"


@pytest.mark.parametrize(
    ("filtered", "leaks"),
    [
        ("", True),
        ("WHERE (id <> 0)", True),
        ("WHERE (tenant_id = 1)", False),
        ("WHERE (tenant_id IN (1, 11))", False),
    ],
)
def test_a_subscriber_is_sent_the_rows_of_every_tenant(schema, filtered, leaks) -> None:
    found = told(schema, FEED.format(filtered))
    assert found == ([("PROBE-READ", "high", "public.docs", ("SELECT",), True)] if leaks else [])


def test_without_a_subscriber_a_publication_sends_nothing(schema) -> None:
    assert told(schema, FEED.format("").replace("REPLICATION", "NOREPLICATION")) == []


QUEUE = f"""
CREATE TABLE events (tenant_id int NOT NULL, note_id int, note text NOT NULL, PRIMARY KEY (tenant_id, note_id));
GRANT INSERT ON events TO b_app;
CREATE RULE own AS ON INSERT TO events WHERE NEW.tenant_id IS DISTINCT FROM {OWN} DO INSTEAD NOTHING;
"""
TRIGGER = f"""
CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.tenant_id IS DISTINCT FROM {OWN} THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE TRIGGER own BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION own();
"""
BOUND = f"ALTER TABLE events ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON events USING (tenant_id = {OWN});"


@pytest.mark.parametrize(("guard", "leaks"), [("", True), (TRIGGER, False), (BOUND, False)])
def test_copy_stores_what_a_rule_keeps_an_insert_from(schema, guard, leaks) -> None:
    found = schema(BASE + QUEUE + guard).probe().findings
    forged = [(f.check, f.object, "COPY into" in f.message, f.confirmed) for f in found]
    assert forged == [("PROBE-FORGE", "public.events", True, True)] * leaks


LOOP = """
CREATE EXTENSION postgres_fdw;
DO $$ BEGIN EXECUTE format(
  'CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, dbname %L)', '127.0.0.1', current_database());
END $$;
CREATE USER MAPPING FOR b_app SERVER here OPTIONS (user '{}', password_required 'false');
CREATE FOREIGN TABLE distant (tenant_id int, body text) SERVER here OPTIONS (schema_name 'public', table_name 'docs');
GRANT SELECT ON distant TO b_app;
"""


@pytest.mark.parametrize("mapped", ["postgres", "b_app"])
def test_a_foreign_table_is_read_as_whoever_is_mapped(schema, server, mapped) -> None:
    with server.connect() as connection:
        offered = connection.execute("SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw'").fetchone()
    if offered is None:
        pytest.skip("this server has no postgres_fdw")
    found = [one for one in told(schema, LOOP.format(mapped)) if one[2] == "public.distant"]
    assert found == [("PROBE-READ", "critical", "public.distant", ("SELECT",), True)] * (mapped == "postgres")


def test_a_cell_whose_trigger_carries_the_leak_on_is_told_of(tmp_path) -> None:
    """The finding is about the table that was written to as well as about the one whose rows changed."""
    source = tmp_path / "schema.sql"
    source.write_text("""
        CREATE ROLE b_app LOGIN;
        CREATE TABLE tenants (id integer PRIMARY KEY, hits integer NOT NULL DEFAULT 0);
        CREATE TABLE notes (id integer PRIMARY KEY, tenant_id integer NOT NULL REFERENCES tenants, body text);
        CREATE FUNCTION hit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
            $$ BEGIN UPDATE public.tenants SET hits = hits + 1; RETURN NULL; END $$;
        CREATE TRIGGER hit AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION hit();
        ALTER TABLE tenants ENABLE ROW LEVEL SECURITY; ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::integer);
        CREATE POLICY p ON notes USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::integer);
        GRANT SELECT ON tenants TO b_app; GRANT SELECT, INSERT ON notes TO b_app;
    """)
    report = scan(Options(source=str(source), stdin=BytesIO(), budget=0.0), lambda what, done, of: None).report
    assert ("public.notes", "INSERT", "leak") in {(c.relation, c.command, c.state) for c in report.cells}
    found = next(f for f in report.findings if f.check == "PROBE-WRITE")
    assert (found.object, found.relation) == ("public.notes", "public.tenants")
    assert not any("no finding tells" in reason for reason in report.reasons)
