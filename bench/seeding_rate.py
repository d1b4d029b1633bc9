"""Rows a second that the seeder makes, against plain INSERT and COPY of the same rows into the same tables.

    python bench/seeding_rate.py [--pg-bin DIR]

``nasty`` is the schema of the tests in which every row is hard to invent; ``plain`` are generated tables.  The seeder
invents its rows, sends each behind a savepoint, reads back what the server made of it, and counts them by tenant at the
end.  INSERT sends the same rows one by one, COPY table by table, with triggers and foreign keys off: what any seeder
could reach at best.  Rows a second are those of processor time, of this process and the server's that answers it; what
else the machine does does not tell.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from measure import TESTS, Figure, asked, tell
from probe_scale import schema
from psycopg import sql

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.seeding.populate import populate
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.infer import infer

Rows = dict[int, list[tuple[Any, ...]]]
"""By relation, the columns that can be given, as text."""


def used(connection: psycopg.Connection[Any]) -> float:
    """Processor seconds of this process, and of the server's that answers it."""
    theirs = Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text().split()[0]
    return time.process_time() + int(theirs) / 1e9


def names(relation: Relation) -> tuple[sql.Composed, sql.Composed]:
    """The relation, and its columns that can be given."""
    columns = [sql.Identifier(column.name) for column in relation.columns if not column.generated]
    return sql.SQL("{}").format(sql.Identifier(relation.schema, relation.name)), sql.SQL(", ").join(columns)


def rows(connection: psycopg.Connection[Any], catalog: Catalog) -> Rows:
    found: Rows = {}
    for relation in catalog.relations:
        if relation.kind == "table" and not relation.extension:
            table, columns = names(relation)
            every = sql.SQL("SELECT {} FROM ONLY {}").format(columns, table)
            found[relation.oid] = connection.execute(every).fetchall()
    return found


def unread(connection: psycopg.Connection[Any]) -> None:
    """Let every value come as the text that the server sends."""
    text = psycopg.adapters.get_loader(psycopg.adapters.types["text"].oid, psycopg.pq.Format.TEXT)
    assert text is not None
    for (oid,) in connection.execute("SELECT oid::int FROM pg_type").fetchall():
        connection.adapters.register_loader(oid, text)


def inserted(connection: psycopg.Connection[Any], catalog: Catalog, given: Rows) -> None:
    for oid, found in given.items():
        table, columns = names(catalog.relation(oid))
        for row in found:
            values = sql.SQL(", ").join(map(sql.Literal, row))
            statement = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})")
            connection.execute(statement.format(table, columns, values))


def copied(connection: psycopg.Connection[Any], catalog: Catalog, given: Rows) -> None:
    for oid, found in given.items():
        table, columns = names(catalog.relation(oid))
        with connection.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(table, columns)) as copy:
            for row in found:
                copy.write_row(row)


def plainly(
    server: ScratchServer, empty: str, given: Rows, write: Callable[[psycopg.Connection[Any], Catalog, Rows], None]
) -> float:
    """Seconds in which the rows are written into a copy of the empty database."""
    server.create_database("written", empty)
    try:
        with server.connect("written", autocommit=False) as connection:
            catalog = load_catalog(connection)
            connection.execute("SET session_replication_role = replica")
            begun = used(connection)
            write(connection, catalog, given)
            connection.commit()
            return used(connection) - begun
    finally:
        server.drop_database("written")


def measured(server: ScratchServer, name: str, script: str) -> Iterator[Figure]:
    empty = f"{name}_empty"
    server.create_database(empty)
    with server.connect(empty) as connection:
        connection.execute(script.encode())
    server.create_database(name, empty)
    with server.connect(name) as connection:
        catalog = load_catalog(connection)
        tenancy = infer(catalog)
        begun, clock = used(connection), time.monotonic()
        world = populate(connection, catalog, tenancy)
        seeding, elapsed = used(connection) - begun, time.monotonic() - clock
    with server.connect(name) as connection:
        unread(connection)
        given = rows(connection, catalog)
    count = sum(map(len, given.values()))
    yield Figure(
        f"seeding, {name}: {len(given)} tables, {count:,} rows, {len(world.failures)} not as wished",
        f"{count / seeding:,.0f} rows/s of processor time, {count / elapsed:,.0f} elapsed",
    )
    for way, write in (("INSERT", inserted), ("COPY", copied)):
        taken = plainly(server, empty, given, write)
        yield Figure(f"seeding, {name}, against plain {way}", f"{taken / seeding:.3f} of {count / taken:,.0f} rows/s")


def figures(pg_bin: Path | None, tables: int) -> Iterator[Figure]:
    schemas = {"nasty": (TESTS / "zoo" / "nasty_seed.sql").read_text(encoding="utf-8"), "plain": schema(tables)}
    for name, script in schemas.items():
        with ScratchServer(pg_bin) as server:
            yield from measured(server, name, script)


def main() -> None:
    parser: argparse.ArgumentParser = asked(__doc__)
    parser.add_argument("--pg-bin", type=Path)
    given = parser.parse_args()
    tell(figures(given.pg_bin, 20 if given.quick else 200), given.figures)


if __name__ == "__main__":
    main()
