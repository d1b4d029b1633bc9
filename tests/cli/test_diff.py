"""``rlsaudit diff`` as a pull request has it: a repository, branches, real git."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rlsaudit.cli import cli
from rlsaudit.diff import run
from tests.cli.conftest import LEAKY, SOUND, Run

OWN = "tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::integer)"
TABLES = """CREATE ROLE c_app LOGIN;
CREATE TABLE tenants (tenant_id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE notes (
    tenant_id integer NOT NULL REFERENCES tenants,
    note_id integer,
    body text NOT NULL,
    is_public boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant_id, note_id)
);
CREATE TABLE templates (
    template_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id integer REFERENCES tenants,
    body text NOT NULL
);
"""
POLICIES = f"""
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE notes FORCE ROW LEVEL SECURITY;
ALTER TABLE templates ENABLE ROW LEVEL SECURITY;
ALTER TABLE templates FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON tenants USING ({OWN});
CREATE POLICY own ON notes USING ({OWN});
CREATE POLICY own ON templates USING (tenant_id IS NULL OR {OWN}) WITH CHECK ({OWN});
GRANT SELECT ON tenants TO c_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO c_app;
GRANT SELECT, INSERT ON templates TO c_app;
"""
NEW_TABLE = """-- labels of a tenant
CREATE TABLE labels (
    tenant_id integer NOT NULL REFERENCES tenants,
    label_id integer,
    label text NOT NULL,
    PRIMARY KEY (tenant_id, label_id)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON labels TO c_app;
"""
BRANCHES = {
    "a-no-rls": NEW_TABLE,
    "b-is-public": f"DROP POLICY own ON notes;\nCREATE POLICY own ON notes USING (is_public OR {OWN});\n",
    "c-no-check": f"DROP POLICY own ON templates;\nCREATE POLICY own ON templates USING (tenant_id IS NULL OR {OWN});\n",
    "d-view": "\nCREATE VIEW titles AS SELECT tenant_id, left(body, 9) AS title FROM notes;\nGRANT SELECT ON titles TO c_app;\n",
    "e-index": "CREATE INDEX ON templates (tenant_id);\n",
    "e-table": f"""{NEW_TABLE}ALTER TABLE labels ENABLE ROW LEVEL SECURITY;
ALTER TABLE labels FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON labels USING ({OWN});
""",
    "e-table-alone": f"""{NEW_TABLE.partition("GRANT")[0]}ALTER TABLE labels ENABLE ROW LEVEL SECURITY;
ALTER TABLE labels FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON labels USING ({OWN});
""",
    "e-rewritten": f"DROP POLICY own ON notes;\nCREATE POLICY own ON notes USING ({OWN} AND true) WITH CHECK ({OWN});\n",
    "broken": "CREATE TABLE oops (id integer);\nALTER TABLE oops ADD COLUMN nonsense no_such_type;\n",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two migrations on ``main``, and one more on each branch."""
    migrations = tmp_path / "db" / "migrations"
    migrations.mkdir(parents=True)
    (migrations / "001_tables.sql").write_text(TABLES)
    (migrations / "002_policies.sql").write_text(POLICIES)
    _git(tmp_path, "init", "-q", "-b", "main")
    _git(tmp_path, "add", "db")
    _git(tmp_path, "commit", "-qm", "tables")
    for name, text in BRANCHES.items():
        _git(tmp_path, "checkout", "-qb", name, "main")
        (migrations / "003_change.sql").write_text(text)
        _git(tmp_path, "add", "db")
        _git(tmp_path, "commit", "-qm", name)
    _git(tmp_path, "checkout", "-q", "main")
    return tmp_path


def _git(where: Path, *arguments: str) -> None:
    named = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *named, *arguments], cwd=where, check=True, capture_output=True)


def _changes(output: str) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = json.loads(output)["difference"]["changes"]
    return changes


OPENING = [
    ("a-no-rls", 2, "public.labels", "INSERT INTO"),
    ("b-is-public", 2, "public.notes", "row 1.is_public = true"),
    ("c-no-check", 2, "public.templates", "row 1.tenant_id = NULL"),
    ("d-view", 2, "public.titles", "titles"),
]


