"""Bad input: one line that says what, where and how to mend it, the right exit code, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from rlsaudit.source.server import ScratchServer


def _failed(ran, code: int, *words: str) -> None:
    """One line of error, no traceback, nothing on standard output."""
    assert ran.code == code, ran
    assert "Traceback" not in ran.errors
    assert ran.output == ""
    said = [line for line in ran.said if not line.startswith("[")]
    assert len(said) == 1, ran.errors
    for word in words:
        assert word in said[0], said[0]


def _nothing_written(directory: Path) -> None:
    assert not (directory / "rlsaudit-report").exists()


def test_missing_file(rlsaudit, tmp_path) -> None:
    _failed(rlsaudit("scan", "no/such.sql"), 2, "no/such.sql", "no such file")
    _nothing_written(tmp_path)


def test_empty_file(rlsaudit, tmp_path) -> None:
    (tmp_path / "empty.sql").write_text(" \n")
    _failed(rlsaudit("scan", "empty.sql"), 2, "empty.sql", "empty")


def test_file_without_any_relation(rlsaudit, tmp_path) -> None:
    (tmp_path / "nothing.sql").write_text("SELECT 1;\n")
    _failed(rlsaudit("scan", "nothing.sql"), 3, "empty", "nothing to test")
    _nothing_written(tmp_path)


def test_sql_that_fails_half_way(rlsaudit, tmp_path) -> None:
    (tmp_path / "bad.sql").write_text("CREATE TABLE a (tenant_id int);\n\nCREATE TABLE b (\n  c no_such_type\n);\n")
    _failed(rlsaudit("scan", "bad.sql"), 2, "bad.sql:", "no_such_type")
    ran = rlsaudit("scan", "bad.sql", "-q")
    assert "bad.sql:3" in ran.errors or "bad.sql:4" in ran.errors, ran.errors
    _nothing_written(tmp_path)


def test_no_tenant_column(rlsaudit, tmp_path) -> None:
    (tmp_path / "plain.sql").write_text(
        "CREATE ROLE p_app LOGIN; CREATE TABLE t (a int, b text); GRANT SELECT ON t TO p_app;"
    )
    _failed(rlsaudit("scan", "plain.sql"), 3, "no tenant key", "rlsaudit.toml")
    _nothing_written(tmp_path)


def test_role_that_is_not_there(rlsaudit, sound) -> None:
    _failed(rlsaudit("scan", sound, "--role", "nobody_like_this"), 2, "nobody_like_this", "c_app")


def test_role_without_privilege(rlsaudit, sound) -> None:
    sound.write_text(sound.read_text() + "CREATE ROLE outsider LOGIN;")
    _failed(rlsaudit("scan", sound, "--role", "outsider"), 3, "outsider", "privilege")


def test_unknown_configuration_key(rlsaudit, sound, tmp_path) -> None:
    (tmp_path / "rlsaudit.toml").write_text('fail_onn = "high"\n')
    _failed(rlsaudit("scan", sound), 2, "rlsaudit.toml", "fail_onn", "did you mean 'fail_on'")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("roles = [1]", "roles"),
        ("seed = true", "seed"),
        ("budget = 'much'", "budget"),
        ("fail_on = 'dreadful'", "dreadful"),
        ("[context]\n", "statements"),
        ("[relations.notes]\nclass = 'mine'\n", "mine"),
        ("[relations.\"public.gone\"]\nclass = 'global'\n", "public.gone"),
        ("[tenancy]\nkeys = 'x'\n", "did you mean 'key'"),
        ("no toml", "not valid TOML"),
    ],
)
def test_wrong_configuration(rlsaudit, sound, tmp_path, text, word) -> None:
    (tmp_path / "rlsaudit.toml").write_text(text)
    _failed(rlsaudit("scan", sound), 2, word)
    _nothing_written(tmp_path)


def test_unknown_format_ends_the_run_before_it_starts(rlsaudit, sound) -> None:
    ran = rlsaudit("scan", sound, "--format", "json,htlm")
    _failed(ran, 2, "htlm", "html")
    assert len(ran.said) == 1


def test_unknown_option_and_command(rlsaudit, sound) -> None:
    assert rlsaudit("scan", sound, "--no-such-option").code == 2
    assert rlsaudit("scann").code == 2
    assert rlsaudit("scan", sound, "--fail-on", "dreadful").code == 2


def test_snapshot_given_to_scan(rlsaudit, sound) -> None:
    assert rlsaudit("snapshot", sound).code == 0
    _failed(rlsaudit("scan", "snapshot.json"), 2, "snapshot.json", "rlsaudit audit")
    assert rlsaudit("audit", "snapshot.json").code in (0, 1)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "something else"}', "\x00\xff"])
def test_damaged_snapshot(rlsaudit, tmp_path, text) -> None:
    (tmp_path / "damaged.json").write_text(text, encoding="latin-1")
    _failed(rlsaudit("audit", "damaged.json"), 2, "damaged.json")


def test_output_directory_that_cannot_be_made(rlsaudit, sound, tmp_path) -> None:
    (tmp_path / "taken").write_text("a file")
    _failed(rlsaudit("scan", sound, "--output-dir", "taken", "--budget", "0"), 2, "taken")


def test_unreachable_server(rlsaudit) -> None:
    dsn = "postgresql://someone:hunter2-canary@127.0.0.1:9/db?connect_timeout=2"
    _failed(rlsaudit("scan", dsn), 3, "cannot connect", "127.0.0.1")


def test_pg_bin_without_a_server(rlsaudit, sound, tmp_path) -> None:
    ran = rlsaudit("scan", sound, "--pg-bin", tmp_path)
    assert ran.code in (2, 3)
    assert str(tmp_path) in ran.errors
    assert "Traceback" not in ran.errors


def test_wrong_password(rlsaudit, server: ScratchServer) -> None:
    """A server that wants a password (scram) and gets a wrong one."""
    with ScratchServer(server.binary("postgres").parent) as strict:
        with strict.connect() as connection:
            connection.execute("CREATE ROLE reader LOGIN PASSWORD 'the right one'")
            connection.execute("CREATE DATABASE target")
        _require_passwords(strict)
        address = f"host={strict.directory} user=reader dbname=target"
        with psycopg.connect(f"{address} password='the right one'") as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        ran = rlsaudit("scan", f"{address} password=hunter2-canary")
        _failed(ran, 3, "cannot connect", "password authentication failed")
        _failed(rlsaudit("scan", address, extra={"PGPASSWORD": "hunter2-canary"}), 3, "cannot connect")


def _require_passwords(server: ScratchServer) -> None:
    rules = server.directory / "data" / "pg_hba.conf"
    owner = rules.stat()
    rules.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    os.chown(rules, owner.st_uid, owner.st_gid)
    with server.connect() as connection:
        connection.execute("SELECT pg_reload_conf()")


def test_evidence_that_was_tampered_with(rlsaudit, leaky, tmp_path) -> None:
    assert rlsaudit("audit", leaky, "--format", "json").code in (0, 1)
    evidence = tmp_path / "rlsaudit-report" / "evidence.json"
    evidence.write_text(evidence.read_text().replace('"schema_version": "1.0"', '"schema_version": "9.0"'))
    _failed(rlsaudit("report", evidence), 2, "schema_version")


def test_init_does_not_overwrite(rlsaudit, sound, tmp_path) -> None:
    assert rlsaudit("init", sound).code == 0
    before = (tmp_path / "rlsaudit.toml").read_bytes()
    _failed(rlsaudit("init", sound), 2, "rlsaudit.toml", "--force")
    assert (tmp_path / "rlsaudit.toml").read_bytes() == before


def test_replay_of_no_script(rlsaudit, tmp_path) -> None:
    _failed(rlsaudit("replay", "gone.sql"), 2, "gone.sql")
    (tmp_path / "F-1.sql").write_text("SELECT 1;")
    (tmp_path / "schema.sql").write_text("SELECT 1;")
    _failed(rlsaudit("replay", "F-1.sql"), 3, "F-1.sql")


def test_closed_pipe_is_no_error(sound, tmp_path, environment) -> None:
    assert shutil.which("head")
    done = subprocess.run(
        f"{sys.executable} -m rlsaudit checks | head -c 1",
        shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
