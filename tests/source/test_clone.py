from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.errors import NotTrustworthy
from rlsaudit.source import difference, dsn, process
from rlsaudit.source.clone import clone, restore
from rlsaudit.source.files import SqlFile
from rlsaudit.source.load import load_sql
from rlsaudit.source.server import ScratchServer

SCHEMA = """
create role own login createdb; create role app login noinherit; create role boss bypassrls;
grant boss to app with admin option; grant own to boss; grant pg_read_all_data to boss;
alter role app set search_path = "$user", public, "We ird"; alter role app set app.tenant_id = 'x''y';
alter role all set app.every = '1'; alter role app set session_preload_libraries = 'auto_explain';
alter database d set app.db = 'q'; alter role app in database d set app.two = 'z';
alter database d owner to own; revoke all on database d from public; grant connect on database d to app;
create extension hstore; create schema "We ird";
create table "We ird"."T x"(id int primary key, tenant_id int default 3, j hstore);
alter table "We ird"."T x" owner to own; alter table "We ird"."T x" enable row level security, force row level security;
create policy "p;p" on "We ird"."T x" to app using (tenant_id = current_setting('app.tenant_id')::int);
grant select, insert (id) on "We ird"."T x" to app with grant option;
create function public.f(a int) returns int language sql begin atomic select case when a = 1 then 2 end; end;
alter default privileges for role own grant select on tables to app;
create publication pub for table "We ird"."T x" where (id > 1);
insert into "We ird"."T x" values (1, 2);
"""

OPTIONS = "create role aux; grant aux to app with set false, inherit true; create role bux; grant bux to app with inherit false;"


@pytest.fixture(scope="module")
def target() -> Iterator[ScratchServer]:
    with ScratchServer() as running:
        running.create_database("d")
        load_sql(lambda: running.connect("d"), [SqlFile(SCHEMA + OPTIONS, "schema.sql")])
        yield running


@pytest.fixture(scope="module")
def catalog(target: ScratchServer) -> Catalog:
    with dsn.connect(target.conninfo("d")) as connection:
        return load_catalog(connection)


def roles(catalog: Catalog) -> list[object]:
    return sorted(dataclasses.astuple(role)[1:] for role in catalog.roles if not role.predefined)


def memberships(catalog: Catalog) -> list[object]:
    name = catalog.role_name
    return sorted(
        (name(m.role), name(m.member), m.admin, m.inherit, m.set)
        for m in catalog.memberships
        if not catalog.role(m.member).predefined
    )


def settings(catalog: Catalog) -> list[tuple[str, bool, str, str]]:
    return sorted(
        (catalog.role_name(s.role), bool(s.database), s.name, s.value)
        for s in catalog.settings
        if s.name != "session_preload_libraries"
    )


def schema(server: ScratchServer, name: str) -> list[str]:
    return [line for line in server.dump_schema(name, data=True).splitlines() if "restrict " not in line]


def test_round_trip(target: ScratchServer, catalog: Catalog) -> None:
    rows_before = schema(target, "d")
    with ScratchServer() as scratch:
        notes = clone(target.conninfo("d"), catalog, scratch, "copy")
        with scratch.connect("copy") as connection:
            copied = load_catalog(connection)
            count = connection.execute('select count(*) from "We ird"."T x"').fetchone()
            access = connection.execute(
                "select datdba::regrole::text, datacl::text from pg_database where datname = 'copy'"
            ).fetchone()
        assert count == (0,)
        assert access == ("own", "{own=CTc/own,app=c/own}")
        assert roles(copied) == roles(catalog)
        assert memberships(copied) == memberships(catalog)
        assert settings(copied) == settings(catalog)
        ours = [line for line in scratch.dump_schema("copy", data=False).splitlines() if "restrict " not in line]
        theirs = [line for line in target.dump_schema("d", data=False).splitlines() if "restrict " not in line]
        assert ours == theirs
    assert notes == ("setting session_preload_libraries of role app is left out of the scratch copy",)
    assert schema(target, "d") == rows_before


def test_an_older_target(older_server: ScratchServer, server: ScratchServer, database: str) -> None:
    older_server.create_database("d")
    load_sql(lambda: older_server.connect("d"), [SqlFile(SCHEMA, "schema.sql")])
    with dsn.connect(older_server.conninfo("d")) as connection:
        catalog = load_catalog(connection)
    with ScratchServer() as scratch:
        notes = clone(older_server.conninfo("d"), catalog, scratch, "copy")
        with scratch.connect("copy") as connection:
            copied = load_catalog(connection)
    assert roles(copied) == roles(catalog)
    assert memberships(copied) == memberships(catalog)
    assert any("behaviour that changed in between is not covered" in note for note in notes)


def test_a_newer_target(catalog: Catalog, server: ScratchServer) -> None:
    newer = dataclasses.replace(catalog, server=dataclasses.replace(catalog.server, version_num=990000))
    with pytest.raises(NotTrustworthy, match=r"target runs PostgreSQL 99, newer .*--pg-bin"):
        clone("host=nowhere", newer, server, "copy")


