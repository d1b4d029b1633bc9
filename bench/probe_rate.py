"""Statements a second of the probe's session against pgbench's on the same server, and memory over time.

    python bench/probe_rate.py                       10 s each of reads and writes, and their ratio to pgbench
    python bench/probe_rate.py --seconds 60 --memory the same for a minute, and the process's memory at start and end

Both send the same statements in one message: BEGIN, set_config, the statement, ROLLBACK (which the probe sends first,
of the program before).  The ratio counts, not the rate: pgbench runs straight before the probe on the same machine,
so that what else the machine does slows both.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.visibility import Visibility
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


def pgbench(server: ScratchServer, context: tuple[str, ...], statement: str, seconds: int) -> float:
    """Messages a second of one pgbench client; ``\\;`` makes one message of several statements."""
    message = " \\; ".join(("BEGIN", *context, statement, "ROLLBACK")) + ";\n"
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(message)
        script.flush()
        Path(script.name).chmod(0o644)
        done = subprocess.run(
            [server.binary("pgbench"), "-n", "-c", "1", "-T", str(seconds), "-f", script.name,
             "-h", str(server.directory), "-U", "r_app", NAME],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    return float(found[1]) if found else 0.0


def probed(server: ScratchServer, context: tuple[str, ...], statement: str, seconds: int) -> float:
    """Messages a second of the probe's session, their replies read into values as the oracles want them."""
    session = Session(server.conninfo(NAME, "r_app"), "r_app")
    program, done, began = [*context, statement], 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        session.transaction(program)
        done += 1
    spent = time.perf_counter() - began
    session.close()
    return done / spent


def memory() -> float:
    """Resident memory of this process, in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=int, default=10)
    options.add_argument(
        "--memory", action="store_true", help="run random workloads as long and show the memory they take"
    )
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
        rows = []
        for shape, statement in SHAPES.items():
            limit = pgbench(server, context, statement, given.seconds)
            own = probed(server, context, statement, given.seconds)
            rows.append([shape, f"{limit:,.0f}", f"{own:,.0f}", f"{own / limit:.2f}"])
        sys.stdout.write(tabulate(rows, headers=["message", "pgbench/s", "probe/s", "ratio"]) + "\n")
        if given.memory:
            arena = Arena(catalog, tenancy, Visibility(catalog), world)
            role = tenancy.roles[0]
            session = Session(server.conninfo(NAME, role.name), role.name)
            seen: list[float] = []
            for part in range(4):
                _, programs = workloads(
                    arena, session, role.oid, seed=part, examples=500, seconds=max(given.seconds / 4, 10), seen=set()
                )
                seen.append(memory())
                sys.stdout.write(f"{programs:,} programs: {seen[-1]:.0f} MB\n")
            session.close()
            sys.stdout.write(f"growth after the first quarter: {seen[-1] - seen[0]:.1f} MB\n")


if __name__ == "__main__":
    main()
