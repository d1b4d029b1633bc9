"""Bodies of functions and triggers: what is held against the session, and what only looks like it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._query import queries
from rlsaudit.checks._sql import parse
from rlsaudit.checks._statements import statements

from rlsaudit.catalog.load import load_catalog
from rlsaudit.check import run_checks
from rlsaudit.finding import at_least
from rlsaudit.tenancy.infer import Declared, infer

Make = Callable[..., Any]
ME = "NULLIF(current_setting('app.tenant_id', true), '')::int"
TABLES = (
    SOUND
    + """
CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;
CREATE TABLE members (user_name text NOT NULL, tenant_id int NOT NULL, role text, PRIMARY KEY (user_name, tenant_id));
ALTER TABLE members ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON members USING (user_name = current_setting('app.user', true));
CREATE TABLE links (id int PRIMARY KEY, tenant_id int NOT NULL, invoice_id int NOT NULL REFERENCES invoices, share_token text);
ALTER TABLE links ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON links USING (tenant_id = tenant());
ALTER TABLE invoices ADD note text;
GRANT SELECT, INSERT, UPDATE, DELETE ON links TO app; GRANT SELECT ON members TO app;
CREATE FUNCTION member_of(t int) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
  $$ SELECT EXISTS (SELECT FROM public.members m WHERE m.tenant_id = t AND m.user_name = current_setting('app.user', true)) $$;
CREATE FUNCTION must_be_member(t int) RETURNS void LANGUAGE plpgsql STABLE AS
  $$ BEGIN IF NOT public.member_of(t) THEN RAISE EXCEPTION 'no'; END IF; END $$;