BEYOND = """
create extension xml2; create extension sslinfo; create role beyond_app;
create table plain (id int primary key, tenant_id int); create table guarded (id int primary key, tenant_id int, x text);
create table checked (id int primary key, tenant_id int, x text check (xml_valid(x)));
create function public.uses() returns boolean language sql begin atomic select xml_valid('<a/>'); end;
create view seen as select id, xml_valid(x) as valid from guarded;
create table below (id int primary key references checked, tenant_id int);
alter table plain enable row level security; alter table guarded enable row level security;
create policy p on plain using (tenant_id = 1); create policy q on guarded using (tenant_id = 1 and xml_valid(x));
create policy r on guarded for select using (tenant_id = 1);
"""


def test_what_needs_a_missing_extension_is_left_out_and_told(older_server: ScratchServer) -> None:
    older_server.create_database("beyond")
    try:
        load_sql(lambda: older_server.connect("beyond"), [SqlFile(BEYOND, "schema.sql")])
        with dsn.connect(older_server.conninfo("beyond")) as connection:
            catalog = load_catalog(connection)
        with ScratchServer() as scratch:
            notes = clone(older_server.conninfo("beyond"), catalog, scratch, "copy")
            with scratch.connect("copy") as connection:
                copied = load_catalog(connection)
    finally:
        older_server.drop_database("beyond")
        with older_server.connect() as connection:
            connection.execute("drop role beyond_app")
    said = next(note for note in notes if "lacks the target's" in note)
    assert 'extension "sslinfo", extension "xml2"' in said
    assert "--pg-bin" in said
    assert "--scratch-on-target" in said
    assert difference.relations(catalog, copied) == {
        "public.below": "constraint below_id_fkey could not be made",
        "public.checked": "it could not be made",
        "public.guarded": "policy q could not be made",
        "public.seen": "it could not be made",
    }
    assert [function.signature for function in difference.functions(catalog, copied)] == ["public.uses()"]


def test_a_copy_without_gaps_differs_in_nothing(target: ScratchServer, catalog: Catalog) -> None:
    with ScratchServer() as scratch:
        clone(target.conninfo("d"), catalog, scratch, "copy")
        with scratch.connect("copy") as connection:
            copied = load_catalog(connection)
            assert difference.relations(catalog, copied) == {}
            assert difference.functions(catalog, copied) == ()
            connection.execute('drop policy "p;p" on "We ird"."T x"')
            changed = load_catalog(connection)
    assert difference.relations(catalog, changed) == {'"We ird"."T x"': "policy p;p could not be made"}


def test_another_error_than_a_lack_ends_the_restore(catalog: Catalog, server: ScratchServer, database: str) -> None:
    with pytest.raises(NotTrustworthy, match=r"cannot be restored on the scratch server: .*syntax error"):
        restore("CREATE TABEL t ();", catalog, server, database)
    with pytest.raises(NotTrustworthy, match="does not exist"):
        restore("ALTER TABLE nowhere ENABLE ROW LEVEL SECURITY;", catalog, server, database)


@pytest.mark.parametrize(
    ("statement", "lacking"),
    [
        ("CREATE EXTENSION plpython3u;", 'extension "plpython3u"'),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE plv8 AS 'return 1';", 'language "plv8"'),
        ("CREATE TABLE t (); SECURITY LABEL FOR selinux ON TABLE t IS 'x';", 'security label provider "selinux"'),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE c AS '$libdir/nowhere', 'f';", 'library "nowhere"'),
    ],
)
def test_lacks_are_named(statement: str, lacking: str, catalog: Catalog, server: ScratchServer, database: str) -> None:
    notes = restore(statement, catalog, server, database)
    assert any(lacking in note and "--pg-bin" in note for note in notes), notes


def test_privileges_of_roles_that_are_gone(catalog: Catalog, server: ScratchServer, database: str) -> None:
    dump = 'CREATE TABLE t (); GRANT SELECT ON t TO "16999";'
    notes = restore(dump, catalog, server, database)
    assert notes == ["the target holds privileges of roles that are gone (16999); the copy has them as empty roles"]
    notes = restore('GRANT INSERT ON t TO "16998";', catalog, server, database, roles_fixed=True)
    with server.connect() as connection:
        assert connection.execute("select from pg_roles where rolname = '16998'").fetchone() is None


def test_the_password_is_in_no_argument_and_no_message(
    target: ScratchServer, catalog: Catalog, server: ScratchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    spawn = process.spawn

    def watched(command: list[str | Path], **options: object) -> object:
        seen.extend(map(str, command))
        return spawn(command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("rlsaudit.source.programs.process.spawn", watched)
    with pytest.raises(NotTrustworthy, match="pg_dump of the target failed") as caught:
        clone("host=localhost port=1 password=canary user=x", catalog, server, "copy")
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert seen
    assert not any("canary" in argument for argument in seen)


def test_a_role_that_may_not_read(target: ScratchServer, catalog: Catalog, server: ScratchServer) -> None:
    with target.connect("d") as connection:
        connection.execute("create role weak login; grant connect on database d to weak")
    try:
        with pytest.raises(NotTrustworthy, match=r"permission denied.*pg_read_all_data"):
            clone(target.conninfo("d", "weak"), catalog, server, "copy")
    finally:
        with target.connect("d") as connection:
            connection.execute("drop owned by weak; drop role weak")
