"""Statements a second of the probe's session against pgbench's on the same server, and memory over time.

    python bench/probe_rate.py               reads and writes, and their ratio to pgbench, at least 0.6
    python bench/probe_rate.py --memory 60   also random workloads for a minute, and the process's memory meanwhile

Both send the same statements in one message: BEGIN, set_config, the statement, ROLLBACK (which the probe sends first,
of the program before).  The ratio counts, not the rate, and that of messages for each second of processor time, the
client's and its server process's, which wait for each other.  They take turns, and the median of the turns' ratios
counts: a machine that is fast in one minute and slow in the next is so for both.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from measure import asked, at_least, processor, tell

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.attacks.workload import workloads
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.ground.statement_text import acting
from rlsaudit.probe.seeding.populate import populate
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.infer import infer

TABLES = """
CREATE ROLE r_app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE docs (tenant_id int NOT NULL REFERENCES tenants, id int, body text NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY; ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
CREATE POLICY own ON docs USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT ON tenants TO r_app; GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO r_app;
"""
SHAPES = {"read": "SELECT tenant_id, id, body FROM docs", "write": "UPDATE docs SET body = body"}
NAME = "rate"
LIMIT = 0.6
MESSAGES = 5_000
TURNS = 12
Way = Callable[[ScratchServer, tuple[str, ...], str], None]


def pgbench(server: ScratchServer, context: tuple[str, ...], statement: str) -> None:
    """One pgbench client; ``\\;`` makes one message of several statements."""
    message = " \\; ".join(("BEGIN", *context, statement, "ROLLBACK")) + ";\n"
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(message)
        script.flush()
        Path(script.name).chmod(0o644)
        subprocess.run(
            [server.binary("pgbench"), "-n", "-c", "1", "-t", str(MESSAGES), "-f", script.name,
             "-h", str(server.directory), "-U", "r_app", NAME],
            capture_output=True, check=True,
        )  # fmt: skip


def probed(server: ScratchServer, context: tuple[str, ...], statement: str) -> None:
    """The probe's session, its replies read into values as the oracles want them."""
    session = Session(server.conninfo(NAME, "r_app"), "r_app")
    program = [*context, statement]
    for _ in range(MESSAGES):
        session.transaction(program)
    session.close()


@dataclass(frozen=True)
class Rate:
    of_processor: float
    elapsed: float


def rated(server: ScratchServer, way: Way, context: tuple[str, ...], statement: str) -> Rate:
    """Messages a second of processor time, and of elapsed time."""
    with server.connect(NAME) as connection:
        connection.execute("VACUUM docs")  # what the turn before rolled back
    time.sleep(0.3)
    before, begun = processor(server), time.perf_counter()
    way(server, context, statement)
    elapsed = time.perf_counter() - begun
    time.sleep(0.3)  # the server's process ends a little after its client
    return Rate(MESSAGES / (processor(server) - before), MESSAGES / elapsed)


def memory() -> float:
    """Resident memory of this process, in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def main() -> None:
    options = asked(__doc__)
    options.add_argument("--memory", type=int, default=0, metavar="SECONDS", help="run random workloads as long")
    given = options.parse_args()
    with ScratchServer() as server:
        server.create_database(NAME)
        with server.connect(NAME) as connection:
            connection.execute(TABLES)
            catalog = load_catalog(connection)
            tenancy = infer(catalog)
            world = populate(connection, catalog, tenancy)
        tenant, persona = world.tenants[0], tenancy.context.personas[0]
        context = acting(persona, tenant.key, tenant.user)
        figures = []
        for shape, statement in SHAPES.items():
            turns = [
                [rated(server, way, context, statement) for way in (pgbench, probed)]
                for _ in range(TURNS // 4 if given.quick else TURNS)
            ]
            limit, own = turns[-1]
            said = (
                f": in the last turn {own.of_processor:,.0f} of {limit.of_processor:,.0f} messages/s of processor time"
            )
            said += f", {own.elapsed:,.0f} and {limit.elapsed:,.0f} elapsed"
            ratio = statistics.median(own.of_processor / limit.of_processor for limit, own in turns)
            figures.append(at_least(f"probe against pgbench, {shape}", ratio, LIMIT, said=said))
        tell(figures, given.figures)
        if given.memory:
            arena = Arena(catalog, tenancy, visibility_of(catalog), world)
            role = tenancy.roles[0]
            session = Session(server.conninfo(NAME, role.name), role.name)
            seen: list[float] = []
            for part in range(4):
                _, programs = workloads(
                    arena, session, role.oid, seed=part, examples=500, seconds=given.memory / 4, seen=set()
                )
                seen.append(memory())
                sys.stdout.write(f"{programs:,} programs: {seen[-1]:.0f} MB\n")
            session.close()
            sys.stdout.write(f"growth after the first quarter: {seen[-1] - seen[0]:.1f} MB\n")


if __name__ == "__main__":
    main()
