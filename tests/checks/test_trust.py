"""What policies trust: variants that open, and the nearest ones that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]

MEMBERS = """
CREATE ROLE app LOGIN;
CREATE FUNCTION me() RETURNS int LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('app.user_id', true), '')::int $$;
CREATE TABLE orgs (id int PRIMARY KEY, name text);
CREATE TABLE users (id int PRIMARY KEY, email text);
CREATE TABLE members (user_id int REFERENCES users, org_id int REFERENCES orgs, role text NOT NULL DEFAULT 'member',
  PRIMARY KEY (user_id, org_id));
CREATE TABLE projects (id int PRIMARY KEY, org_id int NOT NULL REFERENCES orgs, title text);
ALTER TABLE orgs ENABLE ROW LEVEL SECURITY;
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
ALTER TABLE projects ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON members FOR SELECT USING (user_id = me());
CREATE POLICY own ON users FOR SELECT USING (id = me());
CREATE POLICY mine ON orgs FOR SELECT USING (id IN (SELECT org_id FROM members WHERE user_id = me()));
CREATE POLICY member ON projects USING (org_id IN (SELECT org_id FROM members WHERE user_id = me()));
GRANT SELECT ON orgs, members, users TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON projects TO app;
"""
ADMINS = """
CREATE TABLE admins (user_id int PRIMARY KEY);
CREATE POLICY admin ON projects FOR SELECT USING (EXISTS (SELECT FROM admins a WHERE a.user_id = me()));
"""
PROFILES = """
CREATE TABLE profiles (id int PRIMARY KEY REFERENCES users, is_staff boolean, name text);
ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON profiles USING (id = me());
CREATE POLICY staff ON projects FOR SELECT USING ((SELECT is_staff FROM profiles WHERE id = me()));
"""
TEAMS = """
CREATE TABLE teams (id int PRIMARY KEY, org_id int NOT NULL REFERENCES orgs);
CREATE TABLE team_members (team_id int REFERENCES teams, user_id int, PRIMARY KEY (team_id, user_id));
ALTER TABLE teams ENABLE ROW LEVEL SECURITY;
ALTER TABLE team_members ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON teams FOR SELECT USING (id IN (SELECT team_id FROM team_members WHERE user_id = me()));
CREATE POLICY own ON team_members USING (user_id = me());
GRANT SELECT ON teams, team_members TO app;
CREATE POLICY team ON projects FOR SELECT USING (EXISTS (SELECT FROM team_members m JOIN teams t ON t.id = m.team_id
  WHERE m.user_id = me() AND t.org_id = projects.org_id));
