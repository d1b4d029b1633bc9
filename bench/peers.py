"""How other tools do on a directory of cases whose truth is known: found, noise and time, written into docs/comparison.md.

    python bench/peers.py CASES --bin build/peers/bin --splinter splinter.sql --page docs/comparison.md

The cases are those of ground_truth.py.  Every tool gets the same: nothing but the schema, loaded into a database of
its own or as a file, and the names of its schemas.  What reads only a catalog runs on every case, what attacks on a
random sample.  A vulnerable case is found when a finding of medium severity or worse (of any, where the case is one of
low severity) names an object at fault, the application role or the owner; a safe one is noise when such a finding is
about anything in it.  A warning counts as medium.  Tools that are not installed in --bin are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from ground_truth import Case, Found, Outcome, cases, evidence, sarif
from tabulate import tabulate

from rlsaudit import __version__
from rlsaudit.finding import SEVERITIES
from rlsaudit.source.files import read
from rlsaudit.source.load import load_sql
from rlsaudit.source.server import ScratchServer

BEGIN, END = "<!-- measured by `make bench-peers` -->", "<!-- end of what is measured -->"
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
            timeout=300,
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


def measured(case: Case, tools: list[Tool], arguments: argparse.Namespace) -> Iterator[tuple[Tool, Outcome]]:
    """Each tool on one case, on a server of its own so that no other case's roles are in sight."""
    with ScratchServer(arguments.pg_bin) as server:
        server.create_database("case")
        load_sql(lambda: server.connect("case"), [read(case.folder / "schema.sql")])
        with server.connect("case") as connection:
            schemas = connection.execute(
                "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' "
                "AND EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_namespace.oid) ORDER BY 1"
            ).fetchall()
        told = psycopg.conninfo.conninfo_to_dict(server.conninfo("case"))
        given = Setting(
            (case.folder / "schema.sql").absolute(),
            tuple(row[0] for row in schemas),
            f"postgresql://{told['user']}@/case?host={told['host']}&port={told.get('port', 5432)}",
            Path(),
            arguments.bin.absolute(),
            arguments.splinter,
        )
        for tool in tools:
            with tempfile.TemporaryDirectory() as place:
                yield tool, one(case, tool, replace(given, place=Path(place)), server)


def one(case: Case, tool: Tool, given: Setting, server: ScratchServer) -> Outcome:
    begun = spent(server)
    try:
        found, error = tuple(tool.look(given)), ""
    except Exception as failed:  # noqa: BLE001 - a tool that fails on a case is a figure of the table
        found, error = (), f"{type(failed).__name__}: {' '.join(str(failed).split())[:200]}"
    time.sleep(0.2)  # a session of the server ends a little after its client
    return Outcome(case, found, spent(server) - begun, error)


def spent(server: ScratchServer) -> float:
    """CPU seconds of all processes that have ended: those that we started, and the sessions of the server."""
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    postmaster = (server.directory / "data" / "postmaster.pid").read_text().split()[0]
    theirs = Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()[11:15]
    return ours.ru_utime + ours.ru_stime + sum(map(int, theirs)) / os.sysconf("SC_CLK_TCK")


def is_found(outcome: Outcome) -> bool:
    """By medium or worse, whatever the case's own severity: most tools know no more than warning and error."""
    told = outcome.case.told
    level = told["severity"] if told["severity"] in ("low", "info") else "medium"
    return bool(replace(outcome, case=replace(outcome.case, told={**told, "severity": level})).hits)


def version(tool: Tool, arguments: argparse.Namespace) -> str:
    if not tool.program:
        return __version__
    if tool.name.startswith("splinter"):
        return str(arguments.splinter_version)
    asked = "from importlib.metadata import version; import sys; sys.stdout.write(version(sys.argv[1]))"
    name = {"trespass": "trespass-rls"}.get(tool.program, tool.program)
    command = [arguments.bin / "python", "-c", asked, name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def table(outcomes: dict[str, list[Outcome]], tools: list[Tool], arguments: argparse.Namespace) -> str:
    rows = []
    for tool in tools:
        # What is wrong only in how an application uses a right schema is not asked of a tool that reads the schema.
        made = outcomes[tool.name]
        bad = [o for o in made if o.case.vulnerable and (tool.attacks or not o.case.told.get("schema_clean"))]
        good = [o for o in made if not o.case.vulnerable]
        rows.append(
            (
                tool.name,
                version(tool, arguments),
                f"{sum(map(is_found, bad))} of {len(bad)}",
                f"{sum(bool(o.noise) for o in good)} of {len(good)}",
                sum(bool(o.error) for o in made),
                f"{max(statistics.median(o.seconds for o in made), 0.1):.1f} s",
            )
        )
    heads = (
        "tool",
        "version",
        "vulnerable cases found",
        "safe cases with noise",
        "failed",
        "median CPU time of a case",
    )
    return str(tabulate(rows, heads, tablefmt="github"))


def page(outcomes: dict[str, list[Outcome]], tools: list[Tool], arguments: argparse.Namespace) -> str:
    whole, part = (max((len(outcomes[t.name]) for t in tools if t.attacks == a), default=0) for a in (False, True))
    about = (
        f"Measured on {datetime.now(UTC):%d %B %Y}, PostgreSQL {arguments.server}: {whole} cases for what reads the schema, "
        f"a random sample of {part} of them (seed {arguments.seed}) for what attacks."
    )
    return f"{BEGIN}\n\n{about}\n\n{table(outcomes, tools, arguments)}\n\n{END}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--bin", type=Path, required=True, help="bin directory in which the tools are installed")
    parser.add_argument("--splinter", type=Path, help="splinter.sql")
    parser.add_argument("--splinter-version", default="", help="its commit")
    parser.add_argument("--only", default="", help="regular expression on the names of cases")
    parser.add_argument("--tool", default="", help="regular expression on the names of tools")
    parser.add_argument("--sample", type=int, default=40, help="cases for what attacks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", type=Path, help="page whose table is replaced")
    parser.add_argument("--pg-bin", type=Path)
    arguments = parser.parse_args()
    there = {"": True, "splinter.sql": arguments.splinter is not None}
    tools = [
        t for t in TOOLS if there.get(t.program, (arguments.bin / t.program).exists()) and re.search(arguments.tool, t.name)
    ]  # fmt: skip
    chosen = cases(arguments.cases, arguments.only)
    if not chosen or not tools:
        sys.exit(f"{arguments.cases}: no case.toml below it, or no tool")
    picked = {c.name for c in random.Random(arguments.seed).sample(chosen, min(arguments.sample, len(chosen)))}
    with ScratchServer(arguments.pg_bin) as server:
        arguments.server = server.version
    outcomes: dict[str, list[Outcome]] = {tool.name: [] for tool in tools}
    for number, case in enumerate(chosen, 1):
        for tool, outcome in measured(case, [t for t in tools if not t.attacks or case.name in picked], arguments):
            outcomes[tool.name].append(outcome)
            state = outcome.error or (
                "found" if case.vulnerable and is_found(outcome) else "noise" if outcome.noise else ""
            )
            print(f"{number}/{len(chosen)} {case.name} {tool.name}: {state}", file=sys.stderr)
    made = page(outcomes, tools, arguments)
    print(made)
    if arguments.page:
        text = arguments.page.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        arguments.page.write_text(f"{before}{made}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
