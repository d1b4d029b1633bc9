"""Whatever a catalog has much of, its audit, proofs and report are work in proportion: lines of code are counted, not time."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from types import CodeType, FrameType
from typing import Any

import pytest

from rlsaudit.assemble import assemble
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.check import run_checks
from rlsaudit.clock import Clock
from rlsaudit.opening import Opened
from rlsaudit.options import Options
from rlsaudit.prove.prove import prove
from rlsaudit.scan import pieces_of
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.infer import Declared, infer
from tests.catalog.shapes import APP, SHAPES

STEP = 20
"""Sizes are one, two and three times this; the shapes repeat themselves after as many."""
STEEPEST = 1.2
"""How much more the second step may cost than the first; with a square in it, up to 5/3."""
FEW = 60
"""Lines more that say nothing: something came up for the first time."""


def lines(work: Callable[[], object]) -> Counter[CodeType]:
    """Lines of rlsaudit's that run, by function."""
    counted: Counter[CodeType] = Counter()

    def each(frame: FrameType, event: str, argument: Any) -> Any:
        if "/rlsaudit/" not in frame.f_code.co_filename and "/checks/" not in frame.f_code.co_filename:
            return None
        counted[frame.f_code] += event == "line"
        return each

    before = sys.gettrace()
    sys.settrace(each)
    try:
        work()
    finally:
        sys.settrace(before)
    return counted


def whole(server: ScratchServer, database: str) -> None:
    """An audit from the catalog to the report."""
    with server.connect(database) as connection:
        catalog = load_catalog(connection)
    tenancy = infer(catalog, Declared())
    opened = Opened(catalog, tenancy, (), None, None, None)
    found, proofs = run_checks(catalog, tenancy), prove(catalog, tenancy, visibility_of(catalog))
    options = Options(source="wide.sql", stdin=BytesIO())
    assemble(pieces_of(opened, options, Clock(), found, proofs, None))


@pytest.mark.parametrize("shape", SHAPES)
def test_work_grows_in_proportion(server: ScratchServer, shape: str) -> None:
    make, _ = SHAPES[shape]
    counted = []
    for times in (1, 1, 2, 3):  # what is done once and kept is done by the first
        name = f"wide_{shape}_{len(counted)}"
        server.create_database(name)
        with server.connect(name) as connection:
            connection.execute("; ".join((APP, *make(times * STEP))).encode())
        counted.append(lines(lambda name=name: whole(server, name)))
        server.drop_database(name)
        with server.connect() as connection:
            made = connection.execute(
                "SELECT string_agg(rolname, ', ') FROM pg_roles WHERE rolname ~ '^(r[0-9]|app$)'"
            ).fetchone()
            connection.execute(f"DROP ROLE {made[0]}")
    one, two, three = counted[1:]
    assert three.total() > two.total() > one.total()
    steps = {code: (two[code] - one[code], three[code] - two[code]) for code in three}
    steep = {
        f"{code.co_filename}:{code.co_firstlineno}": step
        for code, step in steps.items()
        if step[1] > STEEPEST * step[0] + FEW
    }
    assert not steep, steep
