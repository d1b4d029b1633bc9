"""Leaks of two statements: an own row that points at another tenant's, and what follows the pointer."""

from __future__ import annotations

import pytest

OWN = "tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int"
BASE = f"""
CREATE ROLE p_app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE docs (tenant_id int NOT NULL REFERENCES tenants, id int PRIMARY KEY, body text NOT NULL, UNIQUE (tenant_id, id));
CREATE TABLE links (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, doc_id int, note text);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY; ALTER TABLE docs ENABLE ROW LEVEL SECURITY; ALTER TABLE links ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
CREATE POLICY p ON docs USING ({OWN}); CREATE POLICY p ON links USING ({OWN});
GRANT SELECT ON tenants, docs TO p_app; GRANT SELECT, INSERT, UPDATE ON links TO p_app;
"""
VIEW = f"CREATE VIEW linked WITH (security_barrier) AS SELECT l.id, d.body FROM links l JOIN docs d ON d.id = l.doc_id WHERE l.{OWN};"
GRANT = "GRANT SELECT ON linked TO p_app;"
FUNCTION = (
    "CREATE FUNCTION linked() RETURNS SETOF docs LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp "
    f"AS $$ SELECT d.* FROM docs d JOIN links l ON l.doc_id = d.id WHERE l.{OWN} $$;"
)
POINTERS = {
    "view": ("ALTER TABLE links ADD FOREIGN KEY (doc_id) REFERENCES docs (id);" + VIEW + GRANT, "public.linked"),
    "view, no foreign key": (VIEW + GRANT, "public.linked"),
    "function": (FUNCTION, "public.linked()"),
    "policy": (
        "ALTER TABLE tenants ADD parent_id int; GRANT UPDATE (parent_id) ON tenants TO p_app;"
        "CREATE POLICY parents ON docs FOR SELECT USING (tenant_id = (SELECT parent_id FROM tenants "
        "WHERE id = NULLIF(current_setting('app.tenant_id', true), '')::int));", "public.docs"),
}  # fmt: skip


@pytest.mark.parametrize("kind", POINTERS)
def test_pointer_is_followed_and_replays(schema, kind) -> None:
    change, door = POINTERS[kind]
    found = schema(BASE + change).probe().findings
    assert [(f.object, f.confirmed) for f in found if f.property == "read"] == [(door, True)]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE links ADD FOREIGN KEY (tenant_id, doc_id) REFERENCES docs (tenant_id, id);" + VIEW + GRANT,
        VIEW.replace("d.id = l.doc_id", "d.id = l.doc_id AND d.tenant_id = l.tenant_id") + GRANT,
        VIEW.replace("security_barrier", "security_invoker") + GRANT,
    ],
)
def test_pointer_that_stays_at_home_is_fine(schema, change) -> None:
    assert [f for f in schema(BASE + change).probe().findings if f.property == "read"] == []
