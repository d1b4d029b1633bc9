"""What a tool finds in a directory of cases whose truth is known, as one table; any tool, by the format it writes.

    python bench/ground_truth.py CASES                              rlsaudit's audit alone, in this process
    python bench/ground_truth.py CASES --mode scan                  audit, proof and probe, zero-config
    python bench/ground_truth.py CASES --mode context               scan with each case's context declared
    python bench/ground_truth.py CASES --tool 'linter --url {dsn} -o {out}' --format sarif

A case is a folder with ``schema.sql`` and ``case.toml`` (vulnerable, severity, objects, threat, [env] app_role).
A vulnerable case is found when a finding of its severity or worse names one of its objects, the application role or
the owner; any finding of medium or above on a safe case is noise.  Performance findings count as neither.
Of a tool's command ``{dsn}``, ``{schema}``, ``{role}`` and ``{out}`` are filled in; what it writes to {out}, else to
standard output, is read as ``evidence``, ``sarif``, ``junit``, ``json`` (a list of objects with severity, object,
message) or ``lines`` (each line a finding, its severity the first word of a severity in it, else high).
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from tabulate import tabulate

from rlsaudit.catalog.load import load_catalog
from rlsaudit.check import run_checks
from rlsaudit.finding import SEVERITIES
from rlsaudit.options import Options
from rlsaudit.scan import scan
from rlsaudit.source.files import read
from rlsaudit.source.load import load_sql
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.infer import Declared, infer
from rlsaudit.tenancy.model import Context, Persona

LEVELS = {"error": "high", "warning": "medium", "note": "low", "none": "info"}


@dataclass(frozen=True)
class Case:
    name: str
    folder: Path
    told: dict[str, Any]

    @property
    def vulnerable(self) -> bool:
        return bool(self.told["vulnerable"])

    @property
    def role(self) -> str:
        return str(self.told.get("env", {}).get("app_role", ""))


@dataclass(frozen=True)
class Found:
    severity: str
    object: str
    message: str
    check: str = ""
    confirmed: bool = False


@dataclass(frozen=True)
class Outcome:
    case: Case
    findings: tuple[Found, ...]
    seconds: float
    error: str = ""

    @property
    def hits(self) -> list[Found]:
        """Findings that count: of the case's severity or worse, on the right object."""
        told = self.case.told
        floor = SEVERITIES.index("info" if told["severity"] in ("low", "info") else told["severity"])
        env = told.get("env", {})
        names = [re.split(r"[(]", one)[0].split(".")[-1] for one in told["objects"]]
        names += [env.get("app_role", ""), env.get("owner_role", "")]
        return [
            f for f in self.findings
            if not f.check.startswith("RLS6") and SEVERITIES.index(f.severity) <= floor
            and any(name and name.lower() in f"{f.object} {f.message}".lower() for name in names)
        ]  # fmt: skip

    @property
    def noise(self) -> list[Found]:
        allowed = self.case.told["severity"]
        floor = SEVERITIES.index(allowed) if allowed in SEVERITIES[:2] else SEVERITIES.index("low")
        return [f for f in self.findings if not f.check.startswith("RLS6") and SEVERITIES.index(f.severity) < floor]


def cases(directory: Path, only: str) -> list[Case]:
    found = [Case(p.parent.name, p.parent, tomllib.loads(p.read_text())) for p in sorted(directory.glob("*/case.toml"))]
    return [one for one in found if re.search(only, one.name) and one.told.get("kind") != "version"]


def audit(case: Case, pg_bin: Path | None) -> tuple[Found, ...]:
    with ScratchServer(pg_bin) as server:
        server.create_database("case")
        load_sql(lambda: server.connect("case"), [read(case.folder / "schema.sql")])
        with server.connect("case") as connection:
            catalog = load_catalog(connection)
    found = run_checks(catalog, infer(catalog, Declared(roles=(case.role,))))
    return tuple(Found(f.severity, f.object, f.message, f.check) for f in found)


def scanned(case: Case, pg_bin: Path | None, *, with_context: bool) -> tuple[Found, ...]:
    context = None
    env = case.told.get("env", {})
    if with_context and env.get("context_sql_a") and env.get("tenant_a"):
        statement = str(env["context_sql_a"]).replace(f"'{env['tenant_a']}'", ":tenant")
        context = Context((Persona("case", (statement,)),), declared=True) if ":tenant" in statement else None
    options = Options(
        source=str(case.folder / "schema.sql"), stdin=io.BytesIO(), pg_bin=pg_bin, budget=1.0,
        declared=Declared(roles=(case.role,), context=context),
    )  # fmt: skip
    report = scan(options, lambda *_: None).report
    return tuple(Found(f.severity, f.object, f.message, f.check, f.confirmed) for f in report.findings)


