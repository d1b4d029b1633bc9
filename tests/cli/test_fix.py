"""``rlsaudit fix``: the script closes what the audit found, and says what it could not."""

from __future__ import annotations

import re

from click.testing import CliRunner

from rlsaudit.cli import cli
from rlsaudit.finding import Finding
from rlsaudit.mend import Mended, Step, proposed, script
from rlsaudit.tenancy import roles

LEAKY = """
CREATE ROLE f_app LOGIN;
CREATE ROLE f_keeper NOLOGIN;
CREATE TABLE notes (tenant_id integer NOT NULL, note_id integer, body text NOT NULL, PRIMARY KEY (tenant_id, note_id));
ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON notes USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::integer);
CREATE POLICY everyone ON notes FOR SELECT USING (true);
CREATE TABLE tasks (tenant_id integer NOT NULL, id integer, title text, PRIMARY KEY (tenant_id, id));
CREATE VIEW all_notes AS SELECT * FROM notes;
ALTER TABLE notes OWNER TO f_keeper;
GRANT ALL ON notes, tasks, all_notes TO f_app;
"""


def test_the_script_closes_what_was_found(rlsaudit, tmp_path) -> None:
    (tmp_path / "schema.sql").write_text(LEAKY)
    before = rlsaudit("audit", "schema.sql", "--role", "f_app")
    assert before.code == 1
    done = rlsaudit("fix", "schema.sql", "--role", "f_app", "--verify", "-q", "-o", "fix.sql")
    assert done.code == 0, done.errors
    assert "nothing is left to fix" in done.errors and "No exceptions noted" in done.errors
    text = (tmp_path / "fix.sql").read_text()
    assert text.count("BEGIN;") == text.count("COMMIT;") == 1
    (tmp_path / "schema.sql").write_text(LEAKY + text)
    after = rlsaudit("scan", "schema.sql", "--role", "f_app", "--budget", "1")
    assert after.code == 0, after.output


def test_roles_that_were_not_tested_are_gaps_after_the_fixes_too(sound, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(roles, "MOST", 1)
    monkeypatch.setattr(roles, "KINDS", 1)
    sound.write_text(sound.read_text() + "CREATE ROLE f_reader LOGIN; GRANT SELECT ON notes TO f_reader;")
    done = CliRunner().invoke(cli, ["fix", str(sound), "--verify", "-q"], standalone_mode=False)
    assert done.return_value == 1, done.output
    monkeypatch.setattr(roles, "KINDS", 2)
    done = CliRunner().invoke(cli, ["fix", str(sound), "--verify", "-q"], standalone_mode=False)
    assert done.return_value == 0, done.output


def test_without_verify_nothing_is_claimed(rlsaudit, tmp_path) -> None:
    (tmp_path / "schema.sql").write_text(LEAKY)
    done = rlsaudit("fix", "schema.sql", "--role", "f_app", "-q")
    assert done.code == 0 and "nothing was tried" in done.errors
    assert "ENABLE ROW LEVEL SECURITY" in done.output and done.output.endswith("COMMIT;\n")
    statements = re.findall(r"^[A-Z].*;$", done.output, re.MULTILINE)
    assert len(statements) == len(set(statements))


def test_a_database_is_never_changed(rlsaudit, target, tmp_path) -> None:
    target.create_database("fixed")
    with target.connect("fixed") as connection:
        connection.execute(LEAKY.encode())
        query = "SELECT relname, relrowsecurity FROM pg_class WHERE relname IN ('notes', 'tasks') ORDER BY 1"
        before = connection.execute(query).fetchall()
        connection.commit()
        done = rlsaudit("fix", target.conninfo("fixed"), "--role", "f_app", "--verify", "-q")
        assert done.code == 0, done.errors
        assert connection.execute(query).fetchall() == before


def test_what_is_allowed_is_left_alone(rlsaudit, tmp_path) -> None:
    (tmp_path / "schema.sql").write_text(LEAKY)
    (tmp_path / "rlsaudit.toml").write_text(
        '[[allow]]\ncheck = "RLS301"\nobject = "public.all_notes"\nreason = "meant"\n'
    )
    done = rlsaudit("fix", "schema.sql", "--role", "f_app", "-q")
    assert done.code == 0 and "all_notes SET" not in done.output and "public.tasks" in done.output


def test_hostile_names_stay_inside_comments() -> None:
    finding = Finding("RLS001", "check", "No RLS", "critical", "public.x\n; DROP TABLE y; --\u202e", "m", fix="")
    text = script(Mended((Step(finding, (), 'bad\n"; DROP'),)), "a\nb")
    assert all(line.startswith("--") or line in ("BEGIN;", "COMMIT;", "") for line in text.splitlines())


def test_a_statement_stands_once() -> None:
    one, two = (
        Finding(
            "RLS202",
            "check",
            "Owns",
            "high",
            name,
            "m",
            fix=f"CREATE ROLE keeper;\nALTER TABLE {name} OWNER TO keeper;",
        )
        for name in ("a", "b")
    )
    assert script(proposed([one, two], "medium"), "s").count("CREATE ROLE keeper;") == 1
