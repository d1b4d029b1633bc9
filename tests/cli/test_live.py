"""Ways to test a live database other than copying it: databases on its own cluster, and one transaction in place."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rlsaudit.source.server import ScratchServer

WAYS = ["--scratch-on-target", "--in-place"]
MORE = """
CREATE SEQUENCE loose;
CREATE TABLE numbered (tenant_id integer NOT NULL, id serial, always integer GENERATED ALWAYS AS IDENTITY, other bigint
    DEFAULT nextval('loose'), PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, id) REFERENCES numbered DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE numbered ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON numbered USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::integer));
GRANT SELECT, INSERT, UPDATE, DELETE ON numbered TO c_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO c_app;
CREATE VIEW shown WITH (security_invoker) AS SELECT * FROM notes;
GRANT SELECT ON shown TO c_app;
"""

MANY = """
CREATE TABLE many_{0} (tenant_id integer NOT NULL, id integer, a text, b text, c integer, PRIMARY KEY (tenant_id, id));
ALTER TABLE many_{0} ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone ON many_{0} FOR SELECT USING (true);
CREATE POLICY own ON many_{0} USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::integer));
GRANT SELECT, INSERT, UPDATE, DELETE ON many_{0} TO c_app;
"""


def everything(live: ScratchServer) -> list[object]:
    """The whole cluster as pg_dumpall writes it, and what a dump does not hold."""
    command = [live.binary("pg_dumpall"), "-h", str(live.directory), "-U", "postgres"]
    code, output, errors = live.run(command, timeout=60)
    assert code == 0, errors
    lines = [line for line in output.splitlines() if "restrict " not in line]
    with live.connect("target") as connection:
        counts = connection.execute(
            "SELECT relname, relpages, reltuples, relrowsecurity, relfilenode FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " ORDER BY relname"
        ).fetchall()
        drawn = connection.execute("SELECT sequencename, last_value FROM pg_sequences ORDER BY 1").fetchall()
        databases = connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()
    return [lines, counts, drawn, databases]


def evidence(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "rlsaudit-report" / "evidence.json").read_text())


def fill(live: ScratchServer, text: str) -> str:
    with live.connect("target") as connection:
        connection.execute(text.encode())
    return live.conninfo("target")


@pytest.mark.parametrize("way", WAYS)
def test_a_leak_is_found_and_nothing_is_left(target, rlsaudit, tmp_path, way, leaky) -> None:
    source = fill(target, leaky.read_text() + MORE)
    before = everything(target)
    ran = rlsaudit("scan", source, way, "--budget", "0.2")
    assert ran.code == 1, ran.errors
    found = evidence(tmp_path)
    assert any(f["check"] == "PROBE-READ" and f["object"] == "public.notes" for f in found["findings"])
    leaks = [cell for cell in found["cells"] if cell["state"] == "leak"]
    assert {cell["relation"] for cell in leaks} == {"public.notes", "public.shown"}
    assert everything(target) == before


@pytest.mark.parametrize("way", WAYS)
def test_a_sound_schema_has_no_leak(target, rlsaudit, tmp_path, way, sound) -> None:
    source = fill(target, sound.read_text() + MORE)
    before = everything(target)
    ran = rlsaudit("scan", source, way, "--budget", "0.2")
    found = evidence(tmp_path)
    assert [f["message"] for f in found["findings"] if f["source"] == "probe"] == []
    held = [c for c in found["cells"] if c["relation"] == "public.notes"]
    assert {c["state"] for c in held} <= {"held", "proven"}
    if way == "--in-place":
        assert ran.code == 1
        assert any("carryover" in reason for reason in found["reasons"])
        outcomes = {p["property"]: p["outcome"] for p in found["properties"]}
        assert (outcomes["carryover"], outcomes["closed"], outcomes["interference"]) == ("not covered",) * 3
        assert (outcomes["read"], outcomes["alive"], outcomes["detector"]) == ("held",) * 3
    else:
        assert any("SET SESSION AUTHORIZATION" in note for note in found["notes"])
    assert everything(target) == before


PHASES = ["attacking", "checking that the probe can see"]
AFTERWARDS = """
import os
from rlsaudit.cli.main import main
from rlsaudit.source.held import Held
from rlsaudit.source.on_target import TargetScratch

