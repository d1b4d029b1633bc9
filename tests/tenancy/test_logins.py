"""A login role for each tenant or user, inferred from policies that read the session's role."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlsaudit.config import load
from rlsaudit.errors import UsageError
from rlsaudit.inferred import as_toml
from rlsaudit.tenancy.infer import infer

GROUP = "CREATE ROLE x_clients NOLOGIN;"
TABLE = "CREATE TABLE orders (id int PRIMARY KEY, owner name NOT NULL, body text NOT NULL);"
GRANT = "GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO x_clients;"
MEMBERS = "CREATE ROLE x_acme LOGIN IN ROLE x_clients; CREATE ROLE x_globex LOGIN IN ROLE x_clients;"


@pytest.mark.parametrize(
    ("policy", "login"),
    [
        ("owner = current_user", ":tenant"),
        ("session_user = owner", ":tenant"),
        ("owner::text = current_user::text", ":tenant"),
        ("current_user = 'tenant_' || owner", "tenant_:tenant"),
        ("('t-' || owner::text || '-app') = session_user", "t-:tenant-app"),
        ("owner = replace(current_user, 'cust_', '')", "cust_:tenant"),
        ("owner = regexp_replace(current_user, '^cust_', '')", "cust_:tenant"),
        ("owner = substr(current_user, 4)", "tt_:tenant"),
        ("owner = split_part(current_user, '@', 1)", ":tenant@t"),
        ("owner = ANY (ARRAY[current_user])", ":tenant"),
    ],
)
def test_the_role_that_a_policy_wants(schema, policy: str, login: str) -> None:
    loaded = schema(f"{GROUP} {TABLE} CREATE POLICY p ON orders USING ({policy}); {GRANT}")
    assert loaded.tenancy.key_columns == ("owner",)
    assert loaded.tenancy.context.login == login
    assert [role.name for role in loaded.tenancy.roles] == ["x_clients"]


def test_roles_of_the_schema_are_the_tenants(schema) -> None:
    loaded = schema(f"{GROUP} {MEMBERS} {TABLE} CREATE POLICY p ON orders USING (owner = current_user); {GRANT}")
    assert loaded.tenancy.key_values == ("x_acme", "x_globex")
    assert [role.name for role in loaded.tenancy.roles] == ["x_acme"]
    assert any("stands for x_globex" in note for note in loaded.tenancy.notes)


def test_a_role_that_may_do_less_is_named_and_no_tenant(schema) -> None:
    loaded = schema(f"""{GROUP} {MEMBERS} {TABLE} CREATE POLICY p ON orders USING (owner = current_user); {GRANT}
        CREATE ROLE x_reports LOGIN; GRANT SELECT ON orders TO x_reports;""")
    assert loaded.tenancy.key_values == ("x_acme", "x_globex")
    assert any("x_reports" in note and "not tested" in note for note in loaded.tenancy.notes)


def test_a_policy_for_each_role(schema) -> None:
    loaded = schema(f"""{GROUP} {MEMBERS} {TABLE} {GRANT}
        CREATE POLICY a ON orders TO x_acme USING (owner = 'x_acme');
        CREATE POLICY b ON orders TO x_globex USING (owner = 'x_globex');""")
    assert loaded.tenancy.key_columns == ("owner",)
    assert loaded.tenancy.context.login == ":tenant"
    assert loaded.tenancy.key_values == ("x_acme", "x_globex")


def test_users_that_memberships_name(schema) -> None:
    loaded = schema(f"""{GROUP}
        CREATE TABLE members (org_id int, login name, PRIMARY KEY (org_id, login));
        CREATE TABLE projects (id int PRIMARY KEY, org_id int NOT NULL);
        CREATE POLICY p ON projects USING (org_id IN (SELECT org_id FROM members WHERE login = current_user));
        GRANT SELECT ON members, projects TO x_clients;""")
    assert loaded.tenancy.context.login == ":user"
    assert loaded.tenancy.key_columns == ("org_id",)
    assert loaded.tenancy.principal_columns[loaded.oid("public.members")] == ("login",)


@pytest.mark.parametrize(
    "policy",
    [
        "owner = current_setting('app.tenant', true)",
        "owner = current_setting('app.tenant', true) OR current_user = 'x_support'",
    ],
)
def test_a_setting_needs_no_login(schema, policy: str) -> None:
    loaded = schema(f"{GROUP} {TABLE} CREATE POLICY p ON orders USING ({policy}); {GRANT}")
    assert loaded.tenancy.context.login == ""


def test_round_trip_through_the_configuration(schema, tmp_path: Path) -> None:
    loaded = schema(f"{GROUP} {MEMBERS} {TABLE} CREATE POLICY p ON orders USING (owner = current_user); {GRANT}")
    (tmp_path / "rlsaudit.toml").write_text(as_toml(loaded.catalog, loaded.tenancy), encoding="utf-8")
    again = infer(loaded.catalog, load(None, tmp_path).declared)
    assert again.context.personas == loaded.tenancy.context.personas
    assert again.key_values == loaded.tenancy.key_values
    assert replace(again.roles[0], why="") == replace(loaded.tenancy.roles[0], why="")


@pytest.mark.parametrize(
    ("personas", "said"),
    [
        ('[[context.personas]]\nlogin = "acme"', "login names :tenant or :user"),
        (
            '[[context.personas]]\nlogin = ":tenant"\n[[context.personas]]\nstatements = ["SELECT 1"]',
            "the same for all",
        ),
        ('[[context.personas]]\nstatements = ["SELECT 1"]\nopening = true', "must be an ordinary session"),
        ('[[context.personas]]\nname = "x"', 'login = ":tenant"'),
    ],
)
def test_personas_that_cannot_be_meant(tmp_path: Path, personas: str, said: str) -> None:
    (tmp_path / "rlsaudit.toml").write_text(personas, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        load(None, tmp_path)


@pytest.mark.parametrize("condition", ["owner = current_user", "owner = '{name}'"])
@pytest.mark.parametrize(
    "also",
    [
        "",
        "CREATE POLICY wide ON orders TO cust_07 USING (true);",
        "CREATE ROLE boss NOLOGIN BYPASSRLS; GRANT boss TO cust_07;",
        "ALTER ROLE cust_07 SET app.everything = 'on';",
        "GRANT DELETE ON orders TO cust_07;",
    ],
)
def test_many_tenants_with_a_login_and_a_policy_each(schema, condition: str, also: str) -> None:
    """One stands for all whose policies say the same, and for no other."""
    roles = " ".join(
        f"CREATE ROLE cust_{n:02} LOGIN; GRANT SELECT, INSERT ON orders TO cust_{n:02};"
        f"CREATE POLICY p{n} ON orders TO cust_{n:02} USING ({condition.format(name=f'cust_{n:02}')});"
        for n in range(30)
    )
    tenancy = schema(TABLE + roles + also).tenancy
    assert tenancy.context.login == ":tenant"
    assert [role.name for role in tenancy.roles] == ["cust_00"]
    assert not any("24 tested" in note for note in tenancy.notes)
    left = [note for note in tenancy.notes if "were not tested" in note]
    assert [role.name for role in tenancy.unmet] == (["cust_07"] if also else [])
    assert [note.endswith(": cust_07.") for note in left] == ([True] if also else [])