@pytest.mark.parametrize(("branch", "line", "place", "witness"), OPENING)
def test_a_pull_request_that_opens_a_hole_fails_with_line_and_witness(
    rlsaudit: Run, repository: Path, branch: str, line: int, place: str, witness: str
) -> None:
    begun = time.monotonic()
    ran = rlsaudit("diff", "git:main:db/migrations", f"git:{branch}:db/migrations", "--format", "json")
    sys.stderr.write(f"{branch}: {time.monotonic() - begun:.1f} s\n")
    assert ran.code == 1, ran.output + ran.errors
    bad = [one for one in _changes(ran.output) if one["level"] == "dangerous"]
    assert bad
    assert {one["relation"] for one in bad} == {place}
    assert {one["file"] for one in bad} == {"db/migrations/003_change.sql"}
    assert line in {one["line"] for one in bad}
    assert any(witness in one["witness"] for one in bad)


@pytest.mark.parametrize("branch", [
    "e-index", "e-table", *(pytest.param(one, marks=pytest.mark.nightly) for one in ("e-table-alone", "e-rewritten")),
])  # fmt: skip
def test_a_pull_request_that_opens_nothing_passes(rlsaudit: Run, repository: Path, branch: str) -> None:
    begun = time.monotonic()
    ran = rlsaudit("diff", "git:main:db/migrations", f"git:{branch}:./db/migrations", "--fail-on", "review")
    sys.stderr.write(f"{branch}: {time.monotonic() - begun:.1f} s\n")
    assert ran.code == 0, ran.output + ran.errors
    assert ran.output.startswith("SAFE  ")
    if branch == "e-index":
        assert "so nothing was attacked" in ran.output
    assert all(len(one) <= 80 for one in ran.output.splitlines())


def test_a_comment_and_annotations_name_the_line(rlsaudit: Run, repository: Path) -> None:
    _git(repository, "checkout", "-q", "b-is-public")
    ran = rlsaudit(
        "diff", "git:main:db/migrations", "db", "--no-probe", "--format", "markdown", "-o", repository / "comment.md"
    )
    comment = (repository / "comment.md").read_text()
    assert ran.code == 1
    assert ran.output.startswith("DANGEROUS  ")
    assert comment.startswith("## ❌ rlsaudit diff: DANGEROUS")
    assert "`db/migrations/003_change.sql:2`" in comment
    ran = rlsaudit("diff", "git:main:db/migrations", "db/migrations", "--no-probe", "--format", "github")
    assert "::error file=db/migrations/003_change.sql,line=2,title=public.notes%3A" in ran.output


def test_the_same_files_need_no_server(rlsaudit: Run, repository: Path) -> None:
    ran = rlsaudit("diff", "git:main:db/migrations", "db/migrations", extra={"RLSAUDIT_PG_BIN": "/nowhere"})
    assert ran.code == 0
    assert "the same files" in ran.output


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("git:main", "write git:REF:path"),
        ("git:nowhere:db", "no commit nowhere"),
        ("git:main:elsewhere", "elsewhere is not in main"),
        ("git:main:../..", "outside the repository"),
        ("git:--output=x:db", "no commit --output=x"),
    ],
)
def test_what_is_not_in_the_repository_is_one_line(rlsaudit: Run, repository: Path, source: str, said: str) -> None:
    ran = rlsaudit("diff", source, "db", "-q")
    assert (ran.code, len(ran.said)) == (2, 1)
    assert said in ran.errors
    assert "BASE: " in ran.errors


@pytest.mark.nightly
def test_links_of_a_commit_are_followed_within_it(rlsaudit: Run, repository: Path) -> None:
    """As a checkout has them; what a link or a submodule hides is an error, and never left out."""
    link = repository / "db" / "migrations" / "003_change.sql"
    for branch, target in (("linked", "../../hole.sql"), ("outside", "/etc/passwd"), ("gone", "nowhere.sql")):
        _git(repository, "checkout", "-qb", branch, "main")
        (repository / "hole.sql").write_text("ALTER TABLE notes DISABLE ROW LEVEL SECURITY;")
        link.symlink_to(target)
        _git(repository, "add", "db", "hole.sql")
        _git(repository, "commit", "-qm", branch)
    _git(repository, "checkout", "-qb", "module", "main")
    _git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},db/migrations/more")
    _git(repository, "commit", "-qm", "module")
    base = "git:main:db/migrations"
    assert rlsaudit("diff", base, "git:linked:db/migrations", "-q", "--no-probe").code == 1
    for branch, said in (("outside", "no file of the commit"), ("gone", "no file of"), ("module", "is a submodule")):
        ran = rlsaudit("diff", base, f"git:{branch}:db/migrations", "-q")
        assert (ran.code, len(ran.said)) == (2, 1)
        assert said in ran.errors


