"""How long a whole scan takes on schemas that a program writes: the time of each phase, by the number of tables.

    python bench/probe_scale.py                    20 tables, one session per core
    python bench/probe_scale.py 20 100 300 --jobs 2
    python bench/probe_scale.py --source schema.sql

Tables have a composite primary key, a tenant key, a CHECK, a default and, four in five, a foreign key to the one before.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

from tabulate import tabulate

from rlsaudit.options import Options
from rlsaudit.scan import scan

HEAD = """
CREATE ROLE g_owner NOLOGIN; CREATE ROLE g_app LOGIN; GRANT CREATE ON SCHEMA public TO g_owner; SET ROLE g_owner;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT ON tenants TO g_app;
"""
TABLE = """
CREATE TABLE t{at} (
    tenant_id int NOT NULL REFERENCES tenants, id int NOT NULL, title text NOT NULL, body text,
    status text NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'open', 'done')), amount numeric(12, 2),
    created timestamptz NOT NULL DEFAULT now(){reference}, PRIMARY KEY (tenant_id, id)
);
ALTER TABLE t{at} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON t{at} USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT, INSERT, UPDATE, DELETE ON t{at} TO g_app;
"""


def schema(tables: int) -> str:
    """A sound schema of that many tables, the registry of tenants among them."""
    made = [HEAD]
    for at in range(tables - 1):
        before = f"t{at - 1}"
        linked = f", {before}_id int, FOREIGN KEY (tenant_id, {before}_id) REFERENCES {before} (tenant_id, id)"
        made.append(TABLE.format(at=at, reference=linked if at % 5 else ""))
    return "".join(made)


def measured(source: str, jobs: int, budget: float) -> list[object]:
    """One scan: verdict, cells held, and seconds in all and in each phase."""
    began = time.monotonic()
    layers: dict[str, float] = {}
    current, since = "", began

    def progress(what: str, done: int, of: int) -> None:
        nonlocal current, since
        now = time.monotonic()
        layer = what.partition(" as ")[0]
        if layer != current:
            layers[current] = layers.get(current, 0) + now - since
            current, since = layer, now

    report = scan(Options(source=source, stdin=BytesIO(), budget=budget, jobs=jobs), progress).report
    layers[current] = layers.get(current, 0) + time.monotonic() - since
    slowest = sorted(((spent, layer) for layer, spent in layers.items() if layer), reverse=True)[:4]
    said = ", ".join(f"{layer} {spent:.1f} s" for spent, layer in slowest)
    return [report.verdict, len(report.cells), f"{time.monotonic() - began:.1f}", said]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("tables", nargs="*", type=int, default=[20])
    options.add_argument("--source", action="append", default=[], help="an SQL file of one's own instead")
    options.add_argument("--jobs", type=int, default=0)
    options.add_argument("--budget", type=float, default=1.0)
    given = options.parse_args()
    rows = [[source, *measured(source, given.jobs, given.budget)] for source in given.source]
    with tempfile.TemporaryDirectory() as directory:
        for tables in () if given.source else given.tables:
            path = Path(directory) / f"{tables}.sql"
            path.write_text(schema(tables), encoding="utf-8")
            rows.append([f"{tables} tables", *measured(str(path), given.jobs, given.budget)])
    sys.stdout.write(tabulate(rows, headers=["source", "verdict", "cells", "seconds", "slowest"]) + "\n")


if __name__ == "__main__":
    main()
