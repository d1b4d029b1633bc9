"""Which roles are the application's."""

from __future__ import annotations

import pytest

from rlsaudit.inferred import as_toml

TABLE = """
CREATE ROLE own_er NOLOGIN;
CREATE ROLE app LOGIN;
CREATE TABLE t (tenant_id int); ALTER TABLE t OWNER TO own_er;
CREATE TABLE u (tenant_id int); ALTER TABLE u OWNER TO own_er;
"""


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        pytest.param("GRANT SELECT ON t TO app;", {"app"}, id="owner excluded"),
        pytest.param("ALTER ROLE own_er LOGIN; GRANT SELECT, INSERT ON t TO app;", {"app"}, id="owner with login excluded"),
        pytest.param("ALTER ROLE own_er LOGIN; GRANT SELECT ON t TO app;", {"app", "own_er"}, id="owner that alone writes"),
        pytest.param("ALTER ROLE own_er LOGIN;", {"own_er"}, id="only the owner"),
        pytest.param("CREATE ROLE grp; GRANT SELECT ON t TO grp; GRANT grp TO app;", {"app"}, id="group tested through its member"),
        pytest.param(
            "CREATE ROLE grp; GRANT SELECT ON t TO grp; ALTER ROLE app NOINHERIT; GRANT SELECT ON u TO app; GRANT grp TO app;",
            {"app", "grp"},
            id="group that must be set",
        ),
        pytest.param("CREATE ROLE idle; GRANT SELECT ON t TO idle, app;", {"app"}, id="idle NOLOGIN role"),
        pytest.param("CREATE ROLE idle; GRANT SELECT ON t TO idle;", {"idle"}, id="no login role at all"),
        pytest.param("CREATE ROLE adm LOGIN BYPASSRLS; GRANT SELECT ON t TO adm, app;", {"app"}, id="BYPASSRLS beside another"),
        pytest.param("ALTER ROLE app BYPASSRLS; GRANT SELECT ON t TO app;", {"app"}, id="BYPASSRLS alone"),
        pytest.param("CREATE ROLE boss LOGIN SUPERUSER; GRANT SELECT ON t TO app, boss;", {"app"}, id="superuser"),
        pytest.param(
            "CREATE ROLE other LOGIN; GRANT SELECT (tenant_id) ON t TO other; GRANT DELETE ON t TO app;",
            {"app", "other"},
            id="column grant",
        ),
        pytest.param("GRANT SELECT ON t TO PUBLIC;", {"app"}, id="by PUBLIC"),
    ],
)  # fmt: skip
def test_application_roles(schema, sql, expected) -> None:
    loaded = schema(TABLE + sql)
    ours = {role.name for role in loaded.tenancy.roles}
    assert ours == expected


def test_too_many_roles_are_said(schema) -> None:
    roles = " ".join(f"CREATE ROLE r{n} LOGIN; GRANT SELECT ON t TO r{n};" for n in range(9))
    loaded = schema(TABLE + roles)
    assert len(loaded.tenancy.roles) == 6
    assert any("9 application roles" in note and "r8" in note for note in loaded.tenancy.notes)


def test_of_many_roles_different_ones_are_tested(schema) -> None:
    alike = " ".join(f"CREATE ROLE a{n} LOGIN; GRANT SELECT ON t TO a{n};" for n in range(40))
    loaded = schema(
        TABLE + alike + "CREATE ROLE x LOGIN; GRANT SELECT, DELETE ON t TO x; CREATE ROLE y LOGIN; GRANT SELECT ON t TO y;"
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY all_of_it ON t TO y USING (true);"
        "CREATE POLICY own ON t USING (tenant_id = current_setting('app.tenant_id')::int);"
    )  # fmt: skip
    assert {"a0", "x", "y"} <= {role.name for role in loaded.tenancy.roles}
    (note,) = (note for note in loaded.tenancy.notes if "application roles" in note)
    assert note.startswith("42 application roles of 3 kinds")
    assert note.endswith(" and 16 more")


@pytest.mark.parametrize(
    "extra",
    [
        "CREATE TABLE items (id int); GRANT SELECT ON items TO a8;",
        "CREATE VIEW seen AS SELECT 1 AS n FROM t; GRANT SELECT ON seen TO a8;",
        "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM t';"
        "REVOKE ALL ON FUNCTION f() FROM PUBLIC; GRANT EXECUTE ON FUNCTION f() TO a8;",
        "GRANT UPDATE (tenant_id) ON t TO a8; GRANT UPDATE (note) ON t TO a0, a1, a2, a3, a4, a5, a6, a7;",
        "CREATE ROLE boss; GRANT boss TO a8 WITH INHERIT FALSE;",
        "CREATE SCHEMA more; CREATE TABLE more.t (id int); GRANT SELECT ON more.t TO PUBLIC; GRANT USAGE ON SCHEMA more TO a8;",
    ],
    ids=["table without a key", "view", "function", "columns", "membership", "schema"],
)
def test_whatever_else_a_role_may_do_makes_it_another_kind(schema, extra: str) -> None:
    roles = " ".join(f"CREATE ROLE a{n} LOGIN; GRANT SELECT ON t TO a{n};" for n in range(9))
    loaded = schema(TABLE + "ALTER TABLE t ADD note text;" + roles + extra)
    assert "a8" in {role.name for role in loaded.tenancy.roles}
    (note,) = (note for note in loaded.tenancy.notes if "application roles" in note)
    assert note.startswith("9 application roles of 2 kinds")


def test_more_kinds_than_are_tested_are_known(schema) -> None:
    loaded = schema(TABLE + " ".join(
        f"CREATE ROLE r{n:02} LOGIN; CREATE TABLE x{n} (tenant_id int); GRANT SELECT ON x{n} TO r{n:02};"
        for n in range(26)
    ))  # fmt: skip
    assert [role.name for role in loaded.tenancy.roles] == [f"r{n:02}" for n in range(24)]
    assert [role.name for role in loaded.tenancy.unmet] == ["r24", "r25"]
    assert "\n# roles = [" in as_toml(loaded.catalog, loaded.tenancy)
    assert "nobody tests r24, r25 until roles names them" in as_toml(loaded.catalog, loaded.tenancy)
