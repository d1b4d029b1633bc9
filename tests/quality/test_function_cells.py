"""Functions have cells: what leaks through them in any shape is found, and what was not tried is no pass."""

from __future__ import annotations

import pytest

BASE = """
CREATE ROLE x_app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE docs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
CREATE POLICY p ON docs USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT ON tenants TO x_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO x_app;
"""
OWN = "tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int"
SET = "current_setting('app.tenant_id', true) <> ''"
DEFINER = "SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp"

SHAPES = {
    "upper": ("f() RETURNS SETOF text", "SELECT upper(body) FROM docs WHERE {}"),
    "reversed": ("f() RETURNS SETOF text", "SELECT reverse(body) FROM docs WHERE {}"),
    "md5": ("f() RETURNS SETOF text", "SELECT md5(body) FROM docs WHERE {}"),
    "base64": ("f() RETURNS SETOF text", "SELECT encode(body::bytea, 'base64') FROM docs WHERE {}"),
    "hex": ("f() RETURNS SETOF text", "SELECT encode(body::bytea, 'hex') FROM docs WHERE {}"),
    "bytea": ("f() RETURNS SETOF bytea", "SELECT body::bytea FROM docs WHERE {}"),
    "array": ("f() RETURNS text[]", "SELECT array_agg(body) FROM docs WHERE {}"),
    "json": ("f() RETURNS jsonb", "SELECT jsonb_agg(d) FROM docs d WHERE {}"),
    "record": ("f() RETURNS SETOF record", "SELECT id, body FROM docs WHERE {}"),
    "OUT parameters": ("f(OUT a int, OUT b text)", "SELECT id, body FROM docs WHERE {} ORDER BY id DESC LIMIT 1"),
}


@pytest.mark.parametrize(("condition", "state"), [(SET, "leak"), (OWN, "held")])
def test_result_of_any_shape(schema, condition, state) -> None:
    made = [
        f"CREATE FUNCTION f{number}{head.removeprefix('f')} LANGUAGE sql STABLE {DEFINER} AS $$ {body.format(condition)} $$;"
        for number, (head, body) in enumerate(SHAPES.values())
    ]
    result = schema(BASE + "".join(made)).probe()
    cells = {cell.relation.partition("(")[0]: cell.state for cell in result.cells if cell.command == "EXECUTE"}
    assert {shape: cells[f"public.f{number}"] for number, shape in enumerate(SHAPES)} == dict.fromkeys(SHAPES, state)
    assert [(f.property, f.confirmed) for f in result.findings] == [("read", True)] * len(SHAPES) * (state == "leak")


CURSORS = {
    "returned": "f() RETURNS refcursor LANGUAGE plpgsql {definer} AS $$ DECLARE c refcursor; BEGIN "
    "OPEN c FOR SELECT * FROM docs WHERE {where}; RETURN c; END $$",
    "several": "f() RETURNS SETOF refcursor LANGUAGE plpgsql {definer} AS $$ DECLARE a refcursor; b refcursor := 'two'; BEGIN "
    "OPEN a FOR SELECT 1; RETURN NEXT a; OPEN b FOR SELECT * FROM docs WHERE {where}; RETURN NEXT b; END $$",
    "named by the caller": "f(c refcursor) RETURNS refcursor LANGUAGE plpgsql {definer} AS $$ BEGIN "
    "OPEN c FOR SELECT * FROM docs WHERE {where}; RETURN c; END $$",
    "of a procedure": "f(INOUT c refcursor) LANGUAGE plpgsql {definer} AS $$ BEGIN "
    "OPEN c FOR SELECT * FROM docs WHERE {where}; END $$",
}


@pytest.mark.parametrize(("condition", "state"), [(SET, "leak"), (OWN, "held")])
def test_cursor_is_read(schema, condition, state) -> None:
    made = [
        f"CREATE {'PROCEDURE' if 'INOUT' in text else 'FUNCTION'} f{number}"
        f"{text.format(definer=DEFINER, where=condition).removeprefix('f')};"
        for number, text in enumerate(CURSORS.values())
    ]
    result = schema(BASE + "".join(made)).probe()
    cells = {cell.relation.partition("(")[0]: cell.state for cell in result.cells if cell.command == "EXECUTE"}
    assert {kind: cells[f"public.f{number}"] for number, kind in enumerate(CURSORS)} == dict.fromkeys(CURSORS, state)
    assert [(f.property, f.confirmed) for f in result.findings] == [("read", True)] * len(CURSORS) * (state == "leak")


