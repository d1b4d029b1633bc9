"""How other tools do where the truth is known: found, noise and time, written into docs/comparison.md.

    python bench/peers.py --bin build/peers/bin --splinter build/splinter.sql --page docs/comparison.md
    python bench/peers.py CASES …              also on a directory of cases, as ground_truth.py reads them

Measured are the cases of own_cases.py, its generated database, and CASES.  Every tool gets the same: nothing but the
schema, loaded into a database of its own or as a file, and the names of its schemas.  What reads only a catalog runs on
every case, what attacks on a random sample.  A vulnerable case is found when a finding of medium severity or worse (of
any, where the case is one of low severity) names an object at fault, the application role or the owner; a safe one is
noise when such a finding is about anything in it.  A warning counts as medium.  In the generated database a leak is found
when such a finding names an object at fault, and a sound table is noise when one names it and nothing that is at fault.
A tool that is not installed in --bin has a row that says so.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import own_cases
import psycopg
from ground_truth import Case, Found, Outcome, cases
from measure import Figure, asked, at_least, at_most, processor, tell
from peer_tools import TOOLS, Setting, Tool
from tabulate import tabulate

from rlsaudit import __version__
from rlsaudit.finding import SEVERITIES
from rlsaudit.source.files import read
from rlsaudit.source.load import load_sql
from rlsaudit.source.server import ScratchServer

BEGIN, END = "<!-- measured by `make bench`: {} -->", "<!-- end of {} -->"
SECTIONS = ("own cases", "generated database", "other cases")
MISSING = "not installed"


def measured(case: Case, tools: Sequence[Tool], arguments: argparse.Namespace) -> Iterator[tuple[Tool, Outcome]]:
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
    begun = processor(server)
    try:
        found, error = tuple(tool.look(given)), ""
    except Exception as failed:  # noqa: BLE001 - a tool that fails on a case is a figure of the table
        found, error = (), f"{type(failed).__name__}: {' '.join(str(failed).split())[:200]}"
    time.sleep(0.2)  # a session of the server ends a little after its client
    return Outcome(case, found, processor(server) - begun, error)


def is_found(outcome: Outcome) -> bool:
    """By medium or worse, whatever the case's own severity: most tools know no more than warning and error."""
    told = outcome.case.told
    level = told["severity"] if told["severity"] in ("low", "info") else "medium"
    return bool(replace(outcome, case=replace(outcome.case, told={**told, "severity": level})).hits)


def installed(tool: Tool, arguments: argparse.Namespace) -> bool:
    if tool.program == "splinter.sql":
        return bool(arguments.splinter and arguments.splinter.is_file())
    return not tool.program or (arguments.bin / tool.program).exists()


def version(tool: Tool, arguments: argparse.Namespace) -> str:
    if not tool.program:
        return __version__
    if tool.program == "splinter.sql":
        return str(arguments.splinter_version)[:7]
    asks = "from importlib.metadata import version; import sys; sys.stdout.write(version(sys.argv[1]))"
    name = {"trespass": "trespass-rls"}.get(tool.program, tool.program)
    command = [arguments.bin / "python", "-c", asks, name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def on_cases(found: list[Case], arguments: argparse.Namespace, *, limited: bool) -> tuple[str, list[Figure]]:
    """The table of a directory of cases; ``limited`` where noise of ours is a failure.

    Own sound cases are those that hold when executed; a reader of the schema may rightly question one of them.
    """
    picked = {c.name for c in random.Random(arguments.seed).sample(found, min(arguments.sample, len(found)))}
    outcomes: dict[str, list[Outcome]] = {tool.name: [] for tool in arguments.tools}
    for number, case in enumerate(found, 1):
        asked_here = [t for t in arguments.there if not t.attacks or case.name in picked]
        for tool, outcome in measured(case, asked_here, arguments):
            outcomes[tool.name].append(outcome)
            said = "found" if case.vulnerable and is_found(outcome) else "noise" if outcome.noise else ""
            print(f"{number}/{len(found)} {case.name} {tool.name}: {outcome.error or said}", file=sys.stderr)
    rows, figures = [], []
    for tool in arguments.tools:
        # What is wrong only in how an application uses a right schema is not asked of a tool that reads the schema.
        made = outcomes[tool.name]
        bad = [o for o in made if o.case.vulnerable and (tool.attacks or not o.case.told.get("schema_clean"))]
        good = [o for o in made if not o.case.vulnerable]
        if not made:
            rows.append((tool.name, MISSING, *("–",) * 4))
            continue
        hits, noisy, failed = (
            sum(map(is_found, bad)),
            sum(bool(o.noise) for o in good),
            sum(bool(o.error) for o in made),
        )
        taken = max(statistics.median(o.seconds for o in made), 0.1)
        rows.append(
            (
                tool.name,
                version(tool, arguments),
                f"{hits} of {len(bad)}",
                f"{noisy} of {len(good)}",
                failed,
                f"{taken:.1f} s",
            )
        )
        if not tool.program:
            figures.append(Figure(f"{tool.name} on cases", f"{hits} of {len(bad)} found"))
            name, of = f"{tool.name} on cases, safe ones with noise", f" of {len(good)}"
            figures.append(at_most(name, noisy, 0, "{:.0f}", of) if limited else Figure(name, f"{noisy}{of}"))
    heads = (
        "tool",
        "version",
        "vulnerable cases found",
        "safe cases with noise",
        "failed",
        "median CPU time of a case",
    )
    about = (
        f"{len(found)} cases for what reads the schema, a random sample of {len(picked)} of them (seed {arguments.seed}) "
        "for what attacks"
    )
    return _section(about, rows, heads, arguments), figures


def on_generated(arguments: argparse.Namespace) -> tuple[str, list[Figure]]:
    """The table of one database with many leaks among many sound tables."""
    tables, leaks = (12, 5) if arguments.quick else (50, 15)
    made = own_cases.generated(tables, leaks, arguments.seed)
    rows, figures = [], []
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "schema.sql").write_text(made.script, encoding="utf-8")
        case = Case("generated", Path(place), {"vulnerable": True, "severity": "medium", "objects": []})
        outcomes = dict(measured(case, arguments.there, arguments))
    for tool in arguments.tools:
        if tool not in outcomes:
            rows.append((tool.name, MISSING, *("–",) * 3))
            continue
        outcome = outcomes[tool]
        print(f"generated {tool.name}: {outcome.error or f'{len(outcome.findings)} findings'}", file=sys.stderr)
        found, noisy = judged(outcome.findings, made)
        said = "failed" if outcome.error else f"{found} of {len(made.faulty)}"
        rows.append(
            (tool.name, version(tool, arguments), said, f"{noisy} of {len(made.sound)}", f"{outcome.seconds:.1f} s")
        )
        if not tool.program:
            name = f"{tool.name} on a generated database"
            figures.append(at_least(f"{name}, leaks found", found, len(made.faulty), "{:.0f}"))
            figures.append(at_most(f"{name}, sound tables with noise", noisy, 0, "{:.0f}", f" of {len(made.sound)}"))
    about = f"one generated database (seed {arguments.seed}) of {tables} tables and {len(made.faulty)} planted leaks"
    heads = ("tool", "version", "leaks found", "sound tables with noise", "CPU time")
    return _section(about, rows, heads, arguments), figures


