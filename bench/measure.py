"""What the measurements share: a figure beside its limit, and the table of them."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from tabulate import tabulate

from rlsaudit.source.server import ScratchServer

TESTS = Path(__file__).parents[1] / "tests"


@dataclass(frozen=True)
class Figure:
    what: str
    measured: str
    limit: str = ""
    """As text; empty where there is none."""
    holds: bool | None = None
    """None: nothing is asked, or it cannot be measured here."""


def at_most(what: str, value: float, limit: float, form: str = "{:.2f}", said: str = "") -> Figure:
    """A figure that must not exceed ``limit``; ``said`` is what stands beside it."""
    return Figure(what, f"{form.format(value)}{said}", f"≤ {form.format(limit)}", value <= limit)


def at_least(what: str, value: float, limit: float, form: str = "{:.2f}", said: str = "") -> Figure:
    return Figure(what, f"{form.format(value)}{said}", f"≥ {form.format(limit)}", value >= limit)


def asked(about: str | None) -> argparse.ArgumentParser:
    """The options that every measurement has."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="measure less")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="write the figures as JSON as well")
    return parser


def tell(figures: Iterable[Figure], file: Path | None = None) -> list[Figure]:
    """Print the figures as one table, and write them for whoever runs several measurements."""
    made = list(figures)
    said = {True: "holds", False: "DOES NOT HOLD", None: ""}
    rows = [(one.what, one.measured, one.limit, said[one.holds]) for one in made]
    sys.stdout.write(tabulate(rows, ("what", "measured", "limit", ""), disable_numparse=True) + "\n")
    if file is not None:
        file.write_text(json.dumps([asdict(one) for one in made]), encoding="utf-8")
    return made


def from_tests(path: str) -> ModuleType:
    """A module of the tests, whose schemas and reports are measured too."""
    spec = importlib.util.spec_from_file_location(f"rlsaudit_bench_{Path(path).stem}", TESTS / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def processor(server: ScratchServer) -> float:
    """Processor seconds of this process, of those that it started and of the sessions of the server, once they ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    postmaster = (server.directory / "data" / "postmaster.pid").read_text().split()[0]
    theirs = Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()[11:15]
    return sum(one.ru_utime + one.ru_stime for one in used) + sum(map(int, theirs)) / os.sysconf("SC_CLK_TCK")
