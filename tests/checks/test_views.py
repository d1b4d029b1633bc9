"""Whether a view's own conditions keep tenants apart is decided on its query, whatever shape that has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SCHEMA = """
CREATE ROLE app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL, author int);
CREATE TABLE lines (id int PRIMARY KEY, doc_id int NOT NULL REFERENCES docs, t text);
CREATE TABLE members (tenant_id int NOT NULL REFERENCES tenants, user_id int NOT NULL, PRIMARY KEY (tenant_id, user_id));
CREATE TABLE plans (id int PRIMARY KEY, n text);
CREATE FUNCTION ctx() RETURNS int LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;
CREATE FUNCTION opaque() RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN IF 1 = 1 THEN RETURN NULLIF(current_setting('app.tenant_id', true), '')::int; END IF; RETURN NULL; END $$;
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE docs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE lines ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE members ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants USING (id = ctx());
CREATE POLICY p ON docs USING (tenant_id = ctx());
CREATE POLICY p ON members USING (tenant_id = ctx());
CREATE POLICY p ON lines USING (EXISTS (SELECT FROM docs d WHERE d.id = doc_id AND d.tenant_id = ctx()));
GRANT SELECT ON tenants, plans TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs, lines, members TO app;
CREATE VIEW every AS SELECT * FROM docs;
CREATE MATERIALIZED VIEW stored AS SELECT tenant_id AS whose, body FROM docs;
"""

APART = {
    "function": "SELECT * FROM docs WHERE tenant_id = ctx()",
    "plpgsql": "SELECT * FROM docs WHERE tenant_id = opaque()",
    "scalar subquery": "SELECT * FROM docs WHERE tenant_id = (SELECT ctx())",
    "narrower": "SELECT * FROM docs WHERE tenant_id = ctx() AND (author = 1 OR body LIKE 'x%')",
    "join": "SELECT d.id, l.t FROM lines l JOIN docs d ON d.id = l.doc_id WHERE d.tenant_id = ctx()",
    "outer join": "SELECT d.id, l.t FROM docs d LEFT JOIN lines l ON d.id = l.doc_id WHERE d.tenant_id = ctx()",
    "using": "SELECT d.id, m.user_id FROM docs d JOIN members m USING (tenant_id) WHERE tenant_id = ctx()",
    "group": "SELECT tenant_id, count(*) FROM docs WHERE tenant_id = ctx() GROUP BY tenant_id",
    "having": "SELECT tenant_id, count(*) FROM docs GROUP BY tenant_id HAVING tenant_id = ctx()",
    "around a group": "SELECT * FROM (SELECT tenant_id t, count(*) FROM docs GROUP BY tenant_id) x WHERE x.t = ctx()",
    "with": "WITH q AS (SELECT * FROM docs WHERE tenant_id = ctx())"
    " SELECT q.id, l.t FROM q JOIN lines l ON l.doc_id = q.id",
    "union": "SELECT id FROM docs WHERE tenant_id = ctx() UNION ALL SELECT user_id FROM members WHERE tenant_id = ctx()",
    "around a union": "SELECT * FROM (SELECT id, tenant_id FROM docs UNION SELECT user_id, tenant_id FROM members) u"
    " WHERE tenant_id = ctx()",
    "in": "SELECT * FROM lines WHERE doc_id IN (SELECT id FROM docs WHERE tenant_id = ctx())",
    "exists": "SELECT * FROM lines l WHERE EXISTS (SELECT FROM docs d WHERE d.id = l.doc_id AND d.tenant_id = ctx())",
    "in the select list": "SELECT d.id, (SELECT count(*) FROM lines l WHERE l.doc_id = d.id) n FROM docs d"
    " WHERE d.tenant_id = ctx()",
    "lateral": "SELECT d.id, x.t FROM docs d, LATERAL (SELECT l.t FROM lines l WHERE l.doc_id = d.id LIMIT 1) x"
    " WHERE d.tenant_id = ctx()",
    "above a view": "SELECT id, body FROM every WHERE tenant_id = ctx()",
    "above a stored copy": "SELECT body FROM stored WHERE whose = ctx()",
    "by membership": "SELECT d.* FROM docs d JOIN members m ON m.tenant_id = d.tenant_id"
    " WHERE m.user_id = current_setting('app.user_id')::int",
    "nobody's": "SELECT * FROM plans",
}

OPEN = {
    "or": "SELECT * FROM docs WHERE tenant_id = ctx() OR author IS NULL",
    "role setting": "SELECT * FROM docs WHERE tenant_id = ctx() OR current_setting('app.role', true) = 'support'",
    "condition on the other side": "SELECT d.id, l.t FROM docs d LEFT JOIN lines l ON d.id = l.doc_id AND d.tenant_id = ctx()",
    "not joined": "SELECT d.body FROM docs d, members m WHERE m.tenant_id = ctx()",
    "one branch": "SELECT id FROM docs WHERE tenant_id = ctx() UNION ALL SELECT user_id FROM members",
    "falls open": "SELECT * FROM docs WHERE tenant_id = ctx() OR ctx() IS NULL",
    "coalesce": "SELECT * FROM docs WHERE tenant_id = COALESCE(ctx(), tenant_id)",
    "select list": "SELECT p.n, (SELECT max(body) FROM docs) m FROM plans p",
    "only mentioned": "SELECT d.*, ctx() AS me FROM docs d",
    "unrelated exists": "SELECT d.* FROM docs d WHERE EXISTS (SELECT FROM tenants t WHERE t.id = ctx())",
    "another column": "SELECT d.* FROM docs d WHERE author = ctx()",
    "not equal": "SELECT d.* FROM docs d WHERE tenant_id <> ctx()",
    "nested": "SELECT id, body FROM every",
    "stored copy": "SELECT body FROM stored",
}

Make = Callable[..., Any]


@pytest.mark.parametrize("query", APART.values(), ids=APART.keys())
def test_a_view_that_keeps_tenants_apart(schema: Make, query: str) -> None:
    view = f"CREATE VIEW v WITH (security_barrier) AS {query}; GRANT SELECT ON v TO app;"
    found = [one for one in schema(SCHEMA + view).of("RLS301") if one.object == "public.v" and one.severity != "info"]
    assert not found, found[0].message


@pytest.mark.parametrize("query", OPEN.values(), ids=OPEN.keys())
def test_a_view_that_does_not(schema: Make, query: str) -> None:
    view = f"CREATE VIEW v WITH (security_barrier) AS {query}; GRANT SELECT ON v TO app;"
    found = [one for one in schema(SCHEMA + view).of("RLS301") if one.object == "public.v"]
    assert [one.severity in ("critical", "high") for one in found] == [True]


def test_conditions_of_a_barrier_below_are_not_leaked_by_the_view_above(schema: Make) -> None:
    made = schema(
        SCHEMA
        + "CREATE VIEW inside WITH (security_barrier) AS SELECT * FROM docs WHERE tenant_id = ctx();"
        + "CREATE VIEW v AS SELECT id FROM inside WHERE id > 3;"
        + "CREATE VIEW w AS SELECT id FROM docs WHERE tenant_id = ctx();"
        + "GRANT SELECT ON v, w TO app;"
    )
    assert {one.object: one.severity for one in made.of("RLS301")} == {"public.v": "info", "public.w": "high"}


def test_an_invoker_view_reads_as_the_caller_and_leaves_the_definer_view_below_to_be_named(schema: Make) -> None:
    made = schema(
        SCHEMA
        + "CREATE VIEW v WITH (security_invoker) AS SELECT * FROM docs;"
        + "CREATE VIEW w WITH (security_invoker) AS SELECT * FROM every;"
        + "CREATE VIEW x AS SELECT * FROM v;"
        + "GRANT SELECT ON v, w, x, every TO app;"
    )
    assert {one.object for one in made.of("RLS301")} == {"public.every"}
