"""Which roles are the application's."""

from __future__ import annotations

import pytest

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
