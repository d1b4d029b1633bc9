"""What a fleet costs beside its targets' own runs, and the size of its reports.

    python bench/fleet_overhead.py              200 databases on one server, two at once
    python bench/fleet_overhead.py 40 --jobs 2

The same audits are run by ``rlsaudit fleet`` and by the simplest loop that starts as many at once, both at the same time,
so that what else the machine does meets both.  ``overhead`` is what the fleet takes more than the loop, of the loop; the
limit is 5 %.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from measure import Figure, asked, at_most, tell

from rlsaudit.fleet import page
from rlsaudit.fleet.result import Entry, Fleet, document
from rlsaudit.source.server import ScratchServer

ROLE = "m_app"
SCHEMA = """
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE notes (tenant_id int NOT NULL REFERENCES tenants, id int, body text NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON tenants USING (id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::int));
CREATE POLICY own ON notes USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::int));
GRANT SELECT ON tenants TO m_app; GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO m_app;
"""
LIMIT = 5.0
ENOUGH = 100
"""Targets from which on the start of the fleet's own process is not most of what is measured."""
FORMATS = "json,html,junit"


def databases(server: ScratchServer, count: int) -> dict[str, str]:
    """As many databases with one small schema: name → connection string."""
    with server.connect() as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN")
    server.create_database("model")
    with server.connect("model") as connection:
        connection.execute(SCHEMA)
    names = [f"target_{number:03}" for number in range(count)]
    for name in names:
        server.create_database(name, "model")
    return {name: server.conninfo(name) for name in names}


@dataclass(frozen=True)
class Taken:
    elapsed: float
    cpu: float


def run(arguments: Sequence[str | Path], directory: Path) -> float:
    """The command line in a process of its own; the CPU seconds of it and of all that it waited for."""
    environment = {**os.environ, "NO_COLOR": "1", "CI": "1"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlsaudit", *map(str, arguments)],
            cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            start_new_session=True,  # as the fleet does: the kernel shares processors between sessions
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        assert process.returncode == 0, said.read().decode()
    return used.ru_utime + used.ru_stime


def directly(sources: Mapping[str, str], directory: Path, jobs: int) -> Taken:
    def one(name: str) -> float:
        out = directory / "direct" / name
        given = ["audit", sources[name], "--role", ROLE, "--quiet", "--format", FORMATS, "--output-dir", out]
        return run(given, directory)

    begun = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        cpu = sum(pool.map(one, sources))
    return Taken(time.monotonic() - begun, cpu)


def as_fleet(sources: Mapping[str, str], directory: Path, jobs: int) -> Taken:
    file = directory / "fleet.toml"
    targets = [f"[targets.{name}]\nsource = {json.dumps(dsn)}\n" for name, dsn in sources.items()]
    file.write_text(f'[defaults]\nmode = "audit"\nroles = ["{ROLE}"]\n{"".join(targets)}', encoding="utf-8")
    begun = time.monotonic()
    cpu = run(["fleet", file, "--jobs", str(jobs), "--format", FORMATS, "--quiet"], directory)
    taken = Taken(time.monotonic() - begun, cpu)
    found = json.loads((directory / "rlsaudit-fleet" / "fleet.json").read_text())["entries"]
    assert {one["name"] for one in found} == sources.keys()
    return taken


def overhead(count: int, jobs: int) -> Iterator[Figure]:
    with ScratchServer() as server, tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as both:
        sources = databases(server, count)
        directly(dict(list(sources.items())[:jobs]), Path(place), jobs)  # what is read for the first time
        fleet, direct = (both.submit(work, sources, Path(place), jobs) for work in (as_fleet, directly))
        own, loop = fleet.result(), direct.result()
    for kind, more, less in (("elapsed", own.elapsed, loop.elapsed), ("CPU", own.cpu, loop.cpu)):
        what, percent = f"fleet of {count}, overhead, {kind} time", 100 * (more - less) / less
        said = f" %: {more:.1f} s against {less:.1f} s"
        few = Figure(what, f"{percent:.1f}{said}, the start of the fleet's own process among it")
        yield few if count < ENOUGH else at_most(what, percent, LIMIT, "{:.1f}", said)


def reports(count: int) -> Iterator[Figure]:
    """Writing the reports of a fleet: sizes, and CPU time."""
    one = Entry(
        "", "service=database", "exceptions", 1, "exceptions noted: 3 leaks in 24 cells", "2026-01-01T00:00:00+00:00", 31.4, 1,
        (("critical", 2), ("high", 1)), (("held", 20), ("leak", 3), ("not covered", 1)), 6, False, "0" * 64, "sha256:" + "0" * 64,
    )  # fmt: skip
    entries = tuple(replace(one, name=f"target-{number:04}") for number in range(count))
    fleet = Fleet("0", "2026-01-01T00:00:00+00:00", 3600.0, count, entries)
    linked = {entry.name for entry in entries}
    page.html(replace(fleet, entries=entries[:1]), ())  # what is loaded once is loaded
    makers: dict[str, Callable[[], str]] = {
        "fleet.json": lambda: document(fleet),
        "index.html": lambda: page.html(fleet, linked),
        "TEST-fleet.xml": lambda: page.junit(fleet),
    }
    for name, make in makers.items():
        begun = time.process_time()
        made = make()
        spent = time.process_time() - begun
        yield Figure(f"{name} of {count:,} targets", f"{len(made) / 1e6:.2f} MB in {1000 * spent:.0f} ms")


def main() -> None:
    parser = asked(__doc__)
    parser.add_argument("targets", nargs="?", type=int)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    count = given.targets or (10 if given.quick else 200)
    tell([*overhead(count, given.jobs), *reports(1000)], given.figures)


if __name__ == "__main__":
    main()
