"""Known kinds of leak, each planted into one sound schema: found, named rightly, replayed by psql, shrunk, mended."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from rlsaudit.finding import Finding, Property


@dataclass(frozen=True)
class Planted:
    """``bad`` and ``mend`` are SQL for the owner; the finding wanted is (property, object, command)."""

    name: str
    bad: str
    mend: str
    property: Property
    object: str
    command: str
    rows: int
    """At most this many INSERTs in the replay script."""
    statements: int = 1
    """At most this many statements of the attack, context and transaction control left out."""
    relation: str = "shop.notes"


_POLICY = "DROP POLICY own ON shop.notes; CREATE POLICY own ON shop.notes"
_SOUND = f"{_POLICY} USING (tenant_id = shop.tenant());"
_PER_COMMAND = """
DROP POLICY own ON shop.notes;
CREATE POLICY reads ON shop.notes FOR SELECT USING (tenant_id = shop.tenant());
CREATE POLICY adds ON shop.notes FOR INSERT WITH CHECK (tenant_id = shop.tenant());
CREATE POLICY changes ON shop.notes FOR UPDATE USING (tenant_id = shop.tenant());
CREATE POLICY removes ON shop.notes FOR DELETE USING (tenant_id = shop.tenant());
"""

PLANTED = [
    Planted(
        "select using true",
        f"{_PER_COMMAND} DROP POLICY reads ON shop.notes; CREATE POLICY reads ON shop.notes FOR SELECT USING (true);",
        "ALTER POLICY reads ON shop.notes USING (tenant_id = shop.tenant());",
        "read", "shop.notes", "SELECT", rows=1,
    ),
    Planted(
        "update with check true",
        f"{_PER_COMMAND} ALTER POLICY changes ON shop.notes WITH CHECK (true);",
        "ALTER POLICY changes ON shop.notes WITH CHECK (tenant_id = shop.tenant());",
        "forge", "shop.notes", "UPDATE", rows=2,
    ),
    Planted(
        "delete using true",
        f"{_PER_COMMAND} ALTER POLICY removes ON shop.notes USING (true);",
        "ALTER POLICY removes ON shop.notes USING (tenant_id = shop.tenant());",
        "write", "shop.notes", "DELETE", rows=1,
    ),
    Planted(
        "insert with check true",
        f"{_PER_COMMAND} ALTER POLICY adds ON shop.notes WITH CHECK (true);",
        "ALTER POLICY adds ON shop.notes WITH CHECK (tenant_id = shop.tenant());",
        "forge", "shop.notes", "INSERT", rows=1,
    ),
    Planted(
        "row security never enabled",
        "ALTER TABLE shop.notes DISABLE ROW LEVEL SECURITY;",
        "ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY;",
        "read", "shop.notes", "SELECT", rows=1,
    ),
    Planted(
        "partition granted",
        """
        CREATE TABLE shop.events (tenant_id integer NOT NULL, event_id integer, what text NOT NULL) PARTITION BY HASH (tenant_id);
        CREATE TABLE shop.events_0 PARTITION OF shop.events FOR VALUES WITH (MODULUS 1, REMAINDER 0);
        ALTER TABLE shop.events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY own ON shop.events USING (tenant_id = shop.tenant());
        GRANT SELECT ON shop.events, shop.events_0 TO q_app;
        """,
        "REVOKE ALL ON shop.events_0 FROM q_app;",
        "read", "shop.events_0", "SELECT", rows=1, relation="shop.events_0",
    ),
    Planted(
        "view with its owner's rights",
        """
        ALTER TABLE shop.notes NO FORCE ROW LEVEL SECURITY;
        CREATE VIEW shop.recent AS SELECT tenant_id, body FROM shop.notes;
        GRANT SELECT ON shop.recent TO q_app;
        """,
        "ALTER TABLE shop.notes FORCE ROW LEVEL SECURITY;",
        "read", "shop.recent", "SELECT", rows=1, relation="shop.recent",
    ),
    Planted(
        "function with its owner's rights",
        """
        ALTER TABLE shop.notes NO FORCE ROW LEVEL SECURITY;
        CREATE FUNCTION shop.find_notes(word text) RETURNS SETOF shop.notes LANGUAGE sql SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp AS 'SELECT * FROM shop.notes';
        """,
        "ALTER FUNCTION shop.find_notes(text) SECURITY INVOKER;",
        "read", "shop.find_notes(text)", "EXECUTE", rows=1,
    ),
    Planted(
        "open when no context was ever set",
        f"{_POLICY} USING (current_setting('app.tenant_id', true) IS NULL OR tenant_id = shop.tenant());",
        _SOUND,
        "closed", "shop.notes", "SELECT", rows=1,
    ),
    Planted(
        "open when the context is empty",
        f"{_POLICY} USING (current_setting('app.tenant_id', true) = '' OR tenant_id = shop.tenant());",
        _SOUND,
        "closed", "shop.notes", "SELECT", rows=1,
    ),
    Planted(
        "context for the whole session",
        """
        CREATE FUNCTION shop.act_for(tenant integer) RETURNS void LANGUAGE sql
            AS $$ SELECT set_config('app.tenant_id', tenant::text, false) $$;
        """,
        """
        CREATE OR REPLACE FUNCTION shop.act_for(tenant integer) RETURNS void LANGUAGE sql
            AS $$ SELECT set_config('app.tenant_id', tenant::text, true) $$;
        """,
        "carryover", "shop.notes", "SELECT", rows=9, statements=3,
    ),
    Planted(
        "context function wrongly IMMUTABLE",
        """
        CREATE FUNCTION shop.frozen() RETURNS integer LANGUAGE plpgsql IMMUTABLE
            AS $$ BEGIN RETURN NULLIF(current_setting('app.tenant_id', true), '')::integer; END $$;
        DROP POLICY own ON shop.notes; CREATE POLICY own ON shop.notes USING (tenant_id = shop.frozen());
        """,
        "ALTER FUNCTION shop.frozen() STABLE;",
        "carryover", "shop.notes", "SELECT", rows=9, statements=10,
    ),
    Planted(
        "TRUNCATE granted",
        "GRANT TRUNCATE ON shop.notes TO q_app;",
        "REVOKE TRUNCATE ON shop.notes FROM q_app;",
        "write", "shop.notes", "TRUNCATE", rows=1,
    ),
    Planted(
        "shared rows can be changed",
        """
        CREATE TABLE shop.articles (article_id integer PRIMARY KEY, tenant_id integer REFERENCES shop.tenants, title text NOT NULL);
        ALTER TABLE shop.articles ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY own ON shop.articles USING (tenant_id IS NULL OR tenant_id = shop.tenant());
        GRANT SELECT, UPDATE ON shop.articles TO q_app;
        """,
        """
        CREATE POLICY changes ON shop.articles AS RESTRICTIVE FOR UPDATE USING (tenant_id = shop.tenant());
        """,
        "write", "shop.articles", "UPDATE", rows=2, relation="shop.articles",
    ),
    Planted(
        "compared with LIKE",
        f"{_POLICY} USING (tenant_id::text LIKE current_setting('app.tenant_id', true) || '%');",
        _SOUND,
        "read", "shop.notes", "SELECT", rows=1,
    ),
    Planted(
        "compared by prefix",
        f"{_POLICY} USING (starts_with(tenant_id::text, current_setting('app.tenant_id', true)));",
        _SOUND,
        "read", "shop.notes", "SELECT", rows=1,
    ),
    Planted(
        "author branch",
        f"{_POLICY} USING (tenant_id = shop.tenant() OR author = current_setting('app.user_id', true));",
        _SOUND,
        "forge", "shop.notes", "INSERT", rows=1,
    ),
    Planted(
        "trigger that copies to another tenant",
        """
        CREATE TABLE shop.inbox (tenant_id integer NOT NULL REFERENCES shop.tenants, body text NOT NULL);
        ALTER TABLE shop.inbox ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON shop.inbox USING (tenant_id = shop.tenant());
        GRANT SELECT ON shop.inbox TO q_app;
        CREATE FUNCTION shop.copy() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            INSERT INTO shop.inbox SELECT t.tenant_id, 'copied' FROM shop.tenants AS t;
            RETURN NULL;
        END $$;
        ALTER TABLE shop.tenants NO FORCE ROW LEVEL SECURITY;
        CREATE TRIGGER copies AFTER INSERT ON shop.notes FOR EACH ROW EXECUTE FUNCTION shop.copy();
        """,
        "DROP TRIGGER copies ON shop.notes;",
        "forge", "shop.notes", "INSERT", rows=2, relation="shop.inbox",
    ),
    Planted(
        "materialized view",
        """
        RESET ROLE;
        CREATE MATERIALIZED VIEW shop.totals AS SELECT tenant_id, body FROM shop.notes;
        GRANT SELECT ON shop.totals TO q_app;
        """,
        "REVOKE SELECT ON shop.totals FROM q_app;",
        "read", "shop.totals", "SELECT", rows=1, relation="shop.totals",
    ),
    Planted(
        "child without row security",
        """
        CREATE TABLE shop.lines (line_id integer PRIMARY KEY, tenant_id integer, note_id integer NOT NULL, text text NOT NULL,
            FOREIGN KEY (tenant_id, note_id) REFERENCES shop.notes);
        GRANT SELECT ON shop.lines TO q_app;
        """,
        """
        ALTER TABLE shop.lines ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON shop.lines USING (tenant_id = shop.tenant());
        """,
        "read", "shop.lines", "SELECT", rows=1, relation="shop.lines",
    ),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name.replace(" ", "-"))
def test_planted_leak(planted, base, schema, psql) -> None:
    leaky = schema(base + planted.bad)
    result = leaky.probe()
    found = [f for f in result.findings if _fits(f, planted)]
    assert found, _said(result.findings)
    finding = found[0]
    assert not result.blind
    assert finding.severity in ("critical", "high")
    assert finding.role == "q_app"
    assert finding.relation == planted.relation
    assert all(one.confirmed for one in result.findings), _said(result.findings)
    assert finding.replay.count("INSERT INTO") - _attacking(finding) <= planted.rows, finding.replay
    assert len(_attack(finding)) <= planted.statements, finding.replay
    assert psql(finding.replay, result.schema) == "LEAK"
    mended = schema(base.replace("CREATE ROLE", "-- CREATE ROLE") + planted.bad + planted.mend)
    assert psql(finding.replay, mended.schema_script()) == "HELD"


def _fits(finding: Finding, planted: Planted) -> bool:
    named = (finding.property, finding.object) == (planted.property, planted.object)
    return named and (finding.command == planted.command or f"Also by {planted.command}" in finding.message)


def _attack(finding: Finding) -> list[str]:
    """Statements of the attack itself."""
    control = ("--", "BEGIN", "ROLLBACK", "COMMIT", "SELECT set_config(", "SELECT shop.act_for(")
    lines = [line.partition(";")[0] for line in finding.attack.splitlines()]
    return [line for line in lines if not line.startswith(control)]


def _attacking(finding: Finding) -> int:
    return sum(statement.startswith("INSERT INTO") for statement in _attack(finding))


def _said(findings: tuple[Finding, ...]) -> str:
    lines = [f"{f.check} {f.object} {f.command} {f.relation} confirmed={f.confirmed}: {f.message}" for f in findings]
    return "\n".join(["found instead:", *lines])


def test_sound_schema_leaks_nothing(base, schema) -> None:
    result = schema(base).probe(budget=2)
    assert result.findings == ()
    assert {cell.state for cell in result.cells} == {"held", "no privilege"}
    assert {p.property: p.outcome for p in result.properties} == dict.fromkeys(
        ("read", "write", "forge", "closed", "carryover", "interference", "alive", "detector"), "held"
    )
    assert result.programs, "random workloads did not run"
    assert not result.blind


def _with_text_keys(base: str) -> str:
    return (
        base.replace("tenant_id integer", "tenant_id text")
        .replace("RETURNS integer", "RETURNS text")
        .replace("'')::integer", "'')")
    )


def test_sound_schema_with_text_keys_leaks_nothing(base, schema) -> None:
    assert schema(_with_text_keys(base)).probe().findings == ()


@pytest.mark.parametrize(
    "compare", ["lower(tenant_id) = lower(shop.tenant())", "tenant_id LIKE shop.tenant()", "tenant_id ~ shop.tenant()"]
)
def test_sloppy_comparison_of_text_keys(compare, base, schema) -> None:
    """Text keys are chosen so that a comparison that ignores case, or takes one for a pattern, confuses two of them."""
    result = schema(
        f"{_with_text_keys(base)} DROP POLICY own ON shop.notes; CREATE POLICY own ON shop.notes USING ({compare});"
    ).probe()
    assert [f for f in result.findings if (f.property, f.object, f.confirmed) == ("read", "shop.notes", True)], _said(
        result.findings
    )


_PEOPLE = """
CREATE TABLE shop.users (id serial PRIMARY KEY, tenant_id integer NOT NULL REFERENCES shop.tenants, email text NOT NULL UNIQUE);
ALTER TABLE shop.users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.users USING (tenant_id = shop.tenant()){};
CREATE TABLE shop.posts (id serial PRIMARY KEY, tenant_id integer NOT NULL REFERENCES shop.tenants,
    author integer NOT NULL REFERENCES shop.users);