def by_tool(case: Case, pg_bin: Path | None, command: str, written: str) -> tuple[Found, ...]:
    with ScratchServer(pg_bin) as server, tempfile.TemporaryDirectory() as place:
        server.create_database("case")
        load_sql(lambda: server.connect("case"), [read(case.folder / "schema.sql")])
        out = Path(place) / "out"
        told = psycopg.conninfo.conninfo_to_dict(server.conninfo("case"))
        dsn = f"postgresql://{told['user']}@/case?host={told['host']}&port={told.get('port', 5432)}"
        values = {"dsn": dsn, "schema": str(case.folder / "schema.sql"), "role": case.role, "out": str(out)}
        done = subprocess.run(
            [part.format(**values) for part in shlex.split(command)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        text = out.read_text() if out.exists() else done.stdout
    return tuple(READERS[written](text))


def evidence(text: str) -> Iterator[Found]:
    for f in json.loads(text)["findings"]:
        yield Found(f["severity"], f["object"], f["message"], f["check"], f["confirmed"])


def sarif(text: str) -> Iterator[Found]:
    for run in json.loads(text)["runs"]:
        for result in run["results"]:
            names = " ".join(
                place.get("fullyQualifiedName", "")
                for location in result.get("locations", ())
                for place in location.get("logicalLocations", ())
            )
            level = LEVELS.get(result.get("level", "warning"), "medium")
            yield Found(level, names, result["message"].get("text", ""), result.get("ruleId", ""))


def junit(text: str) -> Iterator[Found]:
    for case in ET.fromstring(text).iter("testcase"):
        for failure in case.findall("failure"):
            yield Found(
                "high", case.get("classname", ""), f"{case.get('name')} {failure.get('message')} {failure.text}"
            )


def plain_json(text: str) -> Iterator[Found]:
    for one in json.loads(text):
        severity = str(one.get("severity", "high")).lower()
        yield Found(severity if severity in SEVERITIES else "high", str(one.get("object", "")), json.dumps(one))


def lines(text: str) -> Iterator[Found]:
    for line in filter(str.strip, text.splitlines()):
        said = re.search(rf"\b({'|'.join(SEVERITIES)})\b", line, re.IGNORECASE)
        yield Found(said.group().lower() if said else "high", line, line)


READERS = {"evidence": evidence, "sarif": sarif, "junit": junit, "json": plain_json, "lines": lines}


def run(case: Case, arguments: argparse.Namespace) -> Outcome:
    begun = time.monotonic()
    try:
        if arguments.tool:
            found = by_tool(case, arguments.pg_bin, arguments.tool, arguments.format)
        elif arguments.mode == "audit":
            found = audit(case, arguments.pg_bin)
        else:
            found = scanned(case, arguments.pg_bin, with_context=arguments.mode == "context")
        return Outcome(case, found, time.monotonic() - begun)
    except Exception as error:  # noqa: BLE001 - one case that cannot be run is a line of the table
        return Outcome(
            case, (), time.monotonic() - begun, f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        )


def table(outcomes: list[Outcome], *, static: bool) -> str:
    """Found and noise by threat class; cases whose schema is right are not asked of a static audit."""
    rows: dict[str, Counter[str]] = {}
    for one in outcomes:
        if one.case.vulnerable and static and one.case.told.get("schema_clean"):
            continue
        for name in (one.case.told.get("threat", "") if one.case.vulnerable else "safe", "all"):
            row = rows.setdefault(name, Counter())
            row["cases"] += 1
            row["error"] += bool(one.error)
            if one.case.vulnerable:
                row["vulnerable"] += 1
                row["found"] += bool(one.hits)
                row["confirmed"] += any(f.confirmed for f in one.hits)
            else:
                row["safe"] += 1
                row["noise"] += bool(one.noise)
    heads = ("cases", "vulnerable", "found", "confirmed", "safe", "noise", "error")
    order = sorted(rows, key=lambda name: (name == "all", name))
    return tabulate([(name, *(rows[name][head] for head in heads)) for name in order], ("threat", *heads))


def details(outcomes: list[Outcome], *, static: bool) -> Iterator[str]:
    for one in outcomes:
        told = one.case.told
        if one.error:
            yield f"error   {one.case.name}: {one.error}"
        elif one.case.vulnerable and not one.hits and not (static and told.get("schema_clean")):
            yield f"missed  {one.case.name} ({told['severity']} {told.get('rule', '')})"
        elif not one.case.vulnerable and one.noise:
            f = one.noise[0]
            yield f"noise   {one.case.name}: {f.severity} {f.check} {f.object}: {f.message[:160]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--mode", choices=("audit", "scan", "context"), default="audit")
    parser.add_argument("--tool", help="command of another tool")
    parser.add_argument("--format", choices=sorted(READERS), default="sarif", help="what it writes")
    parser.add_argument("--only", default="", help="regular expression on the names of cases")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--pg-bin", type=Path)
    arguments = parser.parse_args()
    chosen = cases(arguments.cases, arguments.only)
    if not chosen:
        sys.exit(f"{arguments.cases}: no case.toml below it")
    # Hypothesis and signal handling want the main thread, so only audits and other tools run side by side.
    jobs = arguments.jobs if arguments.mode == "audit" else 1
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(lambda one: run(one, arguments), chosen))
    static = arguments.mode == "audit"
    print("\n".join(details(outcomes, static=static)))
    print(table(outcomes, static=static))
    slowest = max(outcomes, key=lambda one: one.seconds)
    print(f"{sum(o.seconds for o in outcomes):.0f} s of work, slowest {slowest.case.name} {slowest.seconds:.1f} s")


if __name__ == "__main__":
    main()