def judged(findings: Sequence[Found], made: own_cases.Generated) -> tuple[int, int]:
    """(planted leaks that a finding names, sound tables that one is about)."""
    faulty = frozenset[str]().union(*made.faulty)
    found: set[str] = set()
    noisy: set[str] = set()
    for one_found in findings:
        if one_found.check.startswith("RLS6") or SEVERITIES.index(one_found.severity) > SEVERITIES.index("medium"):
            continue
        words = set(re.findall(r"\w+", one_found.object)) & (faulty | made.sound)
        words = words or set(re.findall(r"\w+", one_found.message))
        found |= words & faulty
        noisy |= set() if words & faulty else words & made.sound
    return sum(bool(found & names) for names in made.faulty), len(noisy)


def _section(about: str, rows: Sequence[Sequence[object]], heads: Sequence[str], arguments: argparse.Namespace) -> str:
    when = f"Measured on {datetime.now(UTC):%d %B %Y}, PostgreSQL {arguments.server}: {about}."
    return f"{when}\n\n{tabulate(rows, heads, tablefmt='github', disable_numparse=True)}"


def put(page: Path, name: str, text: str) -> None:
    """Replace one section of the page.  Raises ValueError when it has none of that name."""
    begin, end, whole = BEGIN.format(name), END.format(name), page.read_text(encoding="utf-8")
    before, _, rest = whole.partition(begin)
    if end not in rest:
        raise ValueError(f"{page}: no section {begin}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def main() -> None:
    parser = asked(__doc__)
    parser.add_argument("cases", type=Path, nargs="?")
    parser.add_argument("--bin", type=Path, default=Path("build/peers/bin"), help="where the tools are installed")
    parser.add_argument("--splinter", type=Path, help="splinter.sql")
    parser.add_argument("--splinter-version", default="", help="its commit")
    parser.add_argument("--only", default="", help="regular expression on the names of cases")
    parser.add_argument("--tool", default="", help="regular expression on the names of tools")
    parser.add_argument("--sample", type=int, default=40, help="cases for what attacks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", type=Path, help="page whose tables are replaced")
    parser.add_argument("--pg-bin", type=Path)
    arguments = parser.parse_args()
    arguments.tools = [tool for tool in TOOLS if re.search(arguments.tool, tool.name)]
    arguments.there = [tool for tool in arguments.tools if installed(tool, arguments)]
    with ScratchServer(arguments.pg_bin) as server:
        arguments.server = server.version
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as place:
        own_cases.write(Path(place) / "cases")
        own = cases(Path(place) / "cases", arguments.only)
        if arguments.quick:
            arguments.sample, own = 2, random.Random(arguments.seed).sample(own, 4)
        parts = {
            "own cases": lambda: on_cases(own, arguments, limited=False),
            "generated database": lambda: on_generated(arguments),
        }
        if arguments.cases is not None:
            others = cases(arguments.cases, arguments.only)
            if not others:
                sys.exit(f"{arguments.cases}: no case.toml below it")
            parts["other cases"] = lambda: on_cases(others, arguments, limited=True)
        for name, part in parts.items():
            text, more = part()
            print(f"{text}\n")
            figures += more
            if arguments.page and not arguments.quick:
                put(arguments.page, name, text)
    tell(figures, arguments.figures)


if __name__ == "__main__":
    main()
