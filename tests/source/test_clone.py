from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog, Extension
from rlsaudit.errors import NotTrustworthy
from rlsaudit.source import dsn, process
from rlsaudit.source.clone import clone
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


def test_missing_extensions_are_all_named(catalog: Catalog, server: ScratchServer) -> None:
    more = (*catalog.extensions, Extension("zz_b", "1", "public"), Extension("zz_a", "1", "public"))
    with pytest.raises(NotTrustworthy, match=r"lacks the target's extension zz_a, zz_b; .*--pg-bin"):
        clone("host=nowhere", dataclasses.replace(catalog, extensions=more), server, "copy")


def test_the_password_is_in_no_argument_and_no_message(
    target: ScratchServer, catalog: Catalog, server: ScratchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    spawn = process.spawn

    def watched(command: list[str | Path], **options: object) -> object:
        seen.extend(map(str, command))
        return spawn(command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("rlsaudit.source.clone.process.spawn", watched)
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