"""
TENANTS = """
CREATE ROLE app LOGIN;
CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;
CREATE TABLE tenants (id int PRIMARY KEY, name text, plan text);
CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text, UNIQUE (tenant_id, id));
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE docs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY self ON tenants USING (id = tenant());
CREATE POLICY tenant ON docs USING (tenant_id = tenant());
GRANT SELECT ON tenants TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO app;
"""
SHARES = """
CREATE TABLE shares (tenant_id int NOT NULL, doc_id int NOT NULL REFERENCES docs, shared_with int NOT NULL);
ALTER TABLE shares ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON shares USING (tenant_id = tenant());
CREATE POLICY shared ON shares FOR SELECT USING (shared_with = tenant());
GRANT SELECT, INSERT, DELETE ON shares TO app;
"""
SHARED = "CREATE POLICY shared ON docs FOR SELECT USING (EXISTS (SELECT FROM shares s WHERE {} AND s.shared_with = tenant()));"
DEFINER = "LANGUAGE {} STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$ {} $$;"


def levels(made: Any, check: str) -> dict[str, str]:
    return {finding.object: finding.severity for finding in made.of(check)}


@pytest.mark.parametrize(
    ("script", "expected"),
    [(MEMBERS + ADMINS + "GRANT SELECT, INSERT ON admins TO app;", {"public.admins": "critical"}),
     (MEMBERS + ADMINS + "GRANT SELECT ON admins TO app;", {}),
     (MEMBERS + ADMINS + "GRANT pg_write_all_data TO app;", {"public.admins": "critical"}),
     (MEMBERS + ADMINS + "ALTER TABLE admins ENABLE ROW LEVEL SECURITY; CREATE POLICY a ON admins USING (user_id = me());"
      "GRANT SELECT, INSERT ON admins TO app;", {"public.admins": "critical"}),
     (MEMBERS + PROFILES + "GRANT SELECT, UPDATE ON profiles TO app;", {"public.profiles": "critical"}),
     (MEMBERS + PROFILES + "GRANT SELECT, UPDATE (name) ON profiles TO app;", {}),
     (MEMBERS + PROFILES + "GRANT SELECT, UPDATE ON profiles TO app; CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql"
      " AS $$ BEGIN IF NEW.is_staff IS DISTINCT FROM OLD.is_staff THEN RAISE 'no'; END IF; RETURN NEW; END $$;"
      "CREATE TRIGGER kept BEFORE UPDATE ON profiles FOR EACH ROW EXECUTE FUNCTION kept();", {"public.profiles": "info"}),
     (MEMBERS + TEAMS + "GRANT INSERT ON team_members TO app;", {"public.team_members": "critical"}),
     (MEMBERS + TEAMS, {}),
     (MEMBERS + "CREATE POLICY admin ON projects FOR DELETE USING (org_id IN (SELECT org_id FROM members"
      " WHERE user_id = me() AND role = 'admin')); CREATE POLICY u ON members FOR UPDATE USING (user_id = me());"
      "GRANT UPDATE (role) ON members TO app;", {"public.members": "medium"})],
)  # fmt: skip
def test_users_that_let_themselves_in(schema: Make, script: str, expected: dict[str, str]) -> None:
    assert levels(schema(script), "RLS113") == expected


@pytest.mark.parametrize("language", ["sql", "plpgsql"])
@pytest.mark.parametrize(("grant", "expected"), [("UPDATE", {"public.profiles": "critical"}), ("UPDATE (name)", {})])
def test_functions_that_read_what_users_write(
    schema: Make, language: str, grant: str, expected: dict[str, str]
) -> None:
    body = "SELECT EXISTS (SELECT 1 FROM profiles WHERE id = me() AND is_staff)"
    if language == "plpgsql":
        body = f"BEGIN RETURN ({body}); END"
    made = schema(
        MEMBERS
        + PROFILES
        + "CREATE FUNCTION is_staff() RETURNS boolean "
        + DEFINER.format(language, body)
        + "ALTER POLICY staff ON projects USING (is_staff());"
        + f"GRANT SELECT, {grant} ON profiles TO app;"
    )
    assert levels(made, "RLS113") == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [(SHARES + SHARED.format("s.doc_id = docs.id"), {"public.shares": "critical"}),
     (SHARES + SHARED.format("s.doc_id = docs.id AND s.tenant_id = docs.tenant_id"), {}),
     (SHARES + SHARED.format("s.doc_id = docs.id")
      + "ALTER TABLE shares ADD FOREIGN KEY (tenant_id, doc_id) REFERENCES docs (tenant_id, id);", {}),
     (SHARES + SHARED.format("s.doc_id = docs.id") + "ALTER POLICY tenant ON shares WITH CHECK (tenant_id = tenant()"
      " AND EXISTS (SELECT FROM docs d WHERE d.id = doc_id AND d.tenant_id = tenant()));", {}),
     (SHARES + "CREATE FUNCTION shared(d int) RETURNS boolean " + DEFINER.format(
      "sql", "SELECT EXISTS (SELECT 1 FROM shares s WHERE s.doc_id = d AND s.shared_with = tenant())")
      + "CREATE POLICY shared ON docs FOR SELECT USING (shared(id));", {"public.shares": "critical"}),
     ("GRANT UPDATE ON tenants TO app; CREATE POLICY pro ON docs AS RESTRICTIVE"
      " USING (EXISTS (SELECT FROM tenants t WHERE t.id = docs.tenant_id AND t.plan = 'pro'));", {})],
)  # fmt: skip
def test_tenants_that_let_themselves_in(schema: Make, script: str, expected: dict[str, str]) -> None:
    assert levels(schema(TENANTS + script), "RLS113") == expected


@pytest.mark.parametrize(
    ("column", "condition", "expected"),
    [("expires_at timestamptz", "", "medium"), ("is_active boolean", "", "medium"),
     ("status text CHECK (status IN ('active', 'suspended'))", "", "medium"),
     ("status text CHECK (status IN ('gold', 'silver'))", "", None), ("joined_at timestamptz", "", None),
     ("status text", "AND status = 'active'", None), ("deleted_at timestamptz", "AND deleted_at IS NULL", None)],
)  # fmt: skip
def test_state_of_a_membership(schema: Make, column: str, condition: str, expected: str | None) -> None:
    made = schema(
        MEMBERS
        + f"ALTER TABLE members ADD COLUMN {column};"
        + "ALTER POLICY member ON projects"
        + f" USING (org_id IN (SELECT org_id FROM members WHERE user_id = me() {condition}));"
    )
    found = levels(made, "RLS116").get("public.members")
    assert found == expected or (expected is None and found == "low"), found


def test_state_of_a_parent_is_its_own_business(schema: Make) -> None:
    made = schema(
        MEMBERS
        + "ALTER TABLE projects ADD status text, ADD owner_id int; CREATE TABLE tasks (project_id int REFERENCES projects);"
        + "ALTER TABLE tasks ENABLE ROW LEVEL SECURITY; GRANT SELECT ON tasks TO app;"
        + "CREATE POLICY p ON tasks USING (EXISTS (SELECT FROM projects p WHERE p.id = project_id AND p.owner_id = me()));"
    )
    assert not made.of("RLS116")


@pytest.mark.parametrize(
    ("constraint", "fires"),
    [("CHECK (tenant <> '')", False), ("CHECK (length(tenant) > 0)", False), ("CHECK (tenant ~ '^[a-z]+$')", False),
     ("CHECK (btrim(tenant) <> '')", False), ("CHECK (tenant IN ('a', 'b'))", False), ("CHECK (tenant > '')", False),
     ("CHECK (tenant <> '') NOT VALID", True), ("CHECK (tenant <> '' OR title = 'x')", True),
     ("CHECK (length(tenant) >= 0 AND length(tenant) < 20)", True), ("CHECK (tenant ~ '^[a-z]*$')", True)],
)  # fmt: skip
def test_constraints_that_forbid_the_empty_key(schema: Make, constraint: str, fires: bool) -> None:
    made = schema(
        "CREATE ROLE app LOGIN; CREATE TABLE tickets (id int PRIMARY KEY, tenant text NOT NULL, title text);"
        "ALTER TABLE tickets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
        "CREATE POLICY tenant ON tickets USING (tenant = current_setting('app.tenant', true));"
        "GRANT SELECT, INSERT ON tickets TO app;" + f"ALTER TABLE tickets ADD {constraint};"
    )
    assert bool(made.of("RLS118")) == fires


@pytest.mark.parametrize(
    "claim",
    ["claims() #>> '{user_metadata,org_id}'", "jsonb_extract_path_text(claims(), 'user_metadata', 'org_id')",
     "claims() -> 'user_metadata' ->> 'org_id'", "(claims())['user_metadata']['org_id'] #>> '{}'",
     "current_setting('request.jwt.claim.user_metadata', true)::jsonb ->> 'org_id'"],
)  # fmt: skip
@pytest.mark.parametrize("metadata", ["user_metadata", "app_metadata"])
def test_claims_by_any_path(schema: Make, claim: str, metadata: str) -> None:
    made = schema(
        "CREATE ROLE app LOGIN; CREATE FUNCTION claims() RETURNS jsonb LANGUAGE sql STABLE"
        " AS $$ SELECT NULLIF(current_setting('request.jwt.claims', true), '')::jsonb $$;"
        "CREATE TABLE notes (org_id uuid NOT NULL); ALTER TABLE notes ENABLE ROW LEVEL SECURITY;"
        "GRANT SELECT ON notes TO app;"
        f"CREATE POLICY org ON notes USING (org_id = ({claim.replace('user_metadata', metadata)})::uuid);"
    )
    assert [f.severity for f in made.of("RLS115")] == (["critical"] if metadata == "user_metadata" else [])


@pytest.mark.parametrize(
    ("script", "expected"),
    [("CREATE TABLE rates (country text PRIMARY KEY, percent int); GRANT SELECT, UPDATE (percent) ON rates TO PUBLIC;", "high"),
     ("CREATE TABLE rates (country text PRIMARY KEY, percent int); GRANT SELECT, INSERT ON rates TO app;", "medium"),
     ("CREATE TABLE event_log (at timestamptz, what text); GRANT SELECT, INSERT ON event_log TO app;", "low"),
     ("CREATE TABLE rates (country text PRIMARY KEY); ALTER TABLE docs ADD country text REFERENCES rates ON DELETE CASCADE;"
      "GRANT DELETE ON rates TO app;", "high"),
     ("CREATE TABLE rates (country text PRIMARY KEY, percent int); ALTER TABLE rates ENABLE ROW LEVEL SECURITY;"
      "CREATE POLICY r ON rates FOR SELECT USING (true); GRANT SELECT, UPDATE ON rates TO app;", None)],
)  # fmt: skip
def test_shared_tables(schema: Make, script: str, expected: str | None) -> None:
    assert list(levels(schema(TENANTS + script), "RLS117").values()) == ([expected] if expected else [])
