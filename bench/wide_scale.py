"""How an audit and the proofs grow where a catalog is wide in one way: each shape at N and at 2N.

    python bench/wide_scale.py [--pg-bin DIR] [SHAPE[=N] …]

Shapes (tests/catalog/shapes.py): ``tables``, ``roles`` (each member of three others, with grants on ten of 50 tables),
``policies`` (on one table), ``columns`` (of one table), ``partitions`` (of one table), ``functions`` (each reads a table
and calls another; every tenth is a trigger's).
``raw`` is the time of the catalog queries alone, ``audit`` that of load, inference and every check, both with the
server's; ``prove`` is the prover's.  All is processor time.  ``growth`` is how much more of it the program itself takes for
2N than for N: twice as much when it is linear.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from audit_scale import peak, processor, raw, turns
from measure import Figure, asked, at_most, from_tests, tell

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.check import registry, run_checks
from rlsaudit.collecting import without_collecting
from rlsaudit.prove.prove import prove
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.infer import Declared, infer

SHAPES = from_tests("catalog/shapes.py")
PARTS = ("load", "infer", "checks", "prove")
LIMIT = 2.5
"""Times the processor time for twice the size."""


def measured(connection: psycopg.Connection[Any]) -> dict[str, float]:
    """Seconds of processor time, of raw queries and audit with the server's."""
    took = {"raw": statistics.median(took for (took,) in turns(connection, raw(connection), rounds=3))}
    began, clock = time.process_time(), processor(connection)
    with without_collecting():
        catalog = load_catalog(connection)
        loaded = time.process_time()
        tenancy = infer(catalog, Declared())
        inferred = time.process_time()
        run_checks(catalog, tenancy)
    took["audit"] = processor(connection) - clock
    took["load"], took["infer"], took["checks"] = loaded - began, inferred - loaded, time.process_time() - inferred
    began = time.process_time()
    prove(catalog, tenancy, visibility_of(catalog))
    took["prove"] = time.process_time() - began
    return took


def grown(make: Callable[[int], Iterator[str]], name: str, size: int, pg_bin: Path | None) -> Iterator[Figure]:
    """The shape at ``size`` and at twice that, each in a server of its own."""
    earlier: dict[str, float] = {}
    for count in (size, 2 * size):
        with ScratchServer(pg_bin) as server:
            server.create_database("bench")
            with server.connect("bench") as connection:
                connection.execute(SHAPES.APP)
                for statement in make(count):
                    connection.execute(statement.encode())
                connection.execute("ANALYZE")
                connection.autocommit = False
                took = measured(connection)
        parts = ", ".join(f"{one} {took[one]:.2f}" for one in PARTS)
        against = f"raw {took['raw']:.2f}, audit {took['audit']:.2f} ({took['audit'] / took['raw']:.2f})"
        yield Figure(f"{count:,} {name}", f"{against}; {parts}; {peak():.0f} MB")
        if earlier:
            growth = ", ".join(f"{one} {took[one] / earlier[one]:.1f}" for one in PARTS)
            by = sum(took[one] for one in PARTS) / sum(earlier[one] for one in PARTS)
            yield at_most(f"growth from {size:,} to {count:,} {name}", by, LIMIT, said=f" ({growth})")
        earlier = took


def main() -> None:
    parser = asked(__doc__)
    parser.add_argument("shapes", nargs="*", default=list(SHAPES.SHAPES))
    parser.add_argument("--pg-bin", type=Path)
    arguments = parser.parse_args()
    registry()  # their import is no part of it
    figures = []
    for shape in arguments.shapes:
        name, _, given = shape.partition("=")
        make, size = SHAPES.SHAPES[name]
        for figure in grown(make, name, int(given or size // (5 if arguments.quick else 1)), arguments.pg_bin):
            sys.stderr.write(f"{figure.what}: {figure.measured}\n")
            figures.append(figure)
    tell(figures, arguments.figures)


if __name__ == "__main__":
    main()
