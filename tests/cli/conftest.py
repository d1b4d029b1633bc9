"""The command line as users have it: a process of its own, its output and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlsaudit.source.server import ScratchServer

CANARY = "hunter2-canary"

SOUND = """
CREATE ROLE c_app LOGIN;
CREATE TABLE notes (tenant_id integer NOT NULL, note_id integer, body text NOT NULL, PRIMARY KEY (tenant_id, note_id));
CREATE INDEX ON notes (tenant_id);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE notes FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON notes
    USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::integer))
    WITH CHECK (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::integer));
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO c_app;
"""
LEAKY = SOUND + "CREATE POLICY everyone ON notes FOR SELECT USING (true);\n"


@dataclass(frozen=True)
class Ran:
    code: int
    output: str
    errors: str

    @property
    def said(self) -> list[str]:
        """Lines of standard error."""
        return self.errors.splitlines()


Run = Callable[..., Ran]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a started rlsaudit sees: its temporary files are under ``tmp_path``, nothing of the caller's libpq."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "CI": "1", "HOME": str(tmp_path)}


@pytest.fixture
def rlsaudit(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Run ``rlsaudit ARGUMENTS`` in an empty directory.  A canary password in its output fails the test."""

    def run(*arguments: str | Path, stdin: str = "", extra: Mapping[str, str] | None = None) -> Ran:
        done = subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env={**environment, **(extra or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert CANARY not in done.stdout + done.stderr
        for path in tmp_path.rglob("rlsaudit-report/**/*"):
            assert not path.is_file() or CANARY not in path.read_text(encoding="utf-8")
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "rlsaudit", *map(str, arguments)]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.sql"
    path.write_text(SOUND, encoding="utf-8")
    return path


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    path = tmp_path / "leaky.sql"
    path.write_text(LEAKY, encoding="utf-8")
    return path


@pytest.fixture
def target(server: ScratchServer):
    """A live database on a server of its own, with rows in it; gives its DSN and a connection."""
    with ScratchServer(server.binary("postgres").parent) as live:
        live.create_database("target")
        yield live


def processes_under(place: Path) -> list[str]:
    """Processes whose command line or working directory is under ``place``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = str((process / "cwd").readlink())
        except OSError:
            continue
        if where.startswith(f"{place}/") or f"{place}/" in line:
            found.append(line)
    return found
