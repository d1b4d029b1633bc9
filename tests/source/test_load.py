from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlsaudit.errors import UsageError
from rlsaudit.source.execute import MissingExtension
from rlsaudit.source.files import SqlFile, decode, read
from rlsaudit.source.load import LoadResult, load_sql
from rlsaudit.source.server import ScratchServer

Load = Callable[..., LoadResult]


def one(server: ScratchServer, database: str, query: str) -> object:
    with server.connect(database) as connection:
        row = connection.execute(query).fetchone()  # type: ignore[call-overload]
    assert row is not None
    return row[0]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("select 1;\n\nselect 1,\n  nope;", r'^schema\.sql:4: select 1, nope: column "nope" does not exist$'),
        (
            "select 1;\ncreate policy p\n on nope using (true);",
            r"^schema\.sql:2: create policy p on nope using",
        ),
        (
            "\n\ncreate table t(a int);\ncopy t from stdin;\n1\nx\n\\.\n",
            r"^schema\.sql:6: copy t .*type integer",
        ),
        ("select '\nabc", r"^schema\.sql:1: a string begins here and is never closed$"),
        ("select 1;\n/* a /* b */", r"^schema\.sql:2: a comment begins here"),
        ("\\if true\nselect 1;", r"^schema\.sql:2: \\if without \\endif"),
        ("\\endif", r"^schema\.sql:1: \\endif without \\if$"),
        ("\\if maybe\n\\endif", r"^schema\.sql:1: \\if wants true or false, not 'maybe'$"),
        ("begin;\ncreate table t();", r"^schema\.sql: the transaction begun at schema\.sql:1 is still open"),
        ("begin; \\c other", r"transaction begun at schema\.sql:1 is still open"),
        ("create role x; create role x;", r'role "x" already exists$'),
        ("grant pg_nope to pg_nope2;", "reserved.*--pg-bin"),
        ("select :x;", "a psql variable that is not set"),
        ("select 1 as a where false \\gset", "gset wants one row, the query returned 0"),
        ("\\i other.sql", "standard input has no directory"),
        ("select pg_sleep(30);", r"still running after 0\.4 seconds; it was cancelled$"),
        ("set statement_timeout = 0;\nbegin; select pg_sleep(30);", r"^schema\.sql:2: .*still running"),
    ],
)
def test_a_failure_is_one_line_with_its_place(load: Load, script: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(script, seconds=0.4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "script",
    [
        "\\! touch {mark}",
        "\\copy t from '/etc/passwd'",
        "\\copy t to program 'touch {mark}'",
        "\\o {mark}",
        "\\out |touch {mark}",
        "\\w {mark}",
        "select 1 \\g {mark}",
        "select 1 \\gx |touch {mark}",
        "\\set x `touch {mark}`",
        "\\echo `touch {mark}`",
        "\\cd /",
        "\\getenv x HOME",
        "\\prompt x",
        "select 1 \\watch",
        "\\unknown",
        "\\c db user example.org 5432",
        "\\c 'host=example.org dbname=x'",
        "\\c postgresql://example.org/x",
        "copy (select 1) to program 'touch {mark}';",
        "create table t(a int); copy t from '/etc/hostname';",
        "copy (select 1) to E'{mark}' with csv;",
        "create subscription s connection 'host=example.org' publication p;",
    ],
)
def test_what_leads_out_is_refused(load: Load, tmp_path: Path, script: str) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(UsageError, match=r"^schema\.sql:1: .*(is not carried out|would|shell command)"):
        load(script.format(mark=mark))
    assert not mark.exists()


def test_nothing_is_refused_in_a_branch_not_taken(load: Load) -> None:
    assert load("\\if false\n\\! ls\n\\set x `ls`\n\\o f\n\\endif\nselect 1;").statements == 1


def test_missing_roles_are_made_plain(load: Load, server: ScratchServer, database: str) -> None:
    result = load(
        """
        create table t(a int); alter table t owner to "Own er"; grant select on t to app, reader;
        create policy p on t to "pol;icy" using (true); create schema s authorization sown;
        begin; create table u(a int); grant all on u to later; set role setrole; select current_user; commit;
        reset role; alter default privileges for role dfl grant select on tables to dfl2;
        begin; grant app to undone; rollback; grant app to undone;
        do $$ begin execute 'grant select on t to dynamic'; end $$;
        """
    )
    names = {
        "Own er",
        "app",
        "reader",
        "pol;icy",
        "sown",
        "later",
        "setrole",
        "dfl",
        "dfl2",
        "undone",
        "dynamic",
    }
    assert set(result.roles_created) == names
    flags = "rolcanlogin or rolsuper or rolbypassrls or rolcreaterole"
    assert (
        one(
            server,
            database,
            f"select count(*) from pg_roles where rolname in ('app', 'undone') and ({flags})",
        )
        == 0
    )
    assert one(server, database, "select pg_has_role('undone', 'app', 'member')") is True
    assert one(server, database, "select count(*) from pg_class where relname = 'u'") == 1


def test_a_role_made_too_early_becomes_what_its_statement_says(
    load: Load, server: ScratchServer, database: str
) -> None:
    result = load(
        """create table t(a int); grant select on t to app;
        create user app with nosuperuser bypassrls in role g1, "G 2" role m1 admin m2
          connection limit 3 password 'x' createdb;"""
    )
    assert result.roles_created == ("g1", "G 2", "m1", "m2")
    query = "select array[rolcanlogin, rolbypassrls, rolcreatedb, rolsuper, rolconnlimit = 3] from pg_roles where rolname = 'app'"
    assert one(server, database, query) == [True, True, True, False, True]
    assert (
        one(
            server,
            database,
            "select pg_has_role('app', 'G 2', 'member') and pg_has_role('m1', 'app', 'member')",
        )
        is True
    )
    assert one(server, database, "select has_table_privilege('app', 't', 'select')") is True


def test_a_second_load_resets_the_roles_it_creates(load: Load, server: ScratchServer, database: str) -> None:
    load("create role app login bypassrls createdb;")
    load("create role app login;")
    assert one(server, database, "select rolbypassrls or rolcreatedb from pg_roles where rolname = 'app'") is False


def test_statements_about_the_database_mean_the_scratch_database(
    load: Load, server: ScratchServer, database: str
) -> None:
    result = load(
        """create database prod owner app; \\c prod
        alter database prod set app.x = 'y'; alter database "Prod" owner to app; comment on database prod is 'c';
        revoke all on database prod, "B" from public; grant connect on database prod to app;
        alter role app in database prod set app.z = '1'; alter database prod rename to other; drop database if exists x;
        """
    )
    assert one(server, database, "select current_setting('app.x')") == "y"
    assert (
        one(
            server,
            database,
            "select datdba::regrole::text from pg_database where datname = current_database()",
        )
        == "app"
    )
    assert one(server, database, "select has_database_privilege('app', current_database(), 'connect')") is True
    assert one(server, database, "select count(*) from pg_db_role_setting where setrole <> 0") == 1
    assert "CREATE DATABASE prod is left out" in result.notes
    assert "ALTER DATABASE prod RENAME TO is left out" in result.notes


def test_connect_switches_the_role_and_starts_a_new_session(load: Load, server: ScratchServer, database: str) -> None:
    load(
        "create schema s; create role app; grant create on schema s to app; set search_path = s;\n\\c - app\ncreate table s.t(a int);"
    )
    assert one(server, database, "select relowner::regrole::text from pg_class where relname = 't'") == "app"


def test_a_continued_escape_string_is_read_as_the_server_reads_it(
    load: Load, server: ScratchServer, database: str
) -> None:
    load("create table t as select E'con'  -- ;\n 'tin\\';ued;' as a; create table after();")
    assert one(server, database, "select a || (select count(*) from after) from t") == "contin';ued;0"


def test_settings_last_over_statements_and_files(server: ScratchServer, database: str) -> None:
    files = [
        SqlFile("create schema s; set search_path = s;", "a.sql"),
        SqlFile("create table t(a int);", "b.sql"),
    ]
    result = load_sql(lambda: server.connect(database), files)
    assert result.places["table s.t"] == ("b.sql", 1)


def test_places_and_no_trace(load: Load, server: ScratchServer, database: str) -> None:
    result = load(
        """set client_min_messages = error;
create table t(a int);
create policy p on t using (true);

alter policy p on t using (false);
create or replace function f(a int) returns int language sql return a;
create or replace function f(a int) returns int language sql return a + 1;
create view v as select 1; alter table t enable row level security;
create temp table hidden(a int);
"""
    )
    assert result.places == {
        "table public.t": ("schema.sql", 2),
        "policy p on public.t": ("schema.sql", 5),
        "function public.f(integer)": ("schema.sql", 7),
        "view public.v": ("schema.sql", 8),
    }
    left = "select (select count(*) from pg_event_trigger) + (select count(*) from pg_namespace where nspname ~ 'rlsaudit')"
    assert one(server, database, left) == 0


def test_what_needs_autocommit_works(load: Load) -> None:
    load("create table t(a int); create index concurrently i on t(a); vacuum t; reindex index concurrently i;")


def test_missing_extension_names_the_ways_out(load: Load) -> None:
    with pytest.raises(MissingExtension, match=r"^schema\.sql:2: .*no extension 'not_there'.*--pg-bin"):
        load("select 1;\ncreate extension not_there;")


def test_no_password_in_messages(load: Load) -> None:
    with pytest.raises(UsageError) as caught:
        load("create role x password 'canary-1' nonsense;")
    assert "canary" not in str(caught.value)


def test_other_servers_are_cut_off(load: Load, server: ScratchServer, database: str) -> None:
    result = load(
        """create extension postgres_fdw; create server s foreign data wrapper postgres_fdw options (host '192.0.2.1');
        create foreign table f(a int) server s; create extension dblink;
        create user mapping for public server s options (user 'x', password 'y');"""
    )
    assert len(result.notes) == 2
    for query, reason in (
        ("select * from f", "has no handler"),
        ("select dblink_connect('host=192.0.2.1')", "could not access file"),
    ):
        assert reason in server.run_psql(database, query + ";", timeout=10)[1]


def test_include(server: ScratchServer, database: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "all.sql").write_text("\\i sub/a.sql\n\\ir sub/a.sql\n")
    (tmp_path / "sub" / "a.sql").write_text("create table if not exists a(a int);\n\\ir 'b c.sql'\n")
    (tmp_path / "sub" / "b c.sql").write_text("create table if not exists b(a int);\n")
    result = load_sql(lambda: server.connect(database), [read(tmp_path / "all.sql")])
    assert result.statements == 4
    assert result.places["table public.b"] == (str(tmp_path / "sub" / "b c.sql"), 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("\\i ../outside.sql", "lies outside"),
        ("\\i /etc/passwd", "lies outside"),
        ("\\ir link.sql", "lies outside"),
        ("\\i missing.sql", "no such file"),
        ("\\i self.sql", "include each other"),
        ("\\i", "wants a file name"),
    ],
)
def test_include_stays_inside(server: ScratchServer, database: str, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "outside.sql").write_text("create table outside();")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.sql").symlink_to(tmp_path / "outside.sql")
    (root / "self.sql").write_text(line)
    with pytest.raises(UsageError, match=message):
        load_sql(lambda: server.connect(database), [read(root / "self.sql")])