def test_outside_a_repository_git_says_so(rlsaudit: Run, tmp_path: Path, environment: dict[str, str]) -> None:
    ran = rlsaudit("diff", "git:main:db", "x", "-q", extra={"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)})
    assert (ran.code, len(ran.said)) == (2, 1)
    assert "not a git repository" in ran.errors


@pytest.mark.parametrize("side", ["BASE", "HEAD"])
def test_a_failing_migration_is_named_on_its_side(rlsaudit: Run, repository: Path, side: str) -> None:
    sources = ["git:main:db/migrations", "git:broken:db/migrations"]
    ran = rlsaudit("diff", *(sources if side == "HEAD" else reversed(sources)), "-q")
    assert (ran.code, len(ran.said)) == (2, 1)
    assert f"{side}: git:broken:db/migrations/003_change.sql:2:" in ran.errors


@pytest.mark.nightly
def test_an_empty_base_makes_everything_new(rlsaudit: Run, sound: Path, leaky: Path, tmp_path: Path) -> None:
    (tmp_path / "none.sql").write_text("")
    assert rlsaudit("diff", "none.sql", sound, "-q").code == 0
    ran = rlsaudit("diff", "none.sql", leaky, "-q", "--no-probe")
    assert ran.code == 1
    assert "public.notes" in ran.output


def test_a_head_without_tenant_data_is_no_pass(rlsaudit: Run, sound: Path, tmp_path: Path) -> None:
    (tmp_path / "other.sql").write_text("CREATE TABLE nothing (id integer);")
    ran = rlsaudit("diff", sound, "other.sql", "-q")
    assert ran.code == 3
    assert "HEAD: " in ran.errors


@pytest.mark.nightly
def test_a_leak_that_base_has_too_is_no_news(rlsaudit: Run, tmp_path: Path) -> None:
    """Also when its table changed, so that it is attacked on both sides; where the change opens it, it is."""
    (tmp_path / "base.sql").write_text(LEAKY)
    (tmp_path / "head.sql").write_text(LEAKY + "ALTER TABLE notes ADD COLUMN colour text;")
    ran = rlsaudit("diff", "base.sql", "head.sql", "-q")
    assert ran.code == 0, ran.output
    assert "public.notes" in ran.output
    assert rlsaudit("diff", "head.sql", "base.sql", "-q", "--format", "json").code == 0
    (tmp_path / "base.sql").write_text(SOUND)
    assert rlsaudit("diff", "base.sql", "head.sql", "-q").code == 1


ROLES = """CREATE ROLE c_dba NOLOGIN BYPASSRLS; GRANT SELECT ON notes TO c_dba;
CREATE ROLE c_help LOGIN; CREATE ROLE c_export LOGIN BYPASSRLS;
"""
PATHS = {
    "CREATE ROLE nightly LOGIN BYPASSRLS;": ("role nightly", "BYPASSRLS given to a role", "review"),
    "ALTER ROLE c_help BYPASSRLS;": ("role c_help", "BYPASSRLS given to a role", "dangerous"),
    "ALTER ROLE c_dba LOGIN;": ("role c_dba", "LOGIN given to a role with BYPASSRLS", "dangerous"),
    "GRANT INSERT ON notes TO c_export;": ("public.notes", "Privilege granted", "review"),
    "CREATE PUBLICATION feed FOR TABLE notes;": ("publication feed", "Tenant data published", "review"),
    "CREATE EXTENSION dblink;": ("extension dblink", "New extension", "review"),
    "GRANT c_dba TO c_help;": ("role c_help", "Member of c_dba", "dangerous"),
    "CREATE ROLE nightly LOGIN IN ROLE c_dba;": ("role nightly", "Member of c_dba", "dangerous"),
    "ALTER TABLE notes OWNER TO c_app;": ("public.notes", "Owned by an application role", "review"),
    "ALTER TABLE notes NO FORCE ROW LEVEL SECURITY;": (
        "public.notes", "Row security no longer forced on the owner", "review",
    ),
}  # fmt: skip


@pytest.mark.parametrize("statement", PATHS)
def test_new_ways_past_row_security_are_told(rlsaudit: Run, tmp_path: Path, statement: str) -> None:
    """Also of roles that no application uses, and of owners, whom FORCE binds only until they lift it."""
    (tmp_path / "base.sql").write_text(TABLES + POLICIES + ROLES)
    (tmp_path / "head.sql").write_text(TABLES + POLICIES + ROLES + statement)
    ran = rlsaudit("diff", "base.sql", "head.sql", "-q", "--no-probe", "--format", "json")
    found = {(one["object"], one["title"], one["level"]) for one in _changes(ran.output)}
    assert PATHS[statement] in found
    assert ran.code == (1 if PATHS[statement][2] == "dangerous" else 0)


@pytest.mark.parametrize("harmless", ["hstore", "moddatetime"])
def test_new_extensions_that_give_no_way_are_none(rlsaudit: Run, tmp_path: Path, harmless: str) -> None:
    """Trusted ones, and those whose functions only the server calls."""
    (tmp_path / "base.sql").write_text(TABLES + POLICIES)
    (tmp_path / "head.sql").write_text(f"{TABLES}{POLICIES}CREATE EXTENSION {harmless};")
    assert rlsaudit("diff", "base.sql", "head.sql", "-q", "--no-probe").output.startswith("SAFE")


GUARDED = """CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  NEW.tenant_id := NULLIF(current_setting('app.tenant_id', true), '')::integer; RETURN NEW; END $$;
CREATE TRIGGER guard BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION guard();
ALTER POLICY own ON notes WITH CHECK (true);
REVOKE UPDATE ON notes FROM c_app;
"""


def test_a_changed_trigger_that_alone_keeps_tenants_apart_is_for_review(rlsaudit: Run, tmp_path: Path) -> None:
    """No attack finds the one value that it lets through."""
    base = TABLES + POLICIES + GUARDED
    (tmp_path / "base.sql").write_text(base)
    (tmp_path / "head.sql").write_text(
        base.replace("NEW.tenant_id :=", "IF NEW.body = 'import-7731' THEN RETURN NEW; END IF; NEW.tenant_id :=")
    )
    ran = rlsaudit("diff", "base.sql", "head.sql", "-q")
    assert ran.output.startswith("REVIEW  "), ran.output
    (tmp_path / "head.sql").write_text(base.replace("RETURN NEW;", "-- as it was\n    RETURN NEW;"))
    assert rlsaudit("diff", "base.sql", "head.sql", "-q").output.startswith("SAFE  ")


@pytest.mark.nightly
def test_snapshots_and_records_are_compared_without_a_server(
    rlsaudit: Run, sound: Path, leaky: Path, tmp_path: Path
) -> None:
    for name, path in (("sound", sound), ("leaky", leaky)):
        rlsaudit("scan", path, "--budget", "0s", "--output-dir", tmp_path / name, "--format", "json")
    records = [tmp_path / name / "evidence.json" for name in ("sound", "leaky")]
    ran = rlsaudit("diff", *records, "--format", "json")
    assert ran.code == 1
    assert "PROBE-READ" in {one["check"] for one in _changes(ran.output)}
    assert rlsaudit("diff", *reversed(records)).output.startswith("REVIEW")
    assert rlsaudit("diff", records[0], records[0]).output.startswith("SAFE")
    ran = rlsaudit("diff", records[0], leaky)
    assert (ran.code, "two of them" in ran.errors) == (2, True)


def test_an_attack_that_ended_early_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a signal, or because the server was lost: what was not attacked by then must not read like a pass."""
    (tmp_path / "base.sql").write_text(TABLES + POLICIES)
    (tmp_path / "head.sql").write_text(TABLES + POLICIES + "ALTER TABLE notes ADD COLUMN colour text;")
    monkeypatch.chdir(tmp_path)
    whole = run.attacked
    arguments = ["diff", "base.sql", "head.sql", "-q", "--format", "json"]
    assert CliRunner().invoke(cli, arguments, standalone_mode=False).return_value == 0
    monkeypatch.setattr(run, "attacked", lambda *given: replace(whole(*given), interrupted=True))
    assert CliRunner().invoke(cli, arguments, standalone_mode=False).return_value == 3


def test_roles_that_are_not_attacked_are_compared(rlsaudit: Run, tmp_path: Path) -> None:
    """One role too many to be attacked without being named: its policy is no less the gate's business."""
    mine = "tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::integer"
    base = "CREATE TABLE notes (tenant_id integer NOT NULL, body text); ALTER TABLE notes ENABLE ROW LEVEL SECURITY;\n"
    for number in range(25):
        role = f"r{number:02}"
        base += f"CREATE ROLE {role} LOGIN; GRANT SELECT ON notes TO {role};\n"
        base += f"CREATE POLICY {role} ON notes FOR SELECT TO {role} USING ({mine});\n"
    (tmp_path / "base.sql").write_text(base)
    (tmp_path / "head.sql").write_text(base + f"ALTER POLICY r24 ON notes USING ({mine} OR body = 'x');")
    ran = rlsaudit("diff", "base.sql", "head.sql", "-q", "--budget", "0.1s")
    assert ran.output.startswith("REVIEW  "), ran.output
    assert "Predicate wider" in ran.output
    assert "SELECT as r24" in ran.output
