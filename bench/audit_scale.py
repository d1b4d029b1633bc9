"""How long an audit takes, against its own catalog queries fetched raw, on 1,000, 5,000 and 20,000 tables.

    python bench/audit_scale.py [--pg-bin DIR] [--ordinary] [N …]

Each table has 12 columns, two policies, three indexes, a foreign key, a CHECK and grants to two roles; every
tenth has a view.  One of the policies looks into another table, a hard case; with ``--ordinary`` none does.
``raw`` is the time of the queries alone (fetchall, rows thrown away) in the same run, as a plain program has it: with the
garbage collector, which the audit holds back; ``audit`` is load, inference and every check, and must stay under 2.5 times
that.  Times are processor time,
of this program and of the server's process that answers it, and the median of some turns, so that other work on the
machine hardly tells.  ``peak`` is the most memory that the program had.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from rlsaudit.catalog import load
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS
from rlsaudit.catalog.snapshot import fingerprint, parse, save
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.check import run_checks
from rlsaudit.collecting import without_collecting
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.infer import Declared, infer

ROUNDS = 7
TABLE = """
CREATE TABLE {table} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id integer NOT NULL,
    parent_id bigint REFERENCES {parent}, name text NOT NULL, email varchar(200),
    state text DEFAULT 'new' CHECK (state IN ('new', 'open', 'closed')),
    amount numeric(12, 2) DEFAULT 0, tags text[], document jsonb, due date,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz, UNIQUE (tenant_id, name));
CREATE INDEX ON {table} (tenant_id, created_at);
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {table} USING (tenant_id = current_setting('app.tenant_id', true)::int);
CREATE POLICY owner ON {table} AS RESTRICTIVE FOR DELETE TO app
    USING (state <> 'closed'{also});
GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO app;
GRANT SELECT, UPDATE (name, state) ON {table} TO reader;
"""
INTO_PARENT = " AND EXISTS (SELECT FROM {parent} p WHERE p.tenant_id = {table}.tenant_id)"
VIEW = "CREATE VIEW {view} WITH (security_invoker) AS SELECT id, tenant_id FROM {table} WHERE state <> 'closed'"


def build(connection: psycopg.Connection[Any], tables: int, *, ordinary: bool = False) -> None:
    connection.execute(
        "DO $$ BEGIN CREATE ROLE app LOGIN; CREATE ROLE reader; EXCEPTION WHEN duplicate_object THEN END $$"
    )
    for number in range(tables):
        table, parent = sql.Identifier(f"table_{number}"), sql.Identifier(f"table_{max(number - 1, 0)}")
        also = sql.SQL("" if ordinary else INTO_PARENT).format(table=table, parent=parent)
        connection.execute(sql.SQL(TABLE).format(table=table, parent=parent, also=also))
        if number % 10 == 0:
            connection.execute(sql.SQL(VIEW).format(view=sql.Identifier(f"view_{number}"), table=table))
        if number % 100 == 99:
            connection.commit()  # a transaction holds one lock per relation
    connection.commit()


def raw(connection: psycopg.Connection[Any]) -> Callable[[], None]:
    """A function that runs what load_catalog runs and throws the rows away."""
    statements: list[tuple[Any, Any]] = []
    rows = load._rows

    def remember(cursor: Any, query: Any, parameters: Any = None) -> Any:
        statements.append((query, parameters))
        return rows(cursor, query, parameters)

    load._rows = remember
    try:
        load_catalog(connection)
    finally:
        load._rows = rows

    def run() -> None:
        with load._transaction(connection), connection.cursor() as cursor:
            for query, parameters in statements:
                cursor.execute(query, parameters).fetchall()

    return run


def processor(connection: psycopg.Connection[Any]) -> float:
    """Seconds of processor time of this program and of the connection's server process (of the clock without /proc)."""
    try:
        fields = (
            Path(f"/proc/{connection.info.backend_pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
        )
    except OSError:
        return time.perf_counter()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def turns(connection: psycopg.Connection[Any], *functions: Callable[[], object], rounds: int) -> list[list[float]]:
    """Seconds of processor time of each function, by round."""
    taken = []
    for _ in range(rounds):
        times = []
        for function in functions:
            gc.collect()  # what the one before left is not this one's work
            start = processor(connection)
            function()
            times.append(processor(connection) - start)
        taken.append(times)
    return taken


def peak() -> float:
    """Most memory that this program had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sweep(catalog: Catalog) -> int:
    """Ask Visibility everything a report asks, for ten roles."""
    visibility, count = visibility_of(catalog), 0
    for role in catalog.roles[:10]:
        for relation in catalog.relations:
            visibility.exempt(role.oid, relation)
            for command in COMMANDS:
                count += visibility.may(role.oid, relation, command)
                visibility.policies(role.oid, relation, command)
    return count


def audit(connection: psycopg.Connection[Any]) -> int:
    """What ``rlsaudit audit`` does with a live database; gives the number of findings."""
    with without_collecting():
        catalog = load_catalog(connection)
        return len(run_checks(catalog, infer(catalog, Declared(roles=("app", "reader")))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", type=int, default=[1000, 5000, 20000])
    parser.add_argument("--pg-bin", type=Path)
    parser.add_argument("--ordinary", action="store_true", help="no policy with a subquery")
    arguments = parser.parse_args()
    with ScratchServer(arguments.pg_bin) as server:
        print(f"PostgreSQL {server.version}, seconds of processor time, median of {ROUNDS}", flush=True)
        for tables in arguments.tables:
            name = f"bench_{tables}"
            server.create_database(name)
            with server.connect(dbname=name) as connection:
                connection.autocommit = False
                build(connection, tables, ordinary=arguments.ordinary)
                report(tables, connection)


def report(tables: int, connection: psycopg.Connection[Any]) -> None:
    before = peak()
    rounds = turns(
        connection, raw(connection), lambda: load_catalog(connection), lambda: audit(connection), rounds=ROUNDS
    )
    fetch, load_time, audit_time = (statistics.median(times) for times in zip(*rounds, strict=True))
    # A slow minute of the machine meets all that is measured in it, so ratios are those of one turn.
    loading, auditing = (statistics.median(times[which] / times[0] for times in rounds) for which in (1, 2))
    after = peak()
    catalog = load_catalog(connection)
    text = save(catalog)
    rest: dict[str, Callable[[], object]] = {
        "visibility": lambda: sweep(catalog),
        "save": lambda: save(catalog),
        "parse": lambda: parse(text),
        "fingerprint": lambda: fingerprint(catalog),
    }
    times = dict(zip(rest, turns(connection, *rest.values(), rounds=1)[0], strict=True))
    print(
        f"{tables:>6} tables: raw {fetch:.3f}  load {load_time:.3f} ({loading:.2f})  "
        f"audit {audit_time:.3f} ({auditing:.2f}, limit 2.50)  {1e6 * audit_time / tables:.0f} µs a table  "
        + "  ".join(f"{name} {taken:.3f}" for name, taken in times.items())
        + f"  snapshot {len(text) / 1e6:.1f} MB  peak {after:.0f} MB ({1000 * (after - before) / tables:.1f} per 1,000 tables)",
        flush=True,
    )


if __name__ == "__main__":
    main()