STATES = [
        (f"f(x int) RETURNS SETOF docs LANGUAGE plpgsql {DEFINER} AS $$ BEGIN RAISE 'not today'; RETURN QUERY SELECT * FROM docs; END $$",
         "not covered", "every call failed: not today"),
        (f"f() RETURNS SETOF docs LANGUAGE sql {DEFINER} AS $$ SELECT * FROM docs WHERE false $$",
         "not covered", "returned nothing, although"),
        (f"f(p_doc_id int) RETURNS void LANGUAGE sql {DEFINER} AS $$ UPDATE docs SET body = 'x' WHERE id = p_doc_id AND body = 'never' $$",
         "not covered", "changed a row"),
        (f"f(p_doc_id int) RETURNS void LANGUAGE sql {DEFINER} AS $$ UPDATE docs SET body = 'x' WHERE id = p_doc_id AND {OWN} $$",
         "held", "changed, none of another's"),
        (f"f() RETURNS boolean LANGUAGE sql {DEFINER} AS $$ SELECT EXISTS (SELECT FROM docs WHERE {OWN}) $$", "held", "truth value"),
        (f"f() RETURNS bigint LANGUAGE sql {DEFINER} AS $$ SELECT count(*) FROM docs WHERE {SET} $$", "leak", "interference"),
        ("f() RETURNS SETOF docs LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; RETURN QUERY SELECT * FROM docs; END $$",
         "held", "caller's rights"),
        (f"f(t text) RETURNS SETOF docs LANGUAGE plpgsql {DEFINER} "
        f"AS $$ BEGIN RETURN QUERY EXECUTE 'SELECT * FROM docs WHERE ' || t; END $$",
         "leak", "read"),
    ]  # fmt: skip


def test_state_of_a_function(schema) -> None:
    made = "".join(f"CREATE FUNCTION f{number}{made.removeprefix('f')};" for number, (made, _, _) in enumerate(STATES))
    result = schema(BASE + made).probe()
    cells = {cell.relation.partition("(")[0]: cell for cell in result.cells if cell.command == "EXECUTE"}
    for number, (text, state, reason) in enumerate(STATES):
        found = cells[f"public.f{number}"]
        assert (found.state, reason in found.reason) == (state, True), (text, found)


HARMLESS = (
    "f(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT a + b $$",
    f"f(a text) RETURNS text LANGUAGE plpgsql {DEFINER} AS $$ BEGIN RAISE 'never'; END $$",
    f"f() RETURNS text LANGUAGE sql {DEFINER} AS $$ SELECT 'docs' -- FROM docs\n$$",
    "f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE docs SET body = body; RETURN NEW; END $$",
)


def test_what_touches_no_tenant_data_has_no_cell(schema) -> None:
    made = "".join(f"CREATE FUNCTION f{number}{made.removeprefix('f')};" for number, made in enumerate(HARMLESS))
    assert not [cell for cell in schema(BASE + made).probe().cells if cell.command == "EXECUTE"]


def test_argument_in_sql_text(schema) -> None:
    head = f"(t text) RETURNS SETOF docs LANGUAGE plpgsql STABLE {DEFINER}"
    where = "SELECT * FROM docs WHERE tenant_id = $1 AND body LIKE "
    own = "NULLIF(current_setting('app.tenant_id', true), '')::int"
    made = (
        f"CREATE FUNCTION f{head} AS $$ BEGIN RETURN QUERY EXECUTE '{where}''%' || t || '''' USING {own}; END $$;"
        f"CREATE FUNCTION g{head} AS $$ BEGIN RETURN QUERY EXECUTE '{where}''%'' || $2' USING {own}, t; END $$;"
    )
    result = schema(BASE + made).probe()
    cells = {cell.relation: cell.state for cell in result.cells if cell.command == "EXECUTE"}
    assert cells == {"public.f(text)": "leak", "public.g(text)": "held"}
    assert [(f.object, f.confirmed) for f in result.findings] == [("public.f(text)", True)]


def test_hundreds_of_harmless_functions_change_nothing(schema) -> None:
    many = "".join(f"CREATE FUNCTION h{n}(a text, b int) RETURNS text LANGUAGE plpgsql {DEFINER}"
        " AS $$ BEGIN RAISE 'no'; END $$;" for n in range(200))  # fmt: skip
    result = schema(BASE + many).probe()
    assert not [one for one in result.cells if one.command == "EXECUTE" or one.state == "not covered"]
