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
