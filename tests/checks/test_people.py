"""Users, operators, and tenants that rows are shared with: what they may reach, and what they are let into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]

BASE = """
CREATE ROLE app LOGIN;
CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;
CREATE FUNCTION me() RETURNS int LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('app.user_id', true), '')::int $$;
CREATE TABLE invoices (id int PRIMARY KEY, tenant_id int NOT NULL, amount int);
ALTER TABLE invoices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON invoices USING (tenant_id = tenant());
GRANT SELECT, INSERT, UPDATE, DELETE ON invoices TO app;
"""
PROTECT = "ALTER TABLE {0} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
OPERATORS = """
CREATE TABLE operators (user_id int PRIMARY KEY, since date);
CREATE POLICY operators ON invoices FOR SELECT USING (EXISTS (SELECT FROM operators o WHERE o.user_id = me()));
"""


def levels(made: Any, *checks: str) -> set[tuple[str, str]]:
    return {(one.check, one.severity) for one in made.findings() if one.check in checks}


@pytest.mark.parametrize(
    ("script", "expected"),
    [("", {("RLS102", "low")}), ("GRANT SELECT ON operators TO app;", {("RLS102", "low"), ("RLS001", "low")}),
     ("GRANT SELECT, INSERT ON operators TO app;", {("RLS102", "critical"), ("RLS001", "high")}),
     ("ALTER TABLE operators ADD email text; GRANT SELECT ON operators TO app;", {("RLS102", "low"), ("RLS001", "high")}),
     ("GRANT UPDATE (since) ON operators TO app;", {("RLS102", "low"), ("RLS001", "high")}),
     (PROTECT.format("operators") + "GRANT INSERT ON operators TO app;", {("RLS102", "low")}),
     (PROTECT.format("operators") + "GRANT INSERT ON operators TO app; CREATE POLICY own ON operators USING (user_id = me());",
      {("RLS102", "critical")}),
     # A table of all users, and one tenant's own administrators, are no lists of operators.
     ("ALTER TABLE operators ADD tenant_id int NOT NULL;", {("RLS102", "critical")}),
     ("CREATE TABLE marks (user_id int REFERENCES operators);", {("RLS102", "critical")})],
)  # fmt: skip
def test_operators_are_let_in_on_purpose_unless_they_enrol_themselves(
    schema: Make, script: str, expected: set[tuple[str, str]]
) -> None:
    made = schema(BASE + OPERATORS + script)
    found = {(one.check, one.severity) for one in made.findings() if one.check in ("RLS102", "RLS001")}
    assert {one for one in found if one[1] != "info"} == expected


USERS = "CREATE TABLE users ({0}); GRANT SELECT ON users TO app; CREATE POLICY tenant ON users USING (tenant_id = tenant());"
DOCS = """
CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL, user_id int NOT NULL, UNIQUE (tenant_id, user_id), {0});
CREATE POLICY p ON docs USING (tenant_id = tenant() OR user_id = me()) WITH CHECK (tenant_id = tenant());
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO app;
"""
WITH_KEY, ALONE = (
    "FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)",
    "FOREIGN KEY (user_id) REFERENCES users",
)


@pytest.mark.parametrize(
    ("users", "reference", "expected"),
    [("tenant_id int NOT NULL, id int, PRIMARY KEY (tenant_id, id)", WITH_KEY, "high"),
     ("tenant_id int NOT NULL, id serial, PRIMARY KEY (tenant_id, id)", WITH_KEY, None),
     ("tenant_id int NOT NULL, id int PRIMARY KEY, UNIQUE (tenant_id, id)", WITH_KEY, None),
     ("tenant_id int NOT NULL, id int PRIMARY KEY", ALONE, None)],
)  # fmt: skip
@pytest.mark.parametrize("paired", [True, False])
def test_users_by_what_their_ids_tell(
    schema: Make, users: str, reference: str, expected: str | None, paired: bool
) -> None:
    docs = DOCS if paired else DOCS.replace("UNIQUE (tenant_id, user_id), ", "")
    made = schema(
        BASE + USERS.format(users) + docs.format(reference) + PROTECT.format("users") + PROTECT.format("docs")
    )
    found = [one.severity for one in made.of("RLS102")]
    usual = [] if paired else ["high"] if "serial" in users else ["low"]
    assert found == ([expected] if expected else usual)


@pytest.mark.parametrize(("check", "expected"), [("", "high"), (" WITH CHECK (tenant_id = tenant())", "low")])
def test_a_user_who_moves_himself_is_found_though_he_may_see_himself(schema: Make, check: str, expected: str) -> None:
    script = "CREATE TABLE users (id int PRIMARY KEY, tenant_id int NOT NULL); GRANT SELECT, UPDATE ON users TO app;"
    script += f"CREATE POLICY p ON users USING (tenant_id = tenant() OR id = me()){check};" + PROTECT.format("users")
    assert levels(schema(BASE + script), "RLS102", "RLS105") == {("RLS102", expected)}


MEMBERS = """
CREATE TABLE members (tenant_id int NOT NULL, user_id int NOT NULL, PRIMARY KEY (tenant_id, user_id));
ALTER TABLE members ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON members USING (user_id = me());
GRANT SELECT, INSERT ON members TO app;
"""
ENTER = """
CREATE FUNCTION enter(t int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  IF NOT EXISTS (SELECT FROM public.members m WHERE m.tenant_id = t AND m.user_id = public.me()) THEN RAISE 'no'; END IF;
  PERFORM set_config('app.tenant_id', t::text, true); END $$;
"""


@pytest.mark.parametrize(("script", "expected"), [("", "medium"), (ENTER, "critical")])
def test_a_user_who_adds_himself_where_the_context_is_checked(schema: Make, script: str, expected: str) -> None:
    assert levels(schema(BASE + MEMBERS + script), "RLS104") == {("RLS104", expected)}


SHARES = """
CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL, body text, UNIQUE (tenant_id, id));
CREATE TABLE shares (tenant_id int NOT NULL, doc_id int NOT NULL, shared_with int NOT NULL,
  FOREIGN KEY (tenant_id, doc_id) REFERENCES docs (tenant_id, id));
