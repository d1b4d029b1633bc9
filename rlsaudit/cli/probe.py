"""``rlsaudit probe SOURCE``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from rlsaudit.cli.common import merged, run_options
from rlsaudit.cli.finish import run


@click.command()
@click.argument("source")
@run_options
def probe(source: str, **given: Any) -> int:
    """Attack a scratch copy of SOURCE without running the checks; leaks, coverage and proofs only."""
    common = merged(source, **given)
    return run(replace(common, options=replace(common.options, auditing=False)))
