"""The plugin in a project of its own, run as its users run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCHEMA = """
CREATE ROLE p_app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE notes (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
CREATE POLICY own ON notes USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT ON tenants TO p_app; GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO p_app;
CREATE INDEX ON notes (tenant_id);
"""
LEAK = "CREATE VIEW everything AS SELECT * FROM notes; GRANT SELECT ON everything TO p_app;\n"
OWN_TESTS = """
import psycopg
import pytest


def test_a_tenant_sees_its_own_rows(rlsaudit):
    assert len(rlsaudit.tenants) > 1
    for tenant in rlsaudit.tenants[:2]:
        with rlsaudit.as_tenant(tenant) as connection:
            seen = connection.execute("SELECT DISTINCT tenant_id::text FROM notes").fetchall()
            assert seen == [(tenant,)]
            connection.execute("DELETE FROM notes")
    with rlsaudit.as_tenant() as connection:
        assert connection.execute("SELECT count(*) > 0 FROM notes").fetchone() == (True,)
        assert connection.execute("SELECT session_user").fetchone() == ("p_app",)


def test_a_query_is_isolated(rlsaudit):
    rlsaudit.assert_isolated("SELECT * FROM notes WHERE id = $1")


def test_a_query_is_not_isolated(rlsaudit):
    rlsaudit.assert_isolated("SELECT * FROM everything WHERE id = $1")


def test_a_query_that_shows_nothing(rlsaudit):
    with pytest.raises(AssertionError, match="not covered: it ran, and neither"):
        rlsaudit.assert_isolated("SELECT * FROM notes WHERE id = -1")


def test_nothing_stays_for_the_next_test(rlsaudit):
    with pytest.raises(psycopg.ProgrammingError, match="commit"), rlsaudit.as_tenant() as connection:
        connection.execute("UPDATE notes SET body = 'changed ' || id")
        connection.commit()
    with pytest.raises(Exception, match="ended the transaction"), rlsaudit.as_tenant() as connection:
        connection.execute("COMMIT")
    with rlsaudit.as_tenant() as connection:
        connection.close()
    with pytest.raises(Exception, match="more than one statement"):
        rlsaudit.assert_isolated("COMMIT; UPDATE notes SET body = 'changed ' || id")
    rlsaudit.assert_isolated("SELECT * FROM notes")


def test_unknown(rlsaudit):
    with pytest.raises(Exception, match="no tenant nobody in the scratch copy"), rlsaudit.as_tenant("nobody"):
        pass
    with pytest.raises(Exception, match="nobody is no application role here"):
        rlsaudit.assert_isolated("SELECT 1", role="nobody")
"""


def run(directory: Path, *arguments: str) -> tuple[int, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "RLSAUDIT"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA", *arguments]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "schema.sql").write_text(SCHEMA)
    (tmp_path / "leaky.sql").write_text(SCHEMA + LEAK)
    (tmp_path / "pytest.ini").write_text("[pytest]\nrlsaudit_source = leaky.sql\n")
    return tmp_path


@pytest.mark.slow
def test_cells_are_items(project: Path) -> None:
    code, output = run(project, "-W", "error", "--rlsaudit", "schema.sql", "--rlsaudit-budget", "1")
    assert code == 0, output
    assert "PASSED rlsaudit::public.notes::UPDATE as p_app [write]" in output
    assert "PASSED rlsaudit::isolation contract::verdict" in output


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], pytest.param(["-n", "2"], marks=pytest.mark.nightly)])
def test_a_leak_fails_its_item(project: Path, workers: list[str]) -> None:
    arguments = ["--rlsaudit", "leaky.sql", "--rlsaudit-budget", "1", "-k", "everything or notes", *workers]
    code, output = run(project, *arguments)
    assert code == 1, output
    failed = {match.strip() for match in re.findall(r"(?m)^FAILED (rlsaudit::.*?)(?: - |$)", output)}
    assert "rlsaudit::public.everything::SELECT as p_app [read]" in failed
    assert not any("public.notes::" in name for name in failed)
    assert "returned values that stand only in another tenant's rows" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_own_tests_of_a_team(project: Path) -> None:
    (project / "test_own.py").write_text(OWN_TESTS)
    code, output = run(project)
    assert code == 1, output
    assert re.findall(r"(?m)^FAILED (\S+)", output) == ["test_own.py::test_a_query_is_not_isolated"]
    assert "leak: read" in output
    assert "logged in as p_app" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--rlsaudit", "missing.sql"], "no such file"), (["--rlsaudit", "empty.sql"], "empty; nothing to audit")],
)
def test_no_verdict_is_no_pass(project: Path, arguments: list[str], said: str) -> None:
    (project / "empty.sql").touch()
    code, output = run(project, *arguments)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert said in output
    assert "Traceback" not in output


def test_the_fixture_wants_a_source(project: Path) -> None:
    (project / "pytest.ini").write_text("[pytest]\n")
    (project / "test_own.py").write_text("def test_it(rlsaudit): pass\n")
    code, output = run(project)
    assert code != 0
    assert "needs a SOURCE" in output
