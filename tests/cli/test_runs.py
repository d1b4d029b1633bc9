"""Whole runs: what is written, how, and that the same seed gives the same evidence."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from rlsaudit.cli import cli
from rlsaudit.source.server import ScratchServer

Evidence = dict[str, Any]


def _evidence(directory: Path) -> Evidence:
    evidence: Evidence = json.loads((directory / "evidence.json").read_text(encoding="utf-8"))
    return evidence


def _timeless(evidence: Evidence) -> Evidence:
    """Evidence without what may differ between equal runs: clocks, identifiers, how far the random search came."""
    text = json.dumps({**evidence, "timing": None, "statements": None})
    rest: Evidence = json.loads(text)
    for volatile in ("runner_clock", "server_clock", "system_identifier", "catalog_fingerprint", "command"):
        rest["provenance"][volatile] = None
    return rest


def test_clean_run(rlsaudit, sound, tmp_path) -> None:
    ran = rlsaudit("scan", sound, "--budget", "1")
    evidence = _evidence(tmp_path / "rlsaudit-report")
    assert (ran.code, evidence["exit_code"], evidence["verdict"]) == (0, 0, "clean"), evidence["reasons"]
    assert not (tmp_path / "rlsaudit-report" / "replay").exists()
    written = {path.name for path in tmp_path.iterdir()} - {
        ".cache"
    }  # home of a cache, where the package is a checkout
    assert written == {"sound.sql", "rlsaudit-report"}, "something else was written"


def test_leaky_run(rlsaudit, leaky, tmp_path) -> None:
    ran = rlsaudit("scan", leaky, "--budget", "1")
    report = tmp_path / "rlsaudit-report"
    evidence = _evidence(report)
    assert ran.code == evidence["exit_code"] == 1
    files = {str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()}
    assert {"evidence.json", "replay/F-1.sql", "replay/schema.sql"} <= files
    assert {stat.S_IMODE(path.stat().st_mode) for path in report.rglob("*") if path.is_file()} == {0o600}
    assert rlsaudit("replay", report / "replay" / "F-1.sql").code == 1
    schema = report / "replay" / "schema.sql"
    mended = schema.read_text().replace("USING (true)", "USING (false)")
    assert mended != schema.read_text()
    schema.write_text(mended)
    assert rlsaudit("replay", report / "replay" / "F-1.sql").code == 0
    again = rlsaudit("report", report / "evidence.json", "--output-dir", "again")
    assert again.code == 1
    assert (tmp_path / "again" / "evidence.json").read_bytes() == (report / "evidence.json").read_bytes()


@pytest.mark.nightly
def test_scripts_of_an_earlier_run_are_gone(rlsaudit, sound, leaky, tmp_path) -> None:
    assert rlsaudit("scan", leaky, "--budget", "0").code == 1
    assert rlsaudit("scan", sound, "--budget", "0").code == 0
    assert list((tmp_path / "rlsaudit-report").rglob("F-*.sql")) == []


def test_same_seed_same_evidence(rlsaudit, leaky, tmp_path) -> None:
    for name in ("first", "second"):
        assert rlsaudit("scan", leaky, "--seed", "7", "--budget", "2", "--output-dir", name).code == 1
    first, second = (_timeless(_evidence(tmp_path / name)) for name in ("first", "second"))
    assert first == second


@pytest.mark.nightly
def test_fail_on_raises_the_bar(rlsaudit, leaky) -> None:
    assert rlsaudit("audit", leaky, "--fail-on", "critical").code in (0, 1)
    assert rlsaudit("scan", leaky, "--budget", "0", "--fail-on", "critical").code == 1


def test_canary_password_appears_nowhere(rlsaudit, sound, tmp_path) -> None:
    """Passwords in SQL, in a DSN and in the environment; the ``rlsaudit`` fixture greps all output for them."""
    sound.write_text(f"{sound.read_text()} CREATE ROLE other LOGIN PASSWORD 'hunter2-canary';")
    assert rlsaudit("scan", sound, "--budget", "0", "--format", "json,html,junit").code == 0
    assert rlsaudit("snapshot", sound).code == 0
    assert "hunter2-canary" not in (tmp_path / "snapshot.json").read_text()
    sound.write_text(f"{sound.read_text()} CREATE ROLE third PASSWORD 'hunter2-canary' NO_SUCH_OPTION;")
    assert rlsaudit("scan", sound).code == 2
    for dsn in (
        "postgresql://u:hunter2-canary@/x?host=/nonexistent",
        "host=/nonexistent password='hunter2-canary' user=u",
    ):
        assert rlsaudit("scan", dsn).code == 3
    assert rlsaudit("scan", "mysql://u:hunter2-canary@h/x").code == 2


def test_live_database_is_only_read(rlsaudit, leaky, target: ScratchServer, tmp_path) -> None:
    with target.connect("target") as connection:
        connection.execute(leaky.read_bytes())
        connection.execute("INSERT INTO notes VALUES (1, 1, 'real-row-of-one'), (2, 1, 'real-row-of-two')")
        before = _state(connection)
    dsn = f"host={target.directory} user=postgres dbname=target"
    ran = rlsaudit("scan", dsn, "--budget", "0", "--output-dir", "live")
    with target.connect("target") as connection:
        assert _state(connection) == before
        databases = connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()
    assert [name for (name,) in databases] == ["postgres", "target", "template0", "template1"]
    assert rlsaudit("scan", leaky, "--budget", "0", "--output-dir", "file").code == 1
    assert ran.code == 1, ran.errors
    live, file = _evidence(tmp_path / "live"), _evidence(tmp_path / "file")
    assert live["cells"] == file["cells"]
    assert live["population"] == file["population"]
    # Of a live database the server itself is judged too: its logging and its version.
    of_schema = [f["fingerprint"] for f in live["findings"] if f["check"] not in ("RLS413", "RLS701")]
    assert of_schema == [f["fingerprint"] for f in file["findings"]]
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "live").rglob("*") if path.is_file())
    assert "real-row-of" not in written, "a row of the user's database is in the report"


def _state(connection) -> list[object]:
    """Everything that a write to the database, its catalog or its roles would move."""
    queries = (
        "SELECT tenant_id, xmin::text, xmax::text, ctid::text, body FROM notes ORDER BY 1",
        "SELECT oid, xmin::text, relname FROM pg_class WHERE relname <> 'pg_class' ORDER BY 1",
        "SELECT oid, xmin::text FROM pg_proc ORDER BY 1",
        "SELECT oid, xmin::text, rolname FROM pg_authid ORDER BY 1",
        "SELECT oid, xmin::text FROM pg_policy ORDER BY 1",
        "SELECT oid, xmin::text FROM pg_database ORDER BY 1",
        "SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables",
    )
    connection.execute("SELECT pg_stat_force_next_flush()")
    return [connection.execute(query).fetchall() for query in queries]


def test_standard_input(rlsaudit, leaky) -> None:
    assert rlsaudit("scan", "-", "--budget", "0", stdin=leaky.read_text()).code == 1


def test_quiet_says_nothing_on_standard_error(rlsaudit, sound) -> None:
    ran = rlsaudit("scan", sound, "--budget", "0", "-q")
    assert (ran.code, ran.errors) == (0, "")


def _commands() -> list[tuple[str, ...]]:
    found = []
    for name, one in cli.commands.items():
        found.append((name,))
        found += [(name, inner) for inner in getattr(one, "commands", {})]
    return found


@pytest.mark.parametrize("name", _commands(), ids=" ".join)
def test_every_command_has_help(name) -> None:
    result = CliRunner().invoke(cli, [*name, "--help"])
    assert result.exit_code == 0
    found: click.Command = cli
    for word in name:
        assert isinstance(found, click.Group)
        found = found.commands[word]
    assert len(found.help or "") >= 10, "no description"
    silent = [one.name for one in found.params if isinstance(one, click.Option) and not one.help]
    assert silent == [], "options without help"


def test_commands_of_the_readme_exist() -> None:
    readme = Path(__file__).parents[2] / "README.md"
    if not readme.is_file():
        pytest.skip("no README.md")
    lines = [line.strip().removeprefix("$ ") for line in readme.read_text(encoding="utf-8").splitlines()]
    used = [line.split()[1] for line in lines if line.startswith("rlsaudit ") and len(line.split()) > 1]
    unknown = {word for word in used if word.isalpha() and word.islower()} - set(cli.commands)
    assert not unknown
    assert used or "rlsaudit" not in readme.read_text(encoding="utf-8")


def test_doctor_and_lists(rlsaudit) -> None:
    assert "scratch server: PostgreSQL" in rlsaudit("doctor").output
    assert "RLS001" in rlsaudit("checks").output
    assert json.loads(rlsaudit("checks", "--json").output)
    assert "RLS001" in rlsaudit("explain", "rls001").output
    assert rlsaudit("explain", "RLS999").code == 2
    assert json.loads(rlsaudit("config", "schema", "--evidence").output)
    assert "2_org_id_hardened" in rlsaudit("demo", "--list").output


def test_roles_that_were_not_tested_are_told(rlsaudit, sound, tmp_path) -> None:
    more = "".join(f"CREATE ROLE more_{n} LOGIN; GRANT SELECT ON notes TO more_{n};\n" for n in range(8))
    sound.write_text(sound.read_text() + more + "CREATE ROLE keeper LOGIN; ALTER TABLE notes OWNER TO keeper;")
    assert rlsaudit("audit", sound).code == 0
    evidence = json.loads((tmp_path / "rlsaudit-report" / "evidence.json").read_text())
    (left,) = (note for note in evidence["notes"] if "application roles" in note)
    assert left.startswith("9 application roles of 2 kinds") and left.endswith(": more_5, more_6, more_7")
    assert any(
        "were not tested, because they own the tables" in note and "keeper" in note for note in evidence["notes"]
    )
    tested = {role["name"]: role["why"] for role in evidence["roles"] if role["application"]}
    assert set(tested) == {"c_app", *(f"more_{n}" for n in range(5))}
    assert all(why.startswith("holds privileges on 1 tenant relations") for why in tested.values())


def test_more_kinds_of_roles_than_are_tested_are_gaps(rlsaudit, sound, tmp_path) -> None:
    tables = "".join(f"CREATE TABLE t{n} (tenant_id integer NOT NULL REFERENCES tenants);\n" for n in range(30))
    roles = "".join(f"CREATE ROLE r{n:02} LOGIN; GRANT SELECT ON t{n} TO r{n:02};\n" for n in range(30))
    sound.write_text(sound.read_text() + "CREATE TABLE tenants (id integer PRIMARY KEY);\n" + tables + roles)
    assert rlsaudit("audit", sound).code == 1
    evidence = json.loads((tmp_path / "rlsaudit-report" / "evidence.json").read_text())
    (left,) = (note for note in evidence["notes"] if "application roles" in note)
    assert left.startswith("31 application roles of 31 kinds") and "24 tested" in left
    gaps = {(c["relation"], c["role"]): c for c in evidence["cells"] if "was not tested" in c["reason"]}
    assert set(gaps) == {(f"public.t{n}", f"r{n:02}") for n in range(23, 30)}
    assert {c["state"] for c in gaps.values()} == {"not covered"}
