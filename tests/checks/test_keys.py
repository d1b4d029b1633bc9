"""Keys and constraints: every way to reach over tenants, and the near things that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from rlsaudit.checks._examples import TENANT

from rlsaudit.finding import at_least

Make = Callable[..., Any]

BASE = f"""\
CREATE ROLE app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text);
CREATE TABLE countries (code text PRIMARY KEY, id uuid UNIQUE);
GRANT SELECT ON tenants, countries TO app;
CREATE TABLE boards (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants,
    secret uuid UNIQUE DEFAULT gen_random_uuid(), UNIQUE (tenant_id, id));
CREATE TABLE rows (tenant_id int NOT NULL REFERENCES tenants, id bigserial PRIMARY KEY, host text, room int, during
    tsrange, deleted_at timestamptz, verified bool DEFAULT false, board_id bigint, board_secret uuid, country text
    REFERENCES countries, token text, external_id text, "dayOf" date, n int, UNIQUE (tenant_id, id));
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE boards ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE rows ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
CREATE POLICY own ON boards USING ({TENANT});
CREATE POLICY own ON rows USING ({TENANT});
GRANT SELECT, INSERT, UPDATE, DELETE ON boards, rows TO app;
"""


def severities(made: Any, check: str) -> list[str]:
    return [f.severity for f in made.of(check)]


@pytest.mark.parametrize(
    "key",
    [
        "ALTER TABLE rows ADD UNIQUE (host)",
        "ALTER TABLE rows ADD UNIQUE (host) INCLUDE (tenant_id)",
        "ALTER TABLE rows ADD UNIQUE (host) INCLUDE (tenant_id, room)",
        "ALTER TABLE rows ADD UNIQUE NULLS NOT DISTINCT (host, room)",
        "ALTER TABLE rows ADD UNIQUE (host) DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE rows ADD UNIQUE (country)",
        'ALTER TABLE rows ADD UNIQUE ("dayOf", room)',
        "CREATE UNIQUE INDEX ON rows (host) WHERE deleted_at IS NULL",
        'CREATE UNIQUE INDEX "Strange Name" ON rows ((lower(host) || room::text), "dayOf" DESC)',
        "CREATE UNIQUE INDEX ON rows (host, (tenant_id % 4))",
        "CREATE UNIQUE INDEX ON rows ((true)) WHERE verified",
        "CREATE UNIQUE INDEX ON rows (host) WHERE tenant_id > 0",
        "CREATE UNIQUE INDEX ON rows (host) WHERE tenant_id IS NULL OR tenant_id > 5",
        "ALTER TABLE rows ADD EXCLUDE USING gist (during WITH &&)",
        "ALTER TABLE rows ADD EXCLUDE USING btree (host WITH =) WHERE (verified)",
        "ALTER TABLE rows ADD low text GENERATED ALWAYS AS (lower(host)) STORED, ADD UNIQUE (low)",
        "ALTER TABLE rows DROP CONSTRAINT rows_pkey, ALTER host SET NOT NULL, ADD PRIMARY KEY (host)",
        "REVOKE INSERT, UPDATE ON rows FROM app; GRANT UPDATE (host) ON rows TO app; ALTER TABLE rows ADD UNIQUE (host)",
    ],
)
def test_uniqueness_over_tenants(schema: Make, key: str) -> None:
    made = schema(BASE + key)
    found = made.of("RLS502")
    assert [(f.severity, f.object) for f in found] == [("medium", "public.rows")], found
    made.execute(found[0].fix)
    assert not made.of("RLS502"), found[0].fix


@pytest.mark.parametrize(
    "key",
    [
        "ALTER TABLE rows ADD UNIQUE (host, tenant_id)",
        "ALTER TABLE rows ADD UNIQUE (board_id, host), ADD FOREIGN KEY (tenant_id, board_id) REFERENCES boards"
        " (tenant_id, id); ALTER TABLE rows ADD FOREIGN KEY (board_id) REFERENCES boards",
        "ALTER TABLE rows ADD UNIQUE (token), ADD UNIQUE (board_secret), ADD UNIQUE (id, deleted_at)",
        "CREATE UNIQUE INDEX ON rows (host) WHERE tenant_id IS NULL",
        "CREATE UNIQUE INDEX ON rows (host) WHERE tenant_id = 1 AND verified",
        "CREATE UNIQUE INDEX ON rows ((tenant_id::text || ':' || lower(host)))",
        "CREATE INDEX ON rows (host)",
        "ALTER TABLE rows ADD whole text GENERATED ALWAYS AS (tenant_id::text || host) STORED, ADD UNIQUE (whole)",
        "ALTER TABLE rows ADD EXCLUDE USING btree (host WITH =, tenant_id WITH =)",
        "ALTER TABLE rows ADD UNIQUE (host); REVOKE INSERT, UPDATE ON rows FROM app;"
        " GRANT INSERT (tenant_id, room), UPDATE (room) ON rows TO app",
        "ALTER TABLE rows ADD UNIQUE (host); CREATE POLICY public ON rows FOR SELECT USING (true)",
        "ALTER TABLE rows ADD UNIQUE (external_id)",
        "CREATE UNIQUE INDEX ON rows (host) WHERE verified; REVOKE INSERT, UPDATE ON rows FROM app;"
        " GRANT INSERT (tenant_id, host), UPDATE (room) ON rows TO app",
        "ALTER TABLE tenants ADD UNIQUE (name); GRANT UPDATE ON tenants TO app",
        "CREATE TABLE users (tenant_id int NOT NULL, id int, email text UNIQUE, PRIMARY KEY (tenant_id, id));"
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; GRANT INSERT ON users TO app;"
        f"CREATE POLICY own ON users USING ({TENANT})",
    ],
)
def test_uniqueness_within_a_tenant(schema: Make, key: str) -> None:
    assert not [f for f in schema(BASE + key).of("RLS502") if at_least(f.severity, "medium")]


def test_a_partition_of_one_tenant_keeps_its_own_keys(schema: Make) -> None:
    made = schema(
        BASE
        + f"""
        CREATE TABLE parts (tenant_id int NOT NULL, host text) PARTITION BY LIST (tenant_id);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
        CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2, 3);
        CREATE UNIQUE INDEX ON parts_1 (host);
        CREATE UNIQUE INDEX ON parts_2 (host);
        ALTER TABLE parts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        ALTER TABLE parts_1 ENABLE ROW LEVEL SECURITY; ALTER TABLE parts_2 ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON parts USING ({TENANT});
        CREATE POLICY own ON parts_1 USING ({TENANT}); CREATE POLICY own ON parts_2 USING ({TENANT});
        GRANT SELECT, INSERT ON parts, parts_1, parts_2 TO app;
        """
    )
    assert [f.object for f in made.of("RLS502")] == ["public.parts_2"]


def test_keys_that_others_refer_to_are_made_anew(schema: Make) -> None:
    made = schema(
        BASE
        + f"""
        CREATE TABLE sites (tenant_id int NOT NULL, host text UNIQUE);
        CREATE TABLE pages (tenant_id int NOT NULL, host text REFERENCES sites (host) ON DELETE CASCADE, n int);
        ALTER TABLE sites ENABLE ROW LEVEL SECURITY; ALTER TABLE pages ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON sites USING ({TENANT}); CREATE POLICY own ON pages USING ({TENANT});
        GRANT SELECT, INSERT, UPDATE, DELETE ON sites, pages TO app;
        """
    )
    made.execute(made.of("RLS502")[0].fix)
    assert not made.of("RLS502")
    assert not made.of("RLS503")


@pytest.mark.parametrize(
    ("reference", "severity"),
    [
        ("FOREIGN KEY (board_id) REFERENCES boards (id)", "medium"),
        ("FOREIGN KEY (board_id) REFERENCES boards (id) ON DELETE SET NULL ON UPDATE CASCADE", "medium"),
        ("FOREIGN KEY (board_id) REFERENCES boards (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED", "medium"),
        ("FOREIGN KEY (board_id) REFERENCES boards (id) ON DELETE SET NULL, ALTER board_id SET NOT NULL", "high"),
        ("FOREIGN KEY (board_id) REFERENCES boards (id) ON DELETE SET NULL,"
         " ADD CHECK (board_id IS NOT NULL OR country IS NOT NULL)", "high"),
        ("FOREIGN KEY (board_secret) REFERENCES boards (secret)", "low"),
        ("FOREIGN KEY (board_id) REFERENCES boards (id), ADD FOREIGN KEY (tenant_id, board_id) REFERENCES boards"
         " (tenant_id, id) NOT VALID", "medium"),
        ("COLUMN parent_id bigint REFERENCES rows (id)", "medium"),
    ],
)  # fmt: skip
def test_references_over_tenants(schema: Make, reference: str, severity: str) -> None:
    made = schema(BASE + f"ALTER TABLE rows ADD {reference};")
    found = made.of("RLS503")
    assert [f.severity for f in found] == [severity], found
    made.execute(found[0].fix)
    assert not made.of("RLS503"), found[0].fix


@pytest.mark.parametrize(
    "script",
    [
        "ALTER TABLE rows ADD FOREIGN KEY (tenant_id, board_id) REFERENCES boards (tenant_id, id) ON DELETE CASCADE",
        "ALTER TABLE rows ADD FOREIGN KEY (board_id) REFERENCES boards (id), ADD FOREIGN KEY (board_id, tenant_id)"
        " REFERENCES boards (id, tenant_id)",
        "ALTER TABLE rows ADD FOREIGN KEY (board_id) REFERENCES boards (id); REVOKE INSERT, UPDATE ON rows FROM app;"
        " GRANT INSERT (tenant_id, host) ON rows TO app",
        "ALTER TABLE rows ADD FOREIGN KEY (board_id) REFERENCES boards (id); CREATE POLICY seen ON rows AS RESTRICTIVE"
        " USING (true) WITH CHECK (board_id IS NULL OR EXISTS (SELECT FROM boards b WHERE b.id = board_id))",
        "ALTER TABLE rows ADD FOREIGN KEY (board_id) REFERENCES boards (id); DROP POLICY own ON rows; CREATE POLICY own"
        f" ON rows USING ({TENANT}) WITH CHECK ({TENANT} AND board_id IN (SELECT id FROM boards))",
        "ALTER TABLE rows ADD FOREIGN KEY (board_id) REFERENCES boards (id);"
        "CREATE FUNCTION same() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM FROM boards WHERE id = NEW.board_id AND tenant_id = NEW.tenant_id;"
        " IF NOT FOUND THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER same BEFORE INSERT OR UPDATE ON rows FOR EACH ROW EXECUTE FUNCTION same()",
        "CREATE TABLE lines (row_id bigint REFERENCES rows (id) ON DELETE CASCADE, n int);"
        "ALTER TABLE lines ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; GRANT ALL ON lines TO app;"
        "CREATE POLICY own ON lines USING (EXISTS (SELECT FROM rows r WHERE r.id = row_id))",
        "CREATE POLICY all_boards ON boards FOR SELECT USING (true);"
        "ALTER TABLE rows ADD FOREIGN KEY (board_id) REFERENCES boards (id)",
    ],
)
def test_references_within_a_tenant(schema: Make, script: str) -> None:
    assert not schema(BASE + script).of("RLS503")


@pytest.mark.parametrize("force", ["FORCE", "NO FORCE"])
def test_a_cascade_that_fails_prints_the_row_whether_row_security_is_forced_or_not(schema: Make, force: str) -> None:
    made = schema(
        BASE
        + f"""
        ALTER TABLE boards ALTER id SET GENERATED BY DEFAULT;
        ALTER TABLE rows ADD FOREIGN KEY (board_id) REFERENCES boards (id) ON UPDATE CASCADE, ADD CHECK (board_id < 9),
            {force} ROW LEVEL SECURITY;
        INSERT INTO tenants VALUES (1), (2);
        INSERT INTO boards (id, tenant_id) OVERRIDING SYSTEM VALUE VALUES (1, 1);
        INSERT INTO rows (tenant_id, board_id, host) VALUES (2, 1, 'secret of 2');
        ALTER TABLE boards OWNER TO app_owner; ALTER TABLE rows OWNER TO app_owner;
        """.replace(
            "ALTER TABLE boards OWNER",
            "CREATE ROLE app_owner; GRANT USAGE ON SCHEMA public TO app_owner;ALTER TABLE boards OWNER",
        ),
    )
    assert severities(made, "RLS503") == ["high"]
    made.connection.execute("SET ROLE app; SELECT set_config('app.tenant_id', '1', false)")
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        made.connection.execute("UPDATE boards SET id = 99 WHERE id = 1")
    assert "secret of 2" in str(caught.value)
    made.connection.execute("RESET ROLE")


@pytest.mark.parametrize(
    ("script", "check", "expected"),
    [
        ("ALTER TABLE rows ALTER tenant_id DROP NOT NULL", "RLS501", ["low"]),
        ("ALTER TABLE rows ALTER tenant_id DROP NOT NULL, ADD CHECK (tenant_id IS NOT NULL)", "RLS501", []),
        ("ALTER TABLE rows ALTER tenant_id DROP NOT NULL, ADD CHECK (tenant_id > 0)", "RLS501", ["low"]),
        ("ALTER TABLE rows ALTER tenant_id DROP NOT NULL; CREATE POLICY s ON rows FOR SELECT USING (tenant_id IS NULL)",
         "RLS501", []),
        ("ALTER TABLE rows ADD CHECK (n > 0) NOT VALID", "RLS504", []),
        ("ALTER TABLE rows ADD CHECK (tenant_id > 0) NOT VALID", "RLS504", ["low"]),
        ("ALTER TABLE rows ALTER tenant_id SET DEFAULT 1", "RLS505", ["low"]),
        ("ALTER TABLE rows ALTER tenant_id SET DEFAULT current_setting('other.tenant')::int", "RLS505", ["medium"]),
        ("ALTER TABLE rows ALTER tenant_id SET DEFAULT current_setting('APP.tenant_id')::int", "RLS505", []),
        ("GRANT USAGE, SELECT ON SEQUENCE rows_id_seq, boards_id_seq TO app", "RLS506", []),
        ("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app", "RLS506", ["medium"]),
        ("CREATE SEQUENCE loose; GRANT ALL ON SEQUENCE loose TO app", "RLS506", []),
        ("ALTER TABLE rows ADD FOREIGN KEY (tenant_id, board_id) REFERENCES boards (tenant_id, id) ON DELETE SET NULL",
         "RLS507", ["low"]),
        ("ALTER TABLE rows ADD FOREIGN KEY (tenant_id, board_id) REFERENCES boards (tenant_id, id)"
         " ON DELETE SET NULL (board_id)", "RLS507", []),
        ("ALTER TABLE rows ALTER tenant_id DROP NOT NULL, ADD FOREIGN KEY (tenant_id, board_id) REFERENCES boards"
         " (tenant_id, id) ON DELETE SET NULL; CREATE POLICY s ON rows FOR SELECT USING (tenant_id IS NULL)",
         "RLS507", ["medium"]),
        ("ALTER TABLE rows DROP CONSTRAINT rows_country_fkey, ADD FOREIGN KEY (country) REFERENCES countries ON DELETE"
         " CASCADE; GRANT DELETE ON countries TO app", "RLS508", ["high"]),
        ("GRANT DELETE ON countries TO app", "RLS508", []),
    ],
)  # fmt: skip
def test_other_keys(schema: Make, script: str, check: str, expected: list[str]) -> None:
    made = schema(BASE + script)
    found = made.of(check)
    assert [f.severity for f in found] == expected, found
    for one in found:
        made.execute(one.fix)
    assert not made.of(check)


@pytest.mark.parametrize(
    "table",
    [
        "during tsrange, PRIMARY KEY (room, during WITHOUT OVERLAPS)",
        "during tsrange, UNIQUE (room, during WITHOUT OVERLAPS)",
    ],
)
def test_temporal_keys(schema: Make, table: str) -> None:
    script = (
        BASE
        + "CREATE EXTENSION btree_gist;"
        + f"CREATE TABLE stays (tenant_id int NOT NULL, room int NOT NULL, {table});"
        + "ALTER TABLE stays ENABLE ROW LEVEL SECURITY; GRANT SELECT, INSERT ON stays TO app;"
        + f"CREATE POLICY own ON stays USING ({TENANT});"
    )
    try:
        made = schema(script)
    except psycopg.errors.SyntaxError:
        pytest.skip("WITHOUT OVERLAPS needs PostgreSQL 18")
    found = made.of("RLS502")
    assert [f.severity for f in found] == ["medium"]
    made.execute(found[0].fix)
    assert not made.of("RLS502")


def test_not_enforced(schema: Make) -> None:
    reference = "FOREIGN KEY (tenant_id, board_id) REFERENCES boards (tenant_id, id) NOT ENFORCED"
    try:
        made = schema(BASE + f"ALTER TABLE rows ADD {reference}, ADD CHECK (tenant_id > 0) NOT ENFORCED")
    except psycopg.errors.Error:
        pytest.skip("NOT ENFORCED needs PostgreSQL 18")
    found = made.of("RLS504")
    assert [f.severity for f in found] == ["low"]
    made.execute(found[0].fix)
    assert not made.of("RLS504")
