"""How much of a schema's tenant data the prover decides, and why it does not decide the rest.

    python bench/prove_coverage.py [--pg-bin DIR] [--cells] [SOURCE.sql …]      default: the demo schemas

A cell is a tenant relation × application role × command for which the role holds the privilege and row security binds
it.  Printed per source: cells proven, refuted and unknown, with the reasons for unknown counted over all sources, and
the time that the proofs took (processor time).  ``--cells`` prints every cell.
"""

from __future__ import annotations

import io
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Figure, asked, tell
from psycopg import sql
from tabulate import tabulate

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS
from rlsaudit.catalog.visibility import Visibility, visibility_of
from rlsaudit.demo import demos, path
from rlsaudit.errors import RlsauditError
from rlsaudit.prove.prove import Proof, prove
from rlsaudit.source.load import load_sql
from rlsaudit.source.open import sql_files
from rlsaudit.source.server import ScratchServer
from rlsaudit.source.stand_in import stand_in
from rlsaudit.tenancy.infer import infer
from rlsaudit.tenancy.model import Tenancy

_NAME = re.compile(r"\b[\w\"$]+(\.[\w\"$]+)+\b|'[^']*'|-?\d+")


@dataclass(frozen=True)
class Measured:
    source: str
    cells: tuple[tuple[str, str, str], ...]
    """Cell, verdict, reason."""
    policies: int
    seconds: float


def measure(server: ScratchServer, source: str) -> Measured:
    server.create_database("measured")
    try:
        load_sql(lambda: server.connect("measured"), sql_files(source, io.BytesIO()))
        with server.connect("measured") as connection:
            catalog = load_catalog(connection)
            tenancy = infer(catalog)
            if not tenancy.roles:
                stand_in(connection, catalog)
                catalog = load_catalog(connection)
                tenancy = infer(catalog)
    finally:
        server.drop_database("measured")
        _forget_roles(server)
    visibility = visibility_of(catalog)
    begun = time.process_time()
    proofs = prove(catalog, tenancy, visibility)
    seconds = time.process_time() - begun
    return Measured(source, tuple(_cells(catalog, tenancy, visibility, proofs)), len(catalog.policies), seconds)


def _forget_roles(server: ScratchServer) -> None:
    """Drop the roles of the source before, which the cluster keeps."""
    with server.connect() as connection:
        connection.autocommit = True
        for (name,) in connection.execute("SELECT rolname FROM pg_roles WHERE oid >= 16384").fetchall():
            for statement in ("DROP OWNED BY {}", "DROP ROLE {}"):
                connection.execute(sql.SQL(statement).format(sql.Identifier(name)))


def _cells(
    catalog: Catalog, tenancy: Tenancy, visibility: Visibility, proofs: tuple[Proof, ...]
) -> Iterator[tuple[str, str, str]]:
    known = {(proof.relation, proof.role, proof.command): proof for proof in proofs}
    for oid in tenancy.tenant_data():
        relation = catalog.relation(oid)
        for role in tenancy.roles:
            if not relation.holds_rows or visibility.exempt(role.oid, relation) is not None:
                continue
            for command in COMMANDS:
                if visibility.may(role.oid, relation, command):
                    proof = known.get((oid, role.oid, command))
                    name = f"{command} {relation.qualified} as {role.name}"
                    yield (name, proof.verdict, proof.reason) if proof else (name, "unknown", "no question is asked")


def main() -> None:
    parser = asked(__doc__)
    parser.add_argument("sources", nargs="*", default=[str(path(demo)) for demo in demos()])
    parser.add_argument("--pg-bin", type=Path)
    parser.add_argument("--cells", action="store_true")
    given = parser.parse_args()
    found: list[Measured] = []
    failed: list[str] = []
    with ScratchServer(given.pg_bin) as server:
        for source in given.sources:
            try:
                found.append(measure(server, source))
            except RlsauditError as error:
                failed.append(f"{source}: {error}")
    if given.cells:
        print("\n".join(" | ".join((one.source[-40:], *cell)) for one in found for cell in one.cells))
    print(table(found))
    print("\n".join(failed))
    reasons = Counter(_NAME.sub("…", why) for one in found for _, verdict, why in one.cells if verdict == "unknown")
    print("\n".join(f"{count:6}  {why}" for why, count in reasons.most_common()))
    verdicts = Counter(verdict for one in found for _, verdict, _ in one.cells)
    decided = 100 * (verdicts.total() - verdicts["unknown"]) / max(1, verdicts.total())
    tell(
        [Figure(f"prove, {len(found)} schemas", f"{decided:.0f} % of {verdicts.total()} cells decided")], given.figures
    )


def table(found: list[Measured]) -> str:
    rows = [_row(one.source[-50:], one.cells, 1000 * one.seconds / max(1, one.policies)) for one in found]
    rows.append(_row("all", [cell for one in found for cell in one.cells], statistics.median(row[-1] for row in rows)))
    return tabulate(rows, ("source", "cells", "proven", "refuted", "unknown", "decided %", "ms/policy"), floatfmt=".1f")


def _row(source: str, cells: Sequence[tuple[str, str, str]], milliseconds: float) -> tuple[Any, ...]:
    verdicts = Counter(verdict for _, verdict, _ in cells)
    decided = 100 * (len(cells) - verdicts["unknown"]) / max(1, len(cells))
    return source, len(cells), verdicts["proven"], verdicts["refuted"], verdicts["unknown"], decided, milliseconds


if __name__ == "__main__":
    main()
