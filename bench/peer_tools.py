"""The tools that peers.py measures: how each is run on one database, and how what it prints is read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from ground_truth import Found, evidence, sarif

from rlsaudit.finding import SEVERITIES

LEVELS = {"ERROR": "high", "WARN": "medium", "INFO": "info"}


@dataclass(frozen=True)
class Setting:
    """What a tool is given: a database with the schema of the case, the same as a file, a place to write to."""

    schema: Path
    schemas: tuple[str, ...]
    dsn: str
    place: Path
    programs: Path
    splinter: Path | None

    def run(self, *command: str | Path) -> str:
        """Standard output of ``command``; raises RuntimeError when it says nothing at all."""
        environment = {**os.environ, "DATABASE_URL": self.dsn, "NO_COLOR": "1"}
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        if not done.stdout and done.returncode:
            raise RuntimeError(done.stderr[-300:])
        return done.stdout


@dataclass(frozen=True)
class Tool:
    name: str
    look: Callable[[Setting], Iterator[Found]]
    program: str
    """Name in the --bin directory; empty for rlsaudit itself, a file's name for SQL."""
    attacks: bool = False


def rlsaudit_audit(given: Setting) -> Iterator[Found]:
    return rlsaudit(given, "audit", given.dsn)


def rlsaudit_scan(given: Setting) -> Iterator[Found]:
    return rlsaudit(given, "scan", str(given.schema))


def rlsaudit(given: Setting, command: str, source: str) -> Iterator[Found]:
    out = given.place / "report"
    given.run(sys.executable, "-m", "rlsaudit", command, source, "--output-dir", out, "--format", "json", "--quiet")
    yield from evidence((out / "evidence.json").read_text())


def pgrls_lint(given: Setting) -> Iterator[Found]:
    told = given.run(
        given.programs / "pgrls", "lint", "--database-url", given.dsn, "--schemas", ",".join(given.schemas),
        "--format", "json",
    )  # fmt: skip
    for one in json.loads(told)["violations"]:
        if not one["rule_id"].startswith(("PERF", "HYG")):
            level = {"error": "high", "warning": "medium"}.get(one["severity"], "info")
            yield Found(level, one["location"], one["message"], one["rule_id"])


def pgrls_verify(given: Setting) -> Iterator[Found]:
    for mode in ("cross-tenant", "write"):
        told = given.run(
            given.programs / "pgrls", "verify", "--database-url", given.dsn, "--schemas", ",".join(given.schemas),
            "--mode", mode, "--format", "json",
        )  # fmt: skip
        for one in json.loads(told)["tables"]:
            if one["verdict"] == "leak":
                yield Found("high", one["table"], f"{mode} leak", mode)


def trespass(given: Setting) -> Iterator[Found]:
    return sarif(given.run(given.programs / "trespass", "check", "--format", "sarif", given.schema))


def splinter(given: Setting) -> Iterator[Found]:
    """Its queries, with the roles and the setting of the platform that they ask for."""
    assert given.splinter is not None
    with psycopg.connect(given.dsn, autocommit=True) as connection:
        for role in ("anon", "authenticated", "service_role"):
            connection.execute(f"DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN END $$")
        connection.execute("SELECT set_config('pgrst.db_schemas', %s, false)", (",".join(given.schemas),))
        queries = re.sub(r"\A\s*set local [^;]*;", "", given.splinter.read_text())
        connection.execute("SET search_path = ''")
        found = connection.execute(queries.encode()).fetchall()
    for name, _, level, _, categories, _, detail, *_ in found:
        if "SECURITY" in categories:
            yield Found(LEVELS[level], detail, detail, name)


def rlsautotest(given: Setting) -> Iterator[Found]:
    for schema in given.schemas:
        out = given.place / f"{schema}.json"
        given.run(
            given.programs / "rlsautotest", "--db-url", given.dsn, "--schema", schema, "--report", "--no-fail",
            "--report-json", out,
        )  # fmt: skip
        told = json.loads(out.read_text()) if out.exists() else {"tables": [], "bypass_surfaces": []}
        for table in told["tables"]:
            cells = [cell for command in table.get("idgrid", {}).values() for cell in command.values()]
            if (
                table.get("exposed")
                or any(not cell["exp"] and not cell["pass"] for cell in cells)
                or table.get("leak_cells")
            ):
                yield Found("high", f"{schema}.{table['table']}", "a command that should be denied is not")
        for one in told["bypass_surfaces"]:
            level = str(one.get("severity", "high")).lower()
            yield Found(level if level in SEVERITIES else "info", json.dumps(one), json.dumps(one))


def rlsgrid(given: Setting) -> Iterator[Found]:
    given.run(given.programs / "rlsgrid", "init", "--from-db", "--force")
    config = given.place / "rlsgrid.toml"
    config.write_text(
        re.sub(r"schema_search_path = .*", f"schema_search_path = {json.dumps(given.schemas)}", config.read_text())
    )
    out = given.place / "rlsgrid.sarif"
    given.run(given.programs / "rlsgrid", "check", "--json", "--sarif-out", out)
    for one in sarif(out.read_text()):
        yield replace(one, severity="high")


TOOLS = (
    Tool("rlsaudit audit", rlsaudit_audit, ""),
    Tool("rlsaudit scan", rlsaudit_scan, "", attacks=True),
    Tool("pgrls lint, security rules", pgrls_lint, "pgrls"),
    Tool("pgrls verify, cross-tenant and write", pgrls_verify, "pgrls"),
    Tool("trespass", trespass, "trespass"),
    Tool("rlsautotest", rlsautotest, "rlsautotest", attacks=True),
    Tool("rlsgrid", rlsgrid, "rlsgrid", attacks=True),
    Tool("splinter, security queries", splinter, "splinter.sql"),
)