def late(clear, of):
    def signalled(*arguments, **options):
        if of in str(arguments):
            os.kill(os.getpid(), {0})
        return clear(*arguments, **options)
    return signalled

Held.cancel_safe, TargetScratch.drop_database = late(Held.cancel_safe, ""), late(TargetScratch.drop_database, "_world_")
main()
"""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("phase", PHASES)
def test_an_interruption_leaves_nothing(target, tmp_path, environment, way, number, phase, leaky) -> None:
    """What was found is written and none of it reads like a pass; on the target all is as it was."""
    source = fill(target, leaky.read_text() + MORE + "".join(MANY.format(one) for one in range(30)))
    before = everything(target)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments = [sys.executable, "-m", "rlsaudit", "scan", source, way, "--budget", "2"]
    with subprocess.Popen(
        arguments, cwd=tmp_path, env={**environment, "TMPDIR": str(temporary)}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while phase not in (line := process.stderr.readline()):
            assert line, "it ended early"
        time.sleep(1 if phase == "attacking" else 0)  # the first leaks are found within that; the detector is quick
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    found = evidence(tmp_path)
    leaks = [f for f in found["findings"] if f["check"] == "PROBE-READ"]
    assert leaks, errors
    assert found["verdict"] == "not trustworthy"
    assert {cell["state"] for cell in found["cells"]} <= {"leak", "not covered", "no privilege"}
    assert not any(leak["confirmed"] for leak in leaks)
    assert "interrupted" in " ".join(found["reasons"])
    assert everything(target) == before
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.nightly)])
def test_a_signal_while_clearing_up_loses_nothing(target, tmp_path, environment, way, number, leaky) -> None:
    source = fill(target, leaky.read_text())
    before = everything(target)
    arguments = [sys.executable, "-c", AFTERWARDS.format(int(number)), "scan", source, way, "--budget", "0.2"]
    done = subprocess.run(
        arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 128 + number, done.stderr
    found = evidence(tmp_path)
    assert found["verdict"] == "exceptions"
    assert any(f["check"] == "PROBE-READ" for f in found["findings"])
    assert "interrupted when the verdict stood" in done.stderr
    assert everything(target) == before


SHADOWED = """
CREATE ROLE c_app LOGIN; CREATE SCHEMA shop; GRANT USAGE ON SCHEMA shop TO c_app;
CREATE TABLE shop.tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE shop.members (user_id uuid NOT NULL, tenant_id int NOT NULL REFERENCES shop.tenants, PRIMARY KEY (user_id, tenant_id));
CREATE TABLE shop.notes (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES shop.tenants, body text NOT NULL);
ALTER TABLE shop.tenants ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.members ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION shop.mine() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER SET search_path = shop
    AS $$ SELECT m.tenant_id FROM members m WHERE m.user_id = NULLIF(current_setting('app.user_id', true), '')::uuid $$;
