"""Roles and privileges: severity by what a session of the application can really do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rlsaudit.checks._examples import PROTECTED, ROLES, SOUND, TENANT

Make = Callable[..., Any]


def found(made: Any, check: str) -> list[tuple[str, str]]:
    return [(finding.severity, finding.object) for finding in made.of(check)]


def major(made: Any) -> int:
    return int(made.connection.info.server_version) // 10000


def since(made: Any, version: int) -> None:
    if major(made) < version:
        pytest.skip(f"PostgreSQL {version} and later")


@pytest.mark.parametrize(
    ("grants", "expected"),
    [("", "info"), ("GRANT SELECT ON invoices TO worker;", "low"), ("GRANT INSERT ON invoices TO worker;", "medium"),
     ("GRANT DELETE ON invoices TO PUBLIC;", "medium"), ("GRANT pg_write_all_data TO worker;", "medium"),
     ("GRANT UPDATE ON invoices TO worker; ALTER ROLE worker NOLOGIN;", "info"),
     ("GRANT INSERT ON customers TO worker; ALTER TABLE invoices OWNER TO worker;", "info"),
     ("GRANT INSERT ON invoices TO worker; ALTER ROLE worker SUPERUSER;", "info")],
)  # fmt: skip
def test_an_exempt_role_beside_the_application(schema: Make, grants: str, expected: str) -> None:
    made = schema(SOUND + "CREATE ROLE worker LOGIN BYPASSRLS;" + grants)
    assert found(made, "RLS201") == [(expected, "role worker")]


def test_whoever_runs_the_server_is_not_listed(schema: Make) -> None:
    assert not found(schema(SOUND), "RLS201")


def test_one_finding_for_many_tables_of_one_owner(schema: Make) -> None:
    tables = [f"t{number:02}" for number in range(12)]
    made = schema(
        ROLES
        + "".join(
            f"CREATE TABLE {t} (tenant_id int NOT NULL); ALTER TABLE {t} OWNER TO keeper;"
            f"ALTER TABLE {t} ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {t} USING ({TENANT});"
            f"GRANT SELECT, TRUNCATE ON {t} TO app;"
            for t in tables
        )
        + "GRANT SELECT, TRUNCATE ON t00 TO keeper; GRANT keeper TO app;"
    )
    for check in ("RLS003", "RLS202"):
        (one,) = made.of(check)
        assert "public.t07 and 4 more" in one.message
        made.execute(one.fix)
        assert all(finding.severity == "info" for finding in made.of(check))
    (one,) = made.of("RLS203")
    assert one.relation == "public.t00" and one.command == "TRUNCATE"
    made.execute(one.fix)
    assert not made.of("RLS203")


def test_createrole_is_worse_before_16(schema: Make) -> None:
    made = schema(SOUND + "ALTER ROLE app CREATEROLE;")
    assert found(made, "RLS204") == [("high" if major(made) < 16 else "medium", "role app")]
    made.execute("ALTER ROLE app NOCREATEROLE; CREATE ROLE maker CREATEROLE; GRANT maker TO app")
    assert [f.severity for f in made.of("RLS204")] == ["high" if major(made) < 16 else "medium"]


@pytest.mark.parametrize(
    ("script", "expected"),
    [("CREATE ROLE support BYPASSRLS; GRANT support TO app WITH ADMIN TRUE, SET FALSE, INHERIT FALSE;", "support"),
     ("GRANT keeper TO app WITH ADMIN TRUE, SET FALSE, INHERIT FALSE;", "keeper"),
     ("GRANT pg_execute_server_program TO app WITH ADMIN TRUE, SET FALSE, INHERIT FALSE;", "pg_execute_server_program"),
     ("CREATE ROLE step; CREATE ROLE support BYPASSRLS; GRANT support TO step WITH ADMIN TRUE, SET FALSE;"
      "GRANT step TO app WITH ADMIN TRUE, SET FALSE, INHERIT FALSE;", "support"),
     ("CREATE ROLE reader; GRANT reader TO app WITH ADMIN TRUE, SET FALSE, INHERIT FALSE;", ""),
     ("CREATE ROLE support BYPASSRLS; GRANT support TO app WITH ADMIN FALSE, SET FALSE;", "")],
)  # fmt: skip
def test_the_admin_option_is_a_way_to_the_role(schema: Make, script: str, expected: str) -> None:
    made = schema(SOUND)
    since(made, 16)
    made.execute(script)
    told = made.of("RLS204")
    assert [f.severity for f in told] == (["high"] if expected else [])
    assert all(f"for {expected}" in f.message for f in told)
    for finding in told:
        made.execute(finding.fix)
    assert not made.of("RLS204")


@pytest.mark.parametrize(
    ("script", "expected"),
    [("GRANT pg_monitor TO app;", ["medium"]), ("GRANT pg_read_server_files TO app;", ["high"]),
     ("ALTER ROLE app NOINHERIT; GRANT pg_write_server_files TO app;", ["critical"]),
     ("CREATE ROLE g; GRANT pg_signal_backend TO g; GRANT g TO app;", ["low"]),
     ("ALTER ROLE keeper REPLICATION;", [])],
)  # fmt: skip
def test_powers_over_the_server(schema: Make, script: str, expected: list[str]) -> None:
    made = schema(SOUND + script)
    told = made.of("RLS205")
    assert [f.severity for f in told] == expected
    for finding in told:
        made.execute(finding.fix)
    assert not made.of("RLS205")


def test_replication_is_worst_where_plain_sql_can_decode(schema: Make) -> None:
    made = schema(SOUND + "CREATE ROLE g REPLICATION; GRANT g TO app;")
    logical = made.connection.execute("SHOW wal_level").fetchone() == ("logical",)
    assert found(made, "RLS205") == [("critical" if logical else "high", "role app")]
    made.execute(made.of("RLS205")[0].fix)
    assert not made.of("RLS205")


@pytest.mark.parametrize("power", ["pg_read_all_data", "pg_write_all_data"])
@pytest.mark.parametrize(
    ("script", "expected"),
    [("", "low"), ("CREATE SCHEMA ops;", "high"), ("CREATE TABLE notes (id int);", "high"),
     ("CREATE TABLE notes (id int); GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO app;", "low")],
)  # fmt: skip
def test_all_data_roles_count_by_what_they_open(schema: Make, power: str, script: str, expected: str) -> None:
    made = schema(SOUND + script + f"GRANT {power} TO app;")
    assert found(made, "RLS206") == [(expected, "role app")]


_TRIGGER = """
CREATE FUNCTION guard() RETURNS event_trigger LANGUAGE plpgsql AS $f$ DECLARE made record; BEGIN
FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() {where} LOOP {action} END LOOP; END $f$;
CREATE EVENT TRIGGER guard ON ddl_command_end {tags} EXECUTE FUNCTION guard(); {after}"""
_ENABLE = "EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', made.object_identity);"
_REFUSE = "IF NOT (SELECT relrowsecurity FROM pg_class WHERE oid = made.objid) THEN RAISE EXCEPTION 'no row security'; END IF;"


@pytest.mark.parametrize(
    ("action", "where", "tags", "after", "expected"),
    [(_ENABLE, "", "", "", "info"), (_REFUSE, "", "", "", "info"),
     (_ENABLE, "", "WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')", "", "info"),
     (_ENABLE, "", "WHEN TAG IN ('CREATE TABLE')", "", "low"),
     (_ENABLE, "WHERE command_tag = 'CREATE TABLE'", "", "", "low"),
     (_ENABLE, "", "WHEN TAG IN ('CREATE VIEW')", "", "high"),
     (_ENABLE, "", "", "ALTER EVENT TRIGGER guard DISABLE;", "high"),
     ("-- " + _ENABLE + "\nNULL;", "", "", "", "high"), ("RAISE NOTICE 'made';", "", "", "", "high"),
     ("RAISE WARNING 'then ENABLE ROW LEVEL SECURITY'; EXECUTE 'SELECT 1';", "", "", "", "high")],
)  # fmt: skip
def test_default_privileges_with_an_event_trigger(
    schema: Make, action: str, where: str, tags: str, after: str, expected: str
) -> None:
    made = schema(SOUND + "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO app;")
    assert found(made, "RLS207") == [("high", "default privileges of postgres")]
    made.execute(_TRIGGER.format(action=action, where=where, tags=tags, after=after))
    assert found(made, "RLS207") == [(expected, "default privileges of postgres")]


@pytest.mark.parametrize(
    ("grant", "expected"),
    [("SELECT ON TABLES TO PUBLIC", ["high"]), ("SELECT ON TABLES TO keeper", []), ("INSERT ON TABLES TO team", ["high"]),
     ("EXECUTE ON FUNCTIONS TO app", []), ("USAGE ON SEQUENCES TO app", [])],
)  # fmt: skip
def test_default_privileges_by_whom_they_serve(schema: Make, grant: str, expected: list[str]) -> None:
    made = schema(SOUND + "CREATE ROLE team; GRANT team TO app;" + f"ALTER DEFAULT PRIVILEGES GRANT {grant};")
    told = made.of("RLS207")
    assert [f.severity for f in told] == expected
    for finding in told:
        made.execute(finding.fix)
    assert not made.of("RLS207")


@pytest.mark.parametrize(
    ("grant", "expected"),
    [("SET ON PARAMETER app.tenant_id TO app", "high"), ("SET ON PARAMETER session_replication_role TO PUBLIC", "high"),
     ("ALTER SYSTEM ON PARAMETER archive_command TO app", "critical"), ("SET ON PARAMETER log_duration TO app", "low"),
     ("ALTER SYSTEM ON PARAMETER work_mem TO app", "high"), ("SET ON PARAMETER other.name TO app", "low")],
)  # fmt: skip
def test_parameters_by_what_they_do(schema: Make, grant: str, expected: str) -> None:
    made = schema(SOUND + f"GRANT {grant};")
    try:
        assert found(made, "RLS208") == [(expected, "role app")]
    finally:
        for finding in made.of("RLS208"):
            made.execute(finding.fix)
    assert not made.of("RLS208")


@pytest.mark.parametrize(
    ("grant", "expected"),
    [("SELECT (stavalues1) ON pg_statistic", ["high"]), ("SELECT (starelid) ON pg_statistic", []),
     ("SELECT ON pg_authid", ["high"]), ("SELECT (rolname) ON pg_authid", []), ("INSERT ON pg_class", []),
     ("EXECUTE ON FUNCTION pg_ls_dir(text)", ["low"]), ("EXECUTE ON FUNCTION lo_import(text)", ["critical"]),
     ("EXECUTE ON FUNCTION pg_reload_conf()", ["medium"]), ("SELECT ON pg_largeobject", ["high"])],
)  # fmt: skip
def test_system_objects_by_what_they_hold(schema: Make, grant: str, expected: list[str]) -> None:
    made = schema(SOUND + f"GRANT {grant} TO app;")
    told = made.of("RLS209")
    assert [f.severity for f in told] == expected
    for finding in told:
        made.execute(finding.fix)
    assert not made.of("RLS209")


def test_the_database_owner_owns_public(schema: Make) -> None:
    made = schema(SOUND)
    made.execute("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO app', current_database()); END $$")
    (one,) = made.of("RLS210")
    assert (one.severity, one.object) == ("high", "schema public") and "owner of the database" in one.message
    made.execute(one.fix)
    assert not made.of("RLS210")


@pytest.mark.parametrize(
    ("script", "expected"),
    [("GRANT CREATE ON SCHEMA public TO app;", ["schema public"]), ("GRANT CREATE ON SCHEMA lib TO app;", []),
     ("GRANT CREATE ON SCHEMA lib TO app; ALTER ROLE keeper SET search_path = lib, public;", ["schema lib"]),
     ("GRANT CREATE ON SCHEMA lib TO app; ALTER ROLE app SET search_path = lib;", []),
     ('GRANT CREATE ON SCHEMA lib TO app; CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER'
      ' SET search_path = "lib" AS $$ SELECT 1 $$;', ["schema lib"]),
     ("CREATE SCHEMA clerk; CREATE ROLE clerk LOGIN; GRANT CREATE ON SCHEMA clerk TO app;", ["schema clerk"])],
)  # fmt: skip
def test_schemas_that_others_search(schema: Make, script: str, expected: list[str]) -> None:
    made = schema(SOUND + "CREATE SCHEMA lib;" + script)
    told = made.of("RLS211")
    assert [f.object for f in told] == expected
    for finding in told:
        made.execute(finding.fix)
    assert not made.of("RLS211")


def test_set_role_counts_only_where_it_is_possible_and_wider(schema: Make) -> None:
    made = schema(
        PROTECTED
        + f"CREATE POLICY tenant ON invoices USING ({TENANT}); CREATE ROLE support; GRANT SELECT ON invoices TO support;"
        + "CREATE POLICY all_rows ON invoices FOR SELECT TO support USING (true); ALTER ROLE app NOINHERIT;"
    )
    assert not made.of("RLS216")
    made.execute("GRANT support TO app")
    assert found(made, "RLS216") == [("high", "role app")]
    made.execute("ALTER POLICY all_rows ON invoices TO keeper")
    assert not made.of("RLS216")
    since(made, 16)
    made.execute("ALTER POLICY all_rows ON invoices TO support; GRANT support TO app WITH SET FALSE, INHERIT FALSE")
    assert not made.of("RLS216")