CREATE POLICY tenant ON docs USING (tenant_id = tenant());
CREATE POLICY tenant ON shares USING (tenant_id = tenant());
CREATE POLICY taker ON shares FOR SELECT USING (shared_with = tenant());
GRANT SELECT, INSERT ON shares TO app; GRANT SELECT, INSERT ON docs TO app;
"""
SHARED = "EXISTS (SELECT FROM shares s WHERE s.doc_id = docs.id AND s.shared_with = tenant())"
DELEGATED = "tenant_id IN (SELECT s.tenant_id FROM shares s WHERE s.shared_with = tenant())"


@pytest.mark.parametrize("condition", [SHARED, DELEGATED])
@pytest.mark.parametrize(
    ("command", "grant", "also", "expected"),
    [("ALL", "UPDATE, DELETE", "", "medium"), ("ALL", "DELETE", "", "medium"), ("ALL", "UPDATE", "", "medium"),
     ("ALL", "UPDATE (body)", "", None), ("ALL", "SELECT", "", None), ("SELECT", "UPDATE, DELETE", "", None),
     ("DELETE", "DELETE", "", "low"), ("ALL", "UPDATE, DELETE", " AND tenant_id = tenant()", None)],
)  # fmt: skip
def test_what_a_share_lets_the_other_tenant_do(
    schema: Make, condition: str, command: str, grant: str, also: str, expected: str | None
) -> None:
    policy = f"CREATE POLICY shared ON docs FOR {command} USING ({condition}{also}); GRANT {grant} ON docs TO app;"
    made = schema(BASE + SHARES + PROTECT.format("docs") + PROTECT.format("shares") + policy)
    found = [one for one in made.of("RLS114") if one.object == "public.docs"]
    assert [one.severity for one in found] == ([expected] if expected else [])
    for one in found:
        made.execute(one.fix)
    assert not [one for one in made.of("RLS114") if one.object == "public.docs"]


GUARD = """
CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {0} RETURN NEW; END $$;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON invoices FOR EACH ROW EXECUTE FUNCTION guard();
"""
REFUSES = "IF NEW.tenant_id <> public.tenant() THEN RAISE EXCEPTION 'not yours'; END IF;"
WRITES = "NEW.tenant_id := public.tenant();"


@pytest.mark.parametrize("state", ["DISABLE", "ENABLE REPLICA"])
@pytest.mark.parametrize(
    ("body", "script", "expected"),
    [(REFUSES, "ALTER POLICY tenant ON invoices WITH CHECK (amount > 0);", "medium"),
     (WRITES, "ALTER POLICY tenant ON invoices WITH CHECK (amount > 0);", "medium"), (REFUSES, "", "low"),
     ("RAISE NOTICE 'a row of %', NEW.tenant_id;", "", None), ("IF NEW.amount < 0 THEN RAISE 'no'; END IF;", "", None),
     (REFUSES, "REVOKE INSERT, UPDATE ON invoices FROM app;", None),
     (REFUSES, "CREATE TRIGGER other BEFORE INSERT OR UPDATE ON invoices FOR EACH ROW EXECUTE FUNCTION guard();", None)],
)  # fmt: skip
def test_guards_that_do_not_fire(schema: Make, state: str, body: str, script: str, expected: str | None) -> None:
    made = schema(BASE + GUARD.format(body) + script)
    assert not made.of("RLS318")
    made.execute(f"ALTER TABLE invoices {state} TRIGGER guard")
    assert [one.severity for one in made.of("RLS318")] == ([expected] if expected else [])