CREATE POLICY p ON shop.tenants USING (id IN (SELECT shop.mine()));
CREATE POLICY p ON shop.members USING (user_id = NULLIF(current_setting('app.user_id', true), '')::uuid);
CREATE POLICY p ON shop.notes USING (tenant_id IN (SELECT shop.mine()));
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO c_app; GRANT TRIGGER, UPDATE ON shop.notes TO c_app;
"""


@pytest.mark.parametrize("way", [[], ["--scratch-on-target"]], ids=["embedded", "on-target"])
@pytest.mark.parametrize("revoked", [False, True])
def test_a_copy_has_the_privileges_of_the_database(target, rlsaudit, tmp_path, way, revoked) -> None:
    """Without TEMP nothing can be put before a table; with it, which PUBLIC has by default, it can."""
    source = fill(target, SHADOWED + "REVOKE TEMP ON DATABASE target FROM PUBLIC;" * revoked)
    rlsaudit("probe", source, *way, "--budget", "0")
    said = [f["message"] for f in evidence(tmp_path)["findings"] if f["source"] == "probe"]
    found = {what for what in ("CREATE TEMP TABLE members", "CREATE TRIGGER") if any(what in one for one in said)}
    assert found == (set() if revoked else {"CREATE TEMP TABLE members", "CREATE TRIGGER"}), said


def test_nothing_of_the_whole_cluster_is_planted_on_the_target(target, rlsaudit, tmp_path, sound) -> None:
    source = fill(target, sound.read_text())
    marks = (
        "SELECT rolname, xmin FROM pg_authid UNION ALL SELECT datname, xmin FROM pg_database WHERE datname = 'target'"
    )
    with target.connect() as connection:
        before = connection.execute(marks).fetchall()
    rlsaudit("scan", source, "--scratch-on-target", "--budget", "0", "--detector", "all")
    with target.connect() as connection:
        assert connection.execute(marks).fetchall() == before
    detector = next(p for p in evidence(tmp_path)["properties"] if p["property"] == "detector")
    assert detector["outcome"] == "held"
    assert "BYPASSRLS was not planted, because a role is the whole cluster's" in detector["reason"]


def test_in_place_is_gone_with_its_process(target, tmp_path, environment, leaky) -> None:
    source = fill(target, leaky.read_text() + MORE)
    before = everything(target)
    arguments = [sys.executable, "-m", "rlsaudit", "scan", source, "--in-place"]
    with subprocess.Popen(
        arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "attacking" not in (line := process.stderr.readline()):
            assert line, "it ended early"
        process.kill()
    deadline = time.monotonic() + 10
    with target.connect() as connection:
        while connection.execute("SELECT FROM pg_stat_activity WHERE datname = 'target'").fetchone():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert everything(target) == before


def test_databases_of_a_killed_run_are_mentioned_when_they_are_old(target, rlsaudit, tmp_path, sound) -> None:
    source = fill(target, sound.read_text())
    recent = f"rlsaudit_scratch_{time.strftime('%Y%m%d%H%M', time.gmtime())}_abcd_world"
    with target.connect() as connection:
        connection.execute("CREATE DATABASE rlsaudit_scratch_202001010000_abcd_world")
        connection.execute(f"CREATE DATABASE {recent}".encode())
    rlsaudit("scan", source, "--scratch-on-target", "--budget", "0")
    notes = " ".join(evidence(tmp_path)["notes"])
    assert "rlsaudit_scratch_202001010000_abcd_world" in notes
    assert recent not in notes
    with target.connect() as connection:
        assert connection.execute("SELECT count(*) FROM pg_database WHERE datname ~ '^rlsaudit_'").fetchone() == (2,)


@pytest.mark.parametrize("way", WAYS)
def test_a_login_that_is_no_superuser(target, rlsaudit, way, sound) -> None:
    fill(target, sound.read_text() + "CREATE ROLE reader LOGIN IN ROLE pg_read_all_data;")
    ran = rlsaudit("scan", target.conninfo("target", "reader"), way)
    assert ran.code == 3
    assert len(ran.said) < 8
    assert f"{way} wants a superuser, and reader is none" in ran.said[-1]


def test_in_place_refuses_what_looks_like_production(target, rlsaudit, tmp_path, leaky) -> None:
    source = fill(
        target,
        leaky.read_text()
        + "INSERT INTO notes VALUES (1, 1, 'a row'); SELECT pg_create_physical_replication_slot('standby');",
    )
    before = everything(target)
    with target.connect("target"):
        ran = rlsaudit("scan", source, "--in-place")
    assert ran.code == 2
    assert "looks like production (1 replication slots; 1 other sessions; rows in public.notes)" in ran.said[-1]
    assert "--yes" in ran.said[-1]
    agreed = rlsaudit("scan", source, "--in-place", "--yes")
    assert agreed.code == 1, agreed.errors
    assert "a row" not in (tmp_path / "rlsaudit-report" / "evidence.json").read_text()
    assert everything(target) == before


def test_a_table_that_is_in_use_is_waited_for_only_so_long(target, rlsaudit, leaky) -> None:
    source = fill(target, leaky.read_text())
    with psycopg.connect(target.conninfo("target")) as other:
        other.execute("LOCK TABLE notes")
        ran = rlsaudit("scan", source, "--in-place", "--yes")
    assert ran.code == 3
    assert "lock timeout" in ran.said[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--in-place",), "--in-place is for a live database"),
        (("--scratch-on-target",), "--scratch-on-target is for a live database"),
    ],
)
def test_ways_are_for_live_databases(rlsaudit, sound, arguments, said) -> None:
    ran = rlsaudit("scan", sound, *arguments)
    assert ran.code == 2
    assert said in ran.errors