def test_a_dump_of_an_older_server_loads(server: ScratchServer, older_server: ScratchServer, database: str) -> None:
    script = """
        create role app; create schema "S x"; create table "S x".t(id int generated always as identity, a text default 'x;');
        alter table "S x".t enable row level security; create policy "p;" on "S x".t to app using (a = 'b''c;');
        grant select (a) on "S x".t to app; insert into "S x".t(a) values (E'a\\tb\\n\\\\.'), (null), ('\\.');
        create function f(i int) returns int begin atomic select case i when 1 then 2 end; end;
        create view v with (security_invoker) as select * from "S x".t; create materialized view m as select 1 as a;
    """
    older_server.create_database("old")
    load_sql(lambda: older_server.connect("old"), [SqlFile(script, "s.sql")])
    dump = older_server.dump_schema("old", data=True)
    result = load_sql(lambda: server.connect(database), [SqlFile(dump, "dump.sql")])
    assert result.roles_created == ("app",)
    dump = server.dump_schema(database, data=True)
    for wanted in ('CREATE POLICY "p;"', "a\\tb\\n", "BEGIN ATOMIC", "security_invoker"):
        assert wanted in dump
    server.create_database("again")
    load_sql(lambda: server.connect("again"), [SqlFile(dump, "dump.sql")])
    again = server.dump_schema("again", data=True)
    server.drop_database("again")
    older_server.drop_database("old")
    assert [line for line in again.splitlines() if "restrict " not in line] == [
        line for line in dump.splitlines() if "restrict " not in line
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"PGDMP\x01", "pg_restore"), (b"select 1;\n\xff", "f:2: not UTF-8"), (b"select\0", "NUL")],
)
def test_what_is_no_sql_text(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decode(data, "f")


def test_byte_order_marks() -> None:
    assert decode("select 'é'".encode("utf-16"), "f") == decode("select 'é'".encode("utf-8-sig"), "f") == "select 'é'"