"""
)
ROWS = (
    "CREATE FUNCTION f({arguments}) RETURNS SETOF public.invoices LANGUAGE {language} SECURITY DEFINER"
    " SET search_path = pg_catalog, pg_temp AS $f$ {body} $f$;"
)
SHORT = {
    "<all>": "SELECT * FROM public.invoices",
    "<i>": "SELECT i.* FROM public.invoices i",
    "<members>": "public.members m WHERE",
}


def function(body: str, arguments: str = "p int, q text") -> str:
    language = "plpgsql" if body.lstrip().upper().startswith(("BEGIN", "DECLARE")) else "sql"
    for short, long in SHORT.items():
        body = body.replace(short, long)
    return ROWS.format(arguments=arguments, language=language, body=body)


BOUND = [
    "<all> WHERE tenant_id = public.tenant()",
    "<all> i WHERE i.tenant_id IS NOT DISTINCT FROM public.tenant() AND (q IS NULL OR i.note = q)",
    f"<all> WHERE (tenant_id, id) = ({ME}, p)",
    f"SELECT i.* FROM public.customers c JOIN public.invoices i USING (tenant_id) WHERE c.tenant_id = {ME}",
    f"SELECT i.* FROM public.customers c, public.invoices i WHERE c.tenant_id = {ME} AND i.tenant_id = c.tenant_id",
    f"<i> LEFT JOIN public.links l ON l.invoice_id = i.id AND l.tenant_id = {ME} WHERE {ME} = i.tenant_id",
    "<all> i WHERE i.tenant_id IN (SELECT m.tenant_id FROM <members> m.user_name = current_setting('app.user', true))",
    "<all> i WHERE EXISTS (SELECT FROM <members> m.tenant_id = i.tenant_id AND m.user_name = session_user)",
    "<all> WHERE tenant_id = p AND p = public.tenant()",
    "<all> WHERE tenant_id = p AND public.member_of(p)",
    "<all> i WHERE public.member_of(i.tenant_id)",
    f"WITH mine AS (<all>) SELECT * FROM mine WHERE mine.tenant_id = {ME}",
    f"WITH mine AS (<all> WHERE tenant_id = {ME}) SELECT * FROM mine",
    f"SELECT x.* FROM (<all>) x WHERE x.tenant_id = {ME}",
    "SELECT i.* FROM public.links l JOIN public.invoices i ON i.id = l.invoice_id WHERE l.share_token = q",
    "BEGIN IF NOT public.member_of(p) THEN RAISE EXCEPTION 'no'; END IF; RETURN QUERY <all> WHERE tenant_id = p; END",
    "BEGIN PERFORM public.must_be_member(p); RETURN QUERY <all> WHERE tenant_id = p; END",
    "BEGIN IF p IS DISTINCT FROM public.tenant() THEN RETURN; END IF; RETURN QUERY <all> WHERE tenant_id = p; END",
    "DECLARE me int := public.tenant(); BEGIN RETURN QUERY <all> WHERE tenant_id = me; END",
    "DECLARE me int; BEGIN SELECT m.tenant_id INTO me FROM <members> m.user_name = session_user;"
    " RETURN QUERY <all> WHERE tenant_id = me; END",
    "DECLARE r record; BEGIN SELECT * INTO r FROM public.invoices WHERE id = p;"
    " IF r.tenant_id <> public.tenant() THEN RAISE EXCEPTION 'no'; END IF; RETURN QUERY <all> WHERE id = p; END",
    "DECLARE what text; BEGIN SELECT role INTO what FROM <members> m.tenant_id = p AND m.user_name = session_user;"
    " IF what IS NULL THEN RAISE EXCEPTION 'no'; END IF; RETURN QUERY <all> WHERE tenant_id = p; END",
    "BEGIN PERFORM 1 FROM <members> m.tenant_id = p AND m.user_name = session_user;"
    " IF NOT FOUND THEN RAISE EXCEPTION 'no'; END IF; RETURN QUERY <all> WHERE tenant_id = p; END",
    "DECLARE r record; BEGIN FOR r IN <all> WHERE tenant_id = public.tenant() LOOP"
    " UPDATE public.links SET share_token = 'x' WHERE invoice_id = r.id; END LOOP; END",
    "BEGIN RETURN QUERY EXECUTE format('<all> WHERE tenant_id = %L AND note = %L', public.tenant(), q); END",
    "BEGIN -- <all>;\n /* DELETE FROM public.invoices; */ RAISE NOTICE '<all>'; END",
    f"INSERT INTO public.invoices (id, tenant_id, amount) VALUES (p, {ME}, 1) ON CONFLICT (id) DO NOTHING RETURNING *",
    f"UPDATE public.invoices i SET amount = 1 FROM public.customers c WHERE c.tenant_id = i.tenant_id AND c.tenant_id = {ME} RETURNING i.*",
    f"<all> WHERE tenant_id = {ME} AND id = 1 UNION ALL <all> WHERE tenant_id = {ME}",
]
LOOSE = [
    "<all>",
    "<all> WHERE tenant_id = p",
    "<all> WHERE tenant_id = $1",
    f"<all> WHERE tenant_id <> {ME}",
    f"<all> WHERE tenant_id = COALESCE(p, {ME})",
    f"<all> WHERE tenant_id = COALESCE({ME}, tenant_id)",
    f"<all> WHERE tenant_id = {ME} OR q = 'all'",
    f"<all> WHERE {ME} IS NULL OR tenant_id = {ME}",
    f"<all> WHERE id = p AND {ME} IS NOT NULL",
    f"<i> LEFT JOIN public.customers c ON c.tenant_id = i.tenant_id AND c.tenant_id = {ME}",
    f"SELECT i.* FROM public.customers c, public.invoices i WHERE c.tenant_id = {ME} AND i.amount = c.id",
    "<all> i WHERE NOT EXISTS (SELECT FROM <members> m.tenant_id = i.tenant_id AND m.user_name = session_user)",
    "<all> i WHERE i.tenant_id IN (SELECT m.tenant_id FROM <members> m.user_name = q)",
    f"<all> WHERE tenant_id = {ME} UNION ALL <all> WHERE id = p",
    f"<all> WHERE tenant_id IN ({ME}, p)",
    f"<all> /* WHERE tenant_id = {ME} */",
    f"<all> WHERE note = 'tenant_id = {ME.replace(chr(39), chr(39) * 2)}'",
    "BEGIN IF current_setting('app.tenant_id', true) IS NULL THEN RAISE EXCEPTION 'no'; END IF; RETURN QUERY <all>; END",
    "BEGIN IF p IS NULL OR current_setting('app.tenant_id') = '' THEN RETURN; END IF; RETURN QUERY <all> WHERE tenant_id = p; END",
    "DECLARE me int := p; BEGIN RETURN QUERY <all> WHERE tenant_id = me; END",
    "BEGIN PERFORM public.must_be_member(p); RETURN QUERY <all> WHERE note = q; END",
    "BEGIN PERFORM set_config('app.tenant_id', q, true); RETURN QUERY <all> WHERE tenant_id = current_setting('app.tenant_id')::int; END",
    "BEGIN RETURN QUERY EXECUTE '<all> WHERE id = $1' USING p; END",
    "BEGIN RETURN QUERY EXECUTE format('<all> WHERE tenant_id = %L', p); END",
    "DECLARE v text := '<all>'; BEGIN v := v || ' WHERE tenant_id = $1'; RETURN QUERY EXECUTE v USING p; END",
    "INSERT INTO public.invoices (id, tenant_id, amount) VALUES (1, p, 1) RETURNING *",
    "INSERT INTO public.invoices SELECT id, p, amount FROM public.invoices WHERE tenant_id = public.tenant() RETURNING *",
    f"DELETE FROM public.invoices i USING public.customers c WHERE c.tenant_id = {ME} AND i.id = p RETURNING i.*",
    "UPDATE public.invoices SET amount = 0 WHERE id = ANY (ARRAY[p]) RETURNING *",
    f"WITH gone AS (DELETE FROM public.links WHERE id = p RETURNING *) <all> WHERE tenant_id = {ME}",
    f"<all> WHERE tenant_id = {ME} AND amount > (SELECT max(amount) FROM public.invoices WHERE tenant_id = p)",
]  # fmt: skip


@pytest.mark.parametrize("body", BOUND)
def test_a_body_that_holds_rows_against_the_session_is_quiet(schema: Make, body: str) -> None:
    found = [
        f
        for f in schema(TABLES + function(body)).findings()
        if f.check[:4] == "RLS3" and at_least(f.severity, "medium")
    ]
    assert not found, [(f.check, f.severity, f.message) for f in found]


@pytest.mark.parametrize("body", LOOSE)
def test_a_body_that_does_not_is_found(schema: Make, body: str) -> None:
    found = schema(TABLES + function(body)).of("RLS302")
    assert [f.severity for f in found if f.object.startswith("public.f(")] == ["critical"], [
        (f.object, f.message) for f in found
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [("'SELECT * FROM public.invoices WHERE note = ''' || q || ''''", "critical"),
     ("format('SELECT * FROM public.invoices WHERE note = %s', q)", "critical"),
     ("format('SELECT * FROM public.invoices WHERE note = %2$s', p, q)", "critical"),
     ("concat('SELECT * FROM public.invoices ORDER BY ', q)", "critical"),
     (f"'SELECT * FROM public.invoices WHERE tenant_id = ' || {ME} || ' ORDER BY ' || quote_ident(q)", None),
     (f"'SELECT * FROM public.invoices WHERE tenant_id = ' || {ME} || ' AND id = ' || p", None),
     (f"format('SELECT * FROM public.invoices WHERE tenant_id = %L AND note = %L LIMIT %s', {ME}, q, p)", None),
     (f"'SELECT * FROM public.invoices WHERE tenant_id = ' || {ME} || ' ORDER BY ' || CASE q WHEN 'a' THEN 'amount' ELSE 'id' END", None),
     ("format('SELECT * FROM public.%I', q)", "critical"),
     (f"format('SELECT * FROM public.%I WHERE tenant_id = %L', q, {ME})", None)],
)  # fmt: skip
def test_text_that_becomes_sql(schema: Make, body: str, expected: str | None) -> None:
    made = schema(TABLES + function(f"BEGIN RETURN QUERY EXECUTE {body}; END"))
    found = [f.severity for f in made.of("RLS311")]
    assert found == ([expected] if expected else [])


TRIGGER = (
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$"
    " BEGIN {body}; RETURN NEW; END $f$; CREATE TRIGGER f {when} ON {table} FOR EACH ROW EXECUTE FUNCTION f();"
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [("UPDATE public.invoices SET amount = 0 WHERE id = NEW.invoice_id", "high"),
     ("UPDATE public.invoices SET amount = 0 WHERE id = NEW.invoice_id AND tenant_id = NEW.tenant_id", None),
     ("DELETE FROM public.links WHERE invoice_id = NEW.invoice_id AND tenant_id = COALESCE(NEW.tenant_id, OLD.tenant_id)", None),
     ("INSERT INTO public.customers (id, tenant_id, name) SELECT 1, c.id, 'x' FROM public.customers c", "high"),
     ("INSERT INTO public.customers (id, tenant_id, name) VALUES (1, NEW.id, 'x')", None),
     ("INSERT INTO public.customers (id, tenant_id, name) VALUES (1, NEW.invoice_id, 'x')", "high"),
     ("INSERT INTO public.customers (id, tenant_id, name) VALUES (1, NEW.tenant_id, NEW.share_token)", None),
     ("SELECT i.note INTO NEW.share_token FROM public.invoices i WHERE i.id = NEW.invoice_id", "high"),
     ("IF EXISTS (SELECT FROM public.links l WHERE l.share_token = NEW.share_token) THEN RAISE EXCEPTION 'taken'; END IF", None),
     ("IF EXISTS (SELECT FROM public.invoices i WHERE i.note = NEW.share_token) THEN RAISE EXCEPTION 'taken'; END IF", "medium"),
     ("IF EXISTS (SELECT FROM public.invoices i WHERE i.note = NEW.share_token AND i.tenant_id = NEW.tenant_id)"
      " THEN RAISE EXCEPTION 'taken'; END IF", None)],
)  # fmt: skip
def test_definer_triggers(schema: Make, body: str, expected: str | None) -> None:
    made = schema(TABLES + TRIGGER.format(body=body, when="BEFORE INSERT OR UPDATE", table="public.links"))
    assert [f.severity for f in made.of("RLS313") if at_least(f.severity, "medium")] == ([expected] if expected else [])


def test_a_trigger_that_no_application_role_fires_is_quiet(schema: Make) -> None:
    body = "UPDATE public.invoices SET amount = 0 WHERE id = NEW.invoice_id"
    made = schema(TABLES + TRIGGER.format(body=body, when="AFTER INSERT", table="public.links"))
    made.execute("REVOKE ALL ON links FROM app")
    assert not made.of("RLS313")


@pytest.mark.parametrize(
    ("body", "fired"),
    [("IF NEW.tenant_id <> tenant() THEN RAISE EXCEPTION 'no'; END IF", False),
     ("NEW.tenant_id := tenant()", False),
     ("IF tenant() IS NULL THEN RAISE NOTICE 'no'; END IF; NEW.note := tenant()::text", True),
     ("IF current_setting('app.tenant_id', true) IS NULL THEN RAISE EXCEPTION 'no'; END IF", True)],
)  # fmt: skip
@pytest.mark.parametrize("condition", ["", "WHEN (NEW.amount > 10)"])
def test_what_a_guard_trigger_really_refuses(schema: Make, body: str, fired: bool, condition: str) -> None:
    made = schema(
        TABLES
        + "DROP POLICY tenant ON invoices; CREATE POLICY r ON invoices FOR SELECT USING (tenant_id = tenant());"
        + "CREATE POLICY w ON invoices FOR INSERT WITH CHECK (true);"
        + f"CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body.replace('tenant()', ME)}; RETURN NEW; END $$;"
        + f"CREATE TRIGGER g BEFORE INSERT ON invoices FOR EACH ROW {condition} EXECUTE FUNCTION g();"
    )
    assert [f.severity for f in made.of("RLS104")] == (["critical"] if fired or condition else ["info"])


@pytest.mark.parametrize(
    ("path", "table", "more", "expected"),
    [("", "invoices", "", "high"), ("SET search_path = public", "invoices", "", "high"),
     ("SET search_path = pg_temp, public", "invoices", "", "high"),
     ("SET search_path = public, pg_temp", "invoices", "", None), ("", "public.invoices", "", None),
     ("SET search_path = public", "invoices", "REVOKE TEMP ON DATABASE {database} FROM PUBLIC;", None),
     ("SET search_path = public, pg_temp", "invoices", "GRANT CREATE ON SCHEMA public TO app;", None),
     ("SET search_path = desk, public, pg_temp", "invoices", "CREATE SCHEMA desk; GRANT ALL ON SCHEMA desk TO app;", "high"),
     ("", "public.invoices", "CREATE SCHEMA desk; GRANT ALL ON SCHEMA desk TO app;", "medium")],
)  # fmt: skip
def test_names_that_a_caller_can_take_over(
    schema: Make, path: str, table: str, more: str, expected: str | None
) -> None:
    made = schema(
        TABLES + f"CREATE FUNCTION f() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER {path}"
        f" AS $$ SELECT sum(amount) FROM {table} WHERE tenant_id = {ME} $$;"
    )
    made.execute(more.format(database=made.connection.info.dbname))
    found = [f.severity for f in made.of("RLS312") if f.object == "public.f()" and at_least(f.severity, "medium")]
    assert found == ([expected] if expected else [])


def test_an_invoker_helper_of_a_policy_can_be_taken_over(schema: Make) -> None:
    made = schema(
        TABLES
        + "CREATE FUNCTION mine() RETURNS SETOF int LANGUAGE sql STABLE AS"
        + " $$ SELECT tenant_id FROM members WHERE user_name = current_setting('app.user', true) $$;"
        + "CREATE POLICY more ON invoices USING (tenant_id IN (SELECT mine()));"
        + "CREATE FUNCTION fixed() RETURNS SETOF int LANGUAGE sql STABLE BEGIN ATOMIC"
        + " SELECT tenant_id FROM members WHERE user_name = current_setting('app.user', true); END;"
        + "CREATE POLICY also ON invoices USING (tenant_id IN (SELECT fixed()));"
    )
    assert [(f.object, f.severity) for f in made.of("RLS312")] == [("public.mine()", "high")]


def test_the_body_of_an_atomic_function_is_read(schema: Make) -> None:
    made = schema(
        TABLES
        + "CREATE FUNCTION f(tenant_id int) RETURNS SETOF invoices SECURITY DEFINER BEGIN ATOMIC"
        + " SELECT * FROM invoices WHERE invoices.tenant_id = f.tenant_id; END;"
        + "CREATE FUNCTION g() RETURNS SETOF invoices SECURITY DEFINER BEGIN ATOMIC"
        + f" SELECT * FROM invoices WHERE tenant_id = {ME}; END;"
        + "CREATE FUNCTION h(tenant_id int) RETURNS SETOF invoices SECURITY DEFINER BEGIN ATOMIC"
        + " SELECT * FROM invoices i WHERE i.tenant_id = tenant_id; END;"
    )
    assert {f.object: f.severity for f in made.of("RLS302") if f.severity != "info"} == {
        "public.f(integer)": "critical"
    }
    assert [(f.object, f.severity) for f in made.of("RLS310")] == [("public.h(integer)", "critical")]


def test_a_policy_for_the_owner_alone_is_a_door_as_well(schema: Make) -> None:
    made = schema(
        TABLES
        + function("<all>")
        + "GRANT SELECT, UPDATE ON invoices TO keeper; ALTER FUNCTION f(int, text) OWNER TO keeper;"
    )
    assert not [f for f in made.of("RLS302") if f.object.startswith("public.f(")]
    made.execute("CREATE POLICY maintenance ON invoices TO keeper USING (true)")
    assert [f.severity for f in made.of("RLS302") if f.object.startswith("public.f(")] == ["critical"]


def test_statements_are_split_by_their_structure() -> None:
    found = statements("BEGIN IF a THEN x := 'a;b'; ELSE y := $$c;d$$; END IF; END", "plpgsql")
    assert [(one.kind, one.targets) for one in found] == [
        ("condition", ()), ("assign", ("x",)), ("assign", ("y",)), ("end", ()), ("end", ()),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "language", "used", "expected"),
    [("SELECT EXISTS (SELECT FROM public.members m WHERE m.tenant_id = tenant_id AND m.user_name = session_user)", "sql", True, "critical"),
     ("SELECT EXISTS (SELECT FROM public.members WHERE tenant_id = members.tenant_id AND role = session_user)", "sql", True, "critical"),
     ("SELECT EXISTS (SELECT FROM public.members m WHERE m.tenant_id = f.tenant_id AND m.user_name = session_user)", "sql", True, None),
     ("SELECT EXISTS (SELECT FROM public.members m WHERE m.tenant_id = $1 AND m.user_name = session_user)", "sql", True, None),
     ("#variable_conflict use_column\nBEGIN RETURN EXISTS (SELECT FROM public.members m WHERE m.tenant_id = tenant_id"
      " AND m.user_name = session_user); END", "plpgsql", True, "critical"),
     ("#variable_conflict use_variable\nBEGIN RETURN EXISTS (SELECT FROM public.members m WHERE m.tenant_id = tenant_id"
      " AND m.user_name = session_user); END", "plpgsql", True, None),
     ("SELECT EXISTS (SELECT FROM public.members m WHERE m.tenant_id = tenant_id AND m.user_name = session_user)", "sql", False, "low")],
)  # fmt: skip
def test_an_argument_behind_a_column(schema: Make, body: str, language: str, used: bool, expected: str | None) -> None:
    made = schema(
        TABLES + f"CREATE FUNCTION f(tenant_id int) RETURNS boolean LANGUAGE {language} STABLE AS $f$ {body} $f$;"
    )
    if used:
        made.execute("DROP POLICY tenant ON invoices; CREATE POLICY p ON invoices USING (f(tenant_id))")
    found = made.of("RLS310")
    assert [f.severity for f in found] == ([expected] if expected else [])
    for one in found:
        made.execute(one.fix)
    assert not made.of("RLS310")


@pytest.mark.parametrize(
    ("body", "language", "expected"),
    [("SELECT $1 = $2", "sql", "low"), ("SELECT $1::int = $2::int", "sql", "medium"), ("SELECT length($1) / 2 > 1", "sql", "medium"),
     ("BEGIN RAISE NOTICE '%', a; RETURN true; END", "plpgsql", "high"),
     ("BEGIN INSERT INTO seen VALUES (a); RETURN true; END", "plpgsql", "high")],
)  # fmt: skip
def test_leakproof(schema: Make, body: str, language: str, expected: str) -> None:
    made = schema(
        TABLES + f"CREATE FUNCTION f(a text, b text) RETURNS boolean LANGUAGE {language} LEAKPROOF AS $f$ {body} $f$;"
    )
    assert [f.severity for f in made.of("RLS316")] == [expected]
    made.execute("REVOKE EXECUTE ON FUNCTION f FROM PUBLIC")
    assert not made.of("RLS316")


@pytest.mark.parametrize(
    ("use", "found"),
    [("CREATE POLICY p ON invoices AS RESTRICTIVE USING (inner_one() IS NOT NULL);", True),
     ("CREATE FUNCTION outer_one() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN public.inner_one(); END $$;"
      "CREATE POLICY p ON invoices AS RESTRICTIVE USING (outer_one() IS NOT NULL);", True),
     ("CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.amount := inner_one(); RETURN NEW; END $$;"
      "CREATE TRIGGER t BEFORE INSERT ON invoices FOR EACH ROW EXECUTE FUNCTION t();", True),
     ("CREATE TABLE other (id int); ", False)],
)  # fmt: skip
def test_a_function_that_the_application_may_replace(schema: Make, use: str, found: bool) -> None:
    made = schema(TABLES + "CREATE FUNCTION inner_one() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;" + use)
    made.execute("ALTER FUNCTION inner_one() OWNER TO keeper; GRANT keeper TO app")
    assert [f.severity for f in made.of("RLS314")] == (["high"] if found else [])
    made.execute("REVOKE keeper FROM app")
    assert not made.of("RLS314")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        ")",
        "SELECT (",
        "WITH a AS",
        "INSERT INTO",
        "SELECT FROM WHERE",
        "'",
        '"',
        "$$",
        "/*",
        "UPDATE SET",
        "SELECT * FROM a JOIN ON",
    ],
)
def test_broken_text_is_no_crash(text: str) -> None:
    queries(parse(text))
    statements(text, "plpgsql")


@pytest.mark.parametrize(
    "piece",
    ["INSERT INTO a VALUES (1); ", "+-", "((", "f(", "$a$ $b$ ", "SELECT 1 FROM a WHERE EXISTS (", "JOIN b ON a.x = b.x ",
     "AND (a = b OR c = d) ", "IF a THEN "],
)  # fmt: skip
@pytest.mark.parametrize("size", [15_000, 1_000_000])
def test_an_absurd_body_costs_little_and_is_still_told(schema: Make, piece: str, size: int) -> None:
    body = f"SELECT * INTO a FROM public.invoices {piece * (size // len(piece))}; RETURN;"
    made = schema(
        f"{SOUND} SET check_function_bodies = off;" + ROWS.format(arguments="t int", language="plpgsql", body=body)
    )
    catalog = load_catalog(made.connection)
    tenancy = infer(catalog, Declared(roles=("app",)))
    started = time.process_time()
    found = run_checks(catalog, tenancy)
    assert time.process_time() - started < 2  # about half of one on a machine of its own
    assert not [f.message for f in found if f.title == "Check crashed"]
    assert [f.severity for f in found if f.check == "RLS302"] in (["critical"], ["high"])