ALTER TABLE shop.posts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.posts USING (tenant_id = shop.tenant());
CREATE POLICY mine ON shop.posts AS RESTRICTIVE USING (author = NULLIF(current_setting('shop.user_id', true), '')::integer);
GRANT SELECT, INSERT ON shop.users, shop.posts TO q_app; GRANT USAGE ON ALL SEQUENCES IN SCHEMA shop TO q_app;
"""


@pytest.mark.parametrize(("check", "leaks"), [(" WITH CHECK (true)", True), ("", False)])
def test_a_new_user_is_no_user_who_is_there(base, schema, check, leaks) -> None:
    """Where the users themselves are kept, a row to insert has a user of its own, so that nothing but policies refuses it."""
    result = schema(base + _PEOPLE.format(check)).probe()
    found = {
        (f.property, f.command) for f in result.findings if f.object == "shop.users" and f.property != "interference"
    }
    assert found == ({("forge", "INSERT")} if leaks else set())
    cell = next(cell for cell in result.cells if (cell.relation, cell.command) == ("shop.users", "INSERT"))
    assert cell.state == ("leak" if leaks else "held")
    assert leaks or "own rows reached" in cell.reason


_ONE_EACH = """
CREATE TABLE shop.settings (tenant_id integer PRIMARY KEY REFERENCES shop.tenants, theme text NOT NULL);
ALTER TABLE shop.settings ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.settings USING (tenant_id = shop.tenant()){};
GRANT SELECT, INSERT ON shop.settings TO q_app;
"""


@pytest.mark.parametrize(("check", "leaks"), [(" WITH CHECK (true)", True), ("", False)])
def test_a_unique_key_stands_in_for_no_policy(base, schema, psql, check, leaks) -> None:
    """Of a table with one row for each tenant every tenant has one: the next tenant has none yet."""
    result = schema(base + _ONE_EACH.format(check)).probe()
    cell = next(cell for cell in result.cells if (cell.relation, cell.command) == ("shop.settings", "INSERT"))
    assert cell.state == ("leak" if leaks else "held")
    found = [f for f in result.findings if f.object == "shop.settings" and f.property == "forge"]
    assert [f.command for f in found] == ["INSERT"] * leaks
    for finding in found:
        assert "its unique key refuses" in finding.message
        assert psql(finding.replay, result.schema) == "LEAK"
    assert leaks or "with row security off the same statements cross" in cell.reason


_GUARDED = "ALTER TABLE shop.{0} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
_TAKEN_PLACES = {
    "through a view": (
        "CREATE TABLE shop.t (tenant_id integer PRIMARY KEY REFERENCES shop.tenants, theme text NOT NULL);"
        + _GUARDED.format("t")
        + "CREATE POLICY own ON shop.t USING (tenant_id = shop.tenant()) WITH CHECK (tenant_id > 0); RESET ROLE;"
        "CREATE VIEW shop.v WITH (security_invoker) AS SELECT * FROM shop.t; GRANT SELECT, INSERT ON shop.t, shop.v TO q_app;",
        "shop.v", "INSERT",
    ),
    "a partition of a partition": (
        "CREATE TABLE shop.t (tenant_id integer NOT NULL REFERENCES shop.tenants, kind text NOT NULL, PRIMARY KEY (tenant_id,"
        " kind)) PARTITION BY LIST (kind); CREATE TABLE shop.t1 PARTITION OF shop.t DEFAULT PARTITION BY HASH (tenant_id);"
        "CREATE TABLE shop.t2 PARTITION OF shop.t1 FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
        "ALTER TABLE shop.t ADD CHECK (kind = 'only');"
        + _GUARDED.format("t")
        + "CREATE POLICY own ON shop.t USING (tenant_id = shop.tenant()) WITH CHECK (tenant_id > 0);"
        "GRANT SELECT, INSERT ON shop.t TO q_app;",
        "shop.t", "INSERT",
    ),
    "an exclusion constraint": (
        "CREATE TABLE shop.t (tenant_id integer NOT NULL REFERENCES shop.tenants, theme text, EXCLUDE USING hash (tenant_id WITH =));"
        + _GUARDED.format("t")
        + "CREATE POLICY own ON shop.t USING (tenant_id = shop.tenant()) WITH CHECK (tenant_id > 0);"
        "GRANT SELECT, INSERT ON shop.t TO q_app;",
        "shop.t", "INSERT",
    ),
    "an own row that moves": (
        "CREATE TABLE shop.t (tenant_id integer PRIMARY KEY REFERENCES shop.tenants, theme text NOT NULL);"
        + _GUARDED.format("t")
        + "CREATE POLICY own ON shop.t USING (tenant_id = shop.tenant()) WITH CHECK (tenant_id > 0);"
        "GRANT SELECT, UPDATE ON shop.t TO q_app;",
        "shop.t", "UPDATE",
    ),
    "an own row that moves and is referred to": (
        "CREATE TABLE shop.t (tenant_id integer PRIMARY KEY REFERENCES shop.tenants, theme text NOT NULL);"
        "CREATE TABLE shop.of_t (tenant_id integer NOT NULL REFERENCES shop.t, id serial PRIMARY KEY);"
        + _GUARDED.format("t")
        + "CREATE POLICY own ON shop.t USING (tenant_id = shop.tenant()) WITH CHECK (tenant_id > 0);"
        "GRANT SELECT, UPDATE ON shop.t TO q_app;",
        "shop.t", "UPDATE",
    ),
    "a policy that asks for an own row": (
        "CREATE TABLE shop.t (tenant_id integer PRIMARY KEY REFERENCES shop.tenants, theme text NOT NULL);"
        "CREATE FUNCTION shop.has() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS"
        " 'SELECT EXISTS (SELECT FROM shop.t WHERE tenant_id = shop.tenant())';"
        + _GUARDED.format("t").replace(", FORCE ROW LEVEL SECURITY", "")
        + "CREATE POLICY own ON shop.t USING (tenant_id = shop.tenant()) WITH CHECK (shop.has());"
        "GRANT SELECT, INSERT ON shop.t TO q_app;",
        "shop.t", "INSERT",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _TAKEN_PLACES)
def test_a_place_that_is_taken_is_no_wall(base, schema, name) -> None:
    bad, object_, command = _TAKEN_PLACES[name]
    found = {(f.property, f.object, f.command, f.confirmed) for f in schema(base + bad).probe().findings}
    assert ("forge", object_, command, True) in found


def test_a_row_that_becomes_the_tenants_own_meets_its_own_row(base, schema) -> None:
    """A trigger gives it the acting tenant's key: its place is taken by the tenant itself, and nobody else's row is touched."""
    result = schema(base + """
        CREATE TABLE shop.t (id integer PRIMARY KEY, tenant_id integer NOT NULL UNIQUE REFERENCES shop.tenants, label text);
        CREATE TABLE shop.log (id serial PRIMARY KEY, t integer NOT NULL REFERENCES shop.t);
        CREATE FUNCTION shop.claim() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.tenant_id := shop.tenant(); RETURN NEW; END $$;
        CREATE FUNCTION shop.note() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO shop.log (t) VALUES (NEW.id); RETURN NULL; END $$;
        CREATE TRIGGER claim BEFORE INSERT ON shop.t FOR EACH ROW EXECUTE FUNCTION shop.claim();
        CREATE TRIGGER note AFTER INSERT ON shop.t FOR EACH ROW EXECUTE FUNCTION shop.note();
        ALTER TABLE shop.t ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.log ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON shop.t USING (tenant_id = shop.tenant());
        CREATE POLICY own ON shop.log USING (EXISTS (SELECT FROM shop.t WHERE t.id = log.t AND t.tenant_id = shop.tenant()));
        GRANT SELECT, INSERT ON shop.t, shop.log TO q_app; GRANT USAGE ON ALL SEQUENCES IN SCHEMA shop TO q_app;
    """).probe()  # fmt: skip
    assert [(f.property, f.object, f.message) for f in result.findings] == []


def test_an_own_row_under_anothers_identity_adopts_nobody(base, schema) -> None:
    """The primary key refuses it for good: children whose parent another tenant has are not the acting tenant's to change."""
    result = schema(base + """
        CREATE TABLE shop.parents (id integer PRIMARY KEY, tenant_id integer NOT NULL REFERENCES shop.tenants, name text NOT NULL);
        CREATE TABLE shop.children (id serial PRIMARY KEY, tenant_id integer NOT NULL REFERENCES shop.tenants,
            parent integer NOT NULL REFERENCES shop.parents, parent_name text);
        CREATE TABLE shop.firsts (id serial PRIMARY KEY, parent integer NOT NULL REFERENCES shop.parents);
        CREATE FUNCTION shop.name() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN
            UPDATE shop.children SET parent_name = NEW.name WHERE parent = NEW.id;
            INSERT INTO shop.firsts (parent) VALUES (NEW.id); RETURN NULL; END $$;
        CREATE TRIGGER name AFTER INSERT ON shop.parents FOR EACH ROW EXECUTE FUNCTION shop.name();
        ALTER TABLE shop.parents ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.children ENABLE ROW LEVEL SECURITY;
        ALTER TABLE shop.firsts ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON shop.parents USING (tenant_id = shop.tenant());
        CREATE POLICY own ON shop.children USING (tenant_id = shop.tenant());
        CREATE POLICY own ON shop.firsts USING (EXISTS (SELECT FROM shop.parents AS p WHERE p.id = parent AND p.tenant_id = shop.tenant()));
        GRANT SELECT, INSERT ON shop.parents TO q_app; GRANT SELECT ON shop.children, shop.firsts TO q_app;
    """).probe()  # fmt: skip
    assert [(f.property, f.object, f.message) for f in result.findings if f.property != "interference"] == []
