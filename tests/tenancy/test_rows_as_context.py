"""A setting that names a row: a session's token, an API key, a slug; and settings that switch something on."""

from __future__ import annotations

import pytest

TABLES = """
CREATE ROLE x_app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, slug text NOT NULL UNIQUE);
CREATE TABLE sessions (token text PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants);
CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL);
GRANT SELECT ON tenants, sessions, docs TO x_app;
"""


def _names(loaded) -> list[str]:
    return [persona.name for persona in loaded.tenancy.context.personas]


@pytest.mark.parametrize(
    ("policy", "relation", "column"),
    [
        ("tenant_id = (SELECT s.tenant_id FROM sessions s WHERE s.token = current_setting('app.session', true))",
         "sessions", "token"),
        ("tenant_id IN (SELECT s.tenant_id FROM sessions s WHERE s.token = current_setting('app.session', true))",
         "sessions", "token"),
        ("EXISTS (SELECT FROM sessions s WHERE s.token = current_setting('app.session', true) AND s.tenant_id = docs.tenant_id)",
         "sessions", "token"),
        ("tenant_id = (SELECT t.id FROM tenants t WHERE t.slug = current_setting('app.tenant_slug', true))", "tenants", "slug"),
        ("tenant_id = acting_for()", "sessions", "token"),
        ("tenant_id = acting_at_once()", "sessions", "token"),
    ],
)  # fmt: skip
def test_the_value_is_the_rows(schema, policy: str, relation: str, column: str) -> None:
    loaded = schema(f"""{TABLES}
        CREATE FUNCTION acting_for() RETURNS int LANGUAGE plpgsql STABLE AS $$
            DECLARE v text := current_setting('app.session', true); found int;
            BEGIN SELECT s.tenant_id INTO found FROM sessions s WHERE s.token = v; RETURN found; END $$;
        CREATE FUNCTION acting_at_once() RETURNS int LANGUAGE plpgsql STABLE AS $$
            BEGIN RETURN (SELECT tenant_id FROM sessions WHERE token = NULLIF(current_setting('app.session', true), ''));
            END $$;
        CREATE POLICY p ON docs USING ({policy});""")
    assert loaded.tenancy.key_columns[0] == "tenant_id"
    assert loaded.tenancy.principal_columns[loaded.oid(f"public.{relation}")] == (column,)
    (persona,) = loaded.tenancy.context.personas
    assert ":user" in persona.statements[0]


def test_a_token_beside_a_user_of_another_type(schema) -> None:
    loaded = schema("""CREATE ROLE x_app LOGIN;
        CREATE TABLE users (id int PRIMARY KEY);
        CREATE TABLE sessions (token uuid PRIMARY KEY, user_id int NOT NULL REFERENCES users);
        CREATE TABLE members (org_id int, user_id int REFERENCES users, PRIMARY KEY (org_id, user_id));
        CREATE TABLE projects (id int PRIMARY KEY, org_id int NOT NULL);
        CREATE POLICY p ON projects USING (org_id IN (SELECT m.org_id FROM members m JOIN sessions s ON s.user_id = m.user_id
            WHERE s.token = NULLIF(current_setting('app.session', true), '')::uuid));
        GRANT SELECT ON projects, members, sessions, users TO x_app;""")
    assert loaded.tenancy.user_type == "uuid"
    assert loaded.tenancy.principal_columns == {loaded.oid("public.sessions"): ("token",)}


def test_a_membership_stays_the_users(schema) -> None:
    loaded = schema("""CREATE ROLE x_app LOGIN;
        CREATE TABLE members (org_id int, user_id uuid, PRIMARY KEY (org_id, user_id));
        CREATE TABLE projects (id int PRIMARY KEY, org_id int NOT NULL);
        CREATE POLICY p ON projects USING (org_id IN
            (SELECT org_id FROM members WHERE user_id = current_setting('app.user_id', true)::uuid));
        GRANT SELECT ON projects, members TO x_app;""")
    assert loaded.tenancy.user_type == "uuid"
    assert loaded.tenancy.principal_columns == {loaded.oid("public.members"): ("user_id",)}


@pytest.mark.parametrize(
    ("policy", "off", "on"),
    [
        ("current_setting('app.bypass_rls', true) = 'on'", "off", "on"),
        ("current_setting('app.is_admin', true)::boolean", "off", "on"),
        ("current_setting('app.support_access', true) = 'true'", "false", "true"),
        ("current_setting('app.see_all', true) = '1'", "0", "1"),
        ("current_setting('app.actor_type', true) = 'system'", "user", "system"),
    ],
)
def test_an_ordinary_session_switches_nothing_on(schema, policy: str, off: str, on: str) -> None:
    loaded = schema(f"""{TABLES} CREATE POLICY p ON docs USING (tenant_id = current_setting('app.tenant_id', true)::int);
        CREATE POLICY q ON docs USING ({policy});""")
    plain, opening = loaded.tenancy.context.personas
    assert not plain.opening and opening.opening
    assert any(f"'{off}'" in statement for statement in plain.statements)
    assert any(f"'{on}'" in statement for statement in opening.statements)
    assert opening.name.endswith(f"='{on}'")


def test_switches_alone_and_together(schema) -> None:
    loaded = schema(f"""{TABLES} CREATE POLICY p ON docs USING (tenant_id = current_setting('app.tenant_id', true)::int);
        CREATE POLICY q ON docs USING (current_setting('app.bypass', true) = 'on' AND current_setting('app.role', true) = 'admin');""")
    assert _names(loaded) == ["tenant", "app.bypass='on'", "app.role='admin'", "app.bypass='on', app.role='admin'"]


@pytest.mark.parametrize(("value", "names"), [("*", ["tenant", "app.tenant_id='*'"]), ("11", ["tenant"])])
def test_a_value_that_stands_for_every_tenant(schema, value: str, names: list[str]) -> None:
    """What might be a tenant's key is none."""
    loaded = schema(f"""{TABLES} CREATE POLICY p ON docs USING (tenant_id::text = current_setting('app.tenant_id', true));
        CREATE POLICY q ON docs USING (current_setting('app.tenant_id', true) = '{value}');""")
    assert _names(loaded) == names


def test_a_column_that_says_yes_or_no_is_no_switch(schema) -> None:
    loaded = schema(f"""{TABLES} ALTER TABLE docs ADD public boolean NOT NULL;
        CREATE POLICY p ON docs USING (tenant_id = current_setting('app.tenant_id', true)::int
            AND public = current_setting('app.public', true)::boolean);""")
    assert _names(loaded) == ["tenant"]
