"""Parts of a run: each attacks its share and gives no verdict; together they are the whole run, or an error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlsaudit import evidence
from rlsaudit.errors import UsageError
from rlsaudit.report import Report
from rlsaudit.shards import Shard, parse

OWN = "tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::int)"
SCHEMA = f"""
CREATE ROLE s_app LOGIN;
CREATE TABLE notes (id int PRIMARY KEY, tenant_id int NOT NULL, body text NOT NULL);
CREATE TABLE drafts (id int PRIMARY KEY, tenant_id int NOT NULL, body text NOT NULL);
CREATE TABLE loose (id int PRIMARY KEY, tenant_id int NOT NULL, body text NOT NULL);
CREATE TABLE events (tenant_id int NOT NULL, id int NOT NULL, body text NOT NULL) PARTITION BY LIST (tenant_id);
CREATE TABLE events_first PARTITION OF events FOR VALUES IN (1);
CREATE TABLE events_rest PARTITION OF events DEFAULT;
ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE drafts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON notes USING ({OWN});
CREATE POLICY own ON drafts USING ({OWN} OR body = 'public');
CREATE POLICY own ON events USING ({OWN});
CREATE VIEW everything AS SELECT * FROM notes;
CREATE FUNCTION found(word text) RETURNS SETOF drafts LANGUAGE sql STABLE AS $$ SELECT * FROM public.drafts WHERE body = word $$;
CREATE FUNCTION all_bodies() RETURNS SETOF text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
    AS $$ SELECT body FROM public.drafts $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON notes, drafts, loose, events, events_rest TO s_app;
GRANT SELECT ON everything TO s_app;
"""


def rlsaudit(directory: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "rlsaudit", *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=300)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run in ``whole`` and the same in three parts."""
    directory = tmp_path_factory.mktemp("run")
    (directory / "schema.sql").write_text(SCHEMA)
    common = ["scan", "schema.sql", "--budget", "0", "-q", "--output-dir"]
    assert rlsaudit(directory, *common, "whole")[0] == 1
    for number in (1, 2, 3):
        code, output = rlsaudit(directory, *common, f"p{number}", "--shard", f"{number}/3")
        assert code == 0
        assert f"Part {number}/3: " in output
        assert "No verdict: merge all parts with rlsaudit merge." in output
        assert [file.name for file in (directory / f"p{number}").iterdir()] == ["shard.json"]
    return directory


def report(directory: Path) -> Report:
    return evidence.parse((directory / "evidence.json").read_text())


@pytest.mark.slow
def test_the_parts_are_the_whole(run: Path) -> None:
    code, output = rlsaudit(run, "merge", "p3", "p1", "p2", "--output-dir", "merged")
    assert code == 1, output
    merged, whole = report(run / "merged"), report(run / "whole")
    assert {(c.relation, c.role, c.command, c.state) for c in merged.cells} == {
        (c.relation, c.role, c.command, c.state) for c in whole.cells
    }
    assert len(merged.cells) == len(whole.cells)
    assert {(f.check, f.object, f.command, f.also) for f in merged.findings} == {
        (f.check, f.object, f.command, f.also) for f in whole.findings
    }
    assert merged.population == whole.population
    assert (merged.verdict, merged.exit_code, merged.reasons) == (whole.verdict, whole.exit_code, whole.reasons)
    assert {(p.property, p.role, p.outcome) for p in merged.properties} == {
        (p.property, p.role, p.outcome) for p in whole.properties
    }
    script = next((run / "merged" / "replay").glob("F-*.sql"))
    assert "LEAK" in rlsaudit(run, "replay", str(script))[1]
    assert rlsaudit(run, "verify", "merged")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["p1", "p3"], "part 2 of 3 is missing"),
        (["p1", "p2", "p2", "p3"], "part 2 was given twice"),
        (["p1", "p2", "other"], "parts of different runs: 1/3, 2/3, 3/4"),
        (["p1", "p2", "changed"], "do not have the same catalog"),
        (["p1", "p2", "less"], "the parts together do not attack every relation once: public."),
        (["p1", "p2", "newer"], "do not have the same version of rlsaudit"),
        (["p1", "p2", "configured"], "another configuration"),
    ],
)
def test_what_is_no_whole_run_has_no_verdict(run: Path, given: list[str], said: str) -> None:
    def altered(name: str, **changes: object) -> None:
        (run / name).mkdir(exist_ok=True)
        part = json.loads((run / "p3" / "shard.json").read_text())
        (run / name / "shard.json").write_text(json.dumps(part | changes))

    altered("other", shard="3/4")
    altered("changed", catalog_fingerprint="0" * 64)
    altered("less", relations=[])
    altered("newer", tool_version="99")
    altered("configured", configuration_hash="0" * 64)
    code, output = rlsaudit(run, "merge", *given, "--output-dir", "wrong")
    assert (code, said in output) == (3, True), output
    assert not list((run / "wrong").glob("*"))


def test_what_is_no_part(tmp_path: Path) -> None:
    (tmp_path / "shard.json").write_text("{}")
    for given, said in ((".", "not an evidence file"), ("missing", "cannot be read")):
        code, output = rlsaudit(tmp_path, "merge", given)
        assert (code, said in output) == (2, True), output
    (tmp_path / "schema.sql").write_text("CREATE TABLE t (tenant_id int)")
    code, output = rlsaudit(tmp_path, "scan", "schema.sql", "--shard", "4/3")
    assert (code, "--shard 4/3: give the number of the part" in output) == (2, True)


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1", "1/", "a/b", "1/0", "-1/3"])
def test_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--shard {text}")):
        parse(text)


def test_every_name_is_in_one_part_and_stays_there() -> None:
    names = [f"public.t{number}" for number in range(400)]
    shards = [Shard(number, 8) for number in range(1, 9)]
    found = [[shard.number for shard in shards if shard.has(name)] for name in names]
    assert all(len(one) == 1 for one in found)
    sizes = [sum(one == [number] for one in found) for number in range(1, 9)]
    assert min(sizes) > 25
    assert [str(shard) for shard in shards if shard.has("public.invoices")] == ["6/8"]  # stable from version to version
