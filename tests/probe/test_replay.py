"""Replay scripts of schemas whose names try to break out of them."""

from __future__ import annotations

import time

import pytest

from rlsaudit.probe.replay.script import schema_script
from rlsaudit.probe.replaying import replay_output
from rlsaudit.probe.run import probe
from rlsaudit.source.server import ScratchServer

NAMES = [
    pytest.param('quo"te', id="quote"),
    pytest.param("apo'strophe", id="apostrophe"),
    pytest.param("back\\slash", id="backslash"),
    pytest.param("co:lon :name :'lit' :\"id\"", id="colon"),
    pytest.param("semi; DROP TABLE x; --", id="semicolon"),
    pytest.param("dollar $$ $a$", id="dollar"),
    pytest.param("\\gset \\! echo LEAK", id="psql command"),
    pytest.param("new\nline\n\\echo LEAK", id="newline"),
    pytest.param("ünï ☃", id="unicode"),
    pytest.param("per%cent %s %I {} {0}", id="percent"),
    pytest.param("/* comment", id="comment"),
]


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _schema(name: str, predicate: str) -> str:
    n = _identifier(name)
    return f"""
        CREATE ROLE {_identifier("app " + name)} LOGIN;
        CREATE SCHEMA {n};
        CREATE TABLE {n}.{n} ("tenant_id" int NOT NULL, {n} text NOT NULL, PRIMARY KEY (tenant_id, {n}));
        ALTER TABLE {n}.{n} ENABLE ROW LEVEL SECURITY;
        CREATE POLICY {n} ON {n}.{n} USING ({predicate});
        GRANT USAGE ON SCHEMA {n} TO {_identifier("app " + name)};
        GRANT SELECT, DELETE ON {n}.{n} TO {_identifier("app " + name)};
    """


OWN = "tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int"
OPEN = f"tenant_id > 0 OR {OWN}"


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names(schema, server, name) -> None:
    leaky = schema(_schema(name, OPEN))
    result = leaky.probe()
    assert {(f.property, f.confirmed) for f in result.findings} >= {("read", True), ("write", True)}
    assert not [f for f in result.findings if not f.confirmed]
    sound = schema(_schema(name, OWN).partition("LOGIN;")[2])
    for finding in result.findings:
        assert replay_output(server, finding.replay, sound.schema_script()).strip().splitlines() == ["HELD"]


def test_nothing_of_a_replay_stays(schema, server) -> None:
    leaky = schema(_schema("plain", OPEN))
    result = leaky.probe()
    assert result.findings
    for finding in result.findings:
        assert replay_output(server, finding.replay, result.schema).strip() == "LEAK"
    with server.connect() as connection:
        names = [str(name) for (name,) in connection.execute("SELECT datname FROM pg_database")]
    assert not [name for name in names if name.startswith("rlsaudit_")]


BROUGHT = """
CREATE ROLE b_app LOGIN;
CREATE TABLE templates (id uuid {0}, tenant_id int, body text NOT NULL, uses int NOT NULL DEFAULT 0);
INSERT INTO templates (id, body) SELECT ('00000000-0000-0000-0000-00000000010' || n)::uuid, 'for all' FROM generate_series(0, 4) n;
CREATE TABLE notes (tenant_id int NOT NULL, id int PRIMARY KEY, body text NOT NULL);
CREATE FUNCTION used() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN UPDATE templates SET uses = uses + {1} WHERE tenant_id IS NULL; RETURN NULL; END $$;
CREATE TRIGGER used AFTER INSERT ON notes FOR EACH STATEMENT EXECUTE FUNCTION used();
ALTER TABLE templates ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON templates USING (tenant_id IS NULL OR tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT ON templates, notes TO b_app;
"""


@pytest.mark.parametrize(("key", "step"), [("PRIMARY KEY", 0), ("PRIMARY KEY", 1), ("", 0)])
def test_rows_that_the_schema_brings_along_are_not_inserted_again(schema, key, step) -> None:
    """Rows of a tenant's relation that all share: migrations bring such along, and triggers change them."""
    result = schema(BROUGHT.format(key, step)).probe()
    (leak,) = (one for one in result.findings if one.object == "public.notes")
    assert leak.confirmed
    assert "for all" not in leak.replay


@pytest.mark.parametrize("broken", [False, True])
def test_the_schema_is_loaded_by_the_first_script_and_once_for_all_others(schema, server, monkeypatch, broken) -> None:
    """Where it cannot be loaded ahead, every script loads it."""
    loading, run = [], server.run_psql

    def counted(dbname, text, *, timeout):
        ahead = text.startswith("\\set ON_ERROR_STOP on")
        loading.append("CREATE POLICY" in text)
        return (3, "") if broken and ahead else run(dbname, text, timeout=timeout)

    monkeypatch.setattr(server, "run_psql", counted)
    result = schema(
        _schema("plain", OPEN) + 'CREATE TABLE more (LIKE plain.plain); GRANT ALL ON more TO "app plain";'
    ).probe()
    assert len(result.findings) >= 4
    assert all(finding.confirmed for finding in result.findings)
    assert sum(loading) == (1 + len(result.findings) if broken else 2)
    assert len(loading) == 1 + len(result.findings)
    with server.connect() as connection:
        names = [str(name) for (name,) in connection.execute("SELECT datname FROM pg_database")]
    assert not [name for name in names if name.startswith("rlsaudit_")]


def test_scripts_that_have_not_begun_are_dropped_when_the_run_is_ended(schema, server, monkeypatch) -> None:
    tables = "".join(
        f'CREATE TABLE more_{n} (LIKE plain.plain); GRANT ALL ON more_{n} TO "app plain";' for n in range(4)
    )
    loaded = schema(_schema("plain", OPEN) + tables)
    begun, run = [], server.run_psql

    def slow(dbname, text, *, timeout):
        begun.append(text)
        time.sleep(1)
        return run(dbname, text, timeout=timeout)

    def progress(what, done, of):
        if "replaying" in what and done == of - 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(server, "run_psql", slow)
    result = probe(server, loaded.name, loaded.catalog, loaded.tenancy, seed=0, budget=0, progress=progress)
    assert result.interrupted
    assert len(result.findings) > 10
    assert len(begun) < len(result.findings) - 3
    assert not any(finding.confirmed for finding in result.findings)


def test_roles_that_are_missing_are_made_and_dropped(schema, server) -> None:
    """On another cluster the script makes the roles it needs, and takes them away again."""
    leaky = schema(_schema("plain", OPEN) + 'CREATE ROLE grp; GRANT grp TO "app plain";')
    result = leaky.probe()
    text = schema_script(server.dump_schema(leaky.name, data=True), leaky.catalog)
    assert "CREATE ROLE" in text
    with ScratchServer(server.binary("postgres").parent) as elsewhere:
        assert replay_output(elsewhere, result.findings[0].replay, text).strip() == "LEAK"
        with elsewhere.connect() as connection:
            roles = connection.execute("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'").fetchall()
    assert roles == [("postgres",)]
