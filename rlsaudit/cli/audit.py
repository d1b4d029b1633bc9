"""``rlsaudit audit SOURCE``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from rlsaudit.cli.common import merged, run_options
from rlsaudit.cli.finish import run


@click.command()
@click.argument("source")
@click.option(
    "--plans",
    is_flag=True,
    help="Also print how queries under the policies find their rows, planned on a scratch copy as a large database.",
)
@run_options
def audit(source: str, plans: bool, **given: Any) -> int:
    """Read the catalog of SOURCE and run the checks; nothing is executed against any row.

    SOURCE as for scan, and also a snapshot.json saved by rlsaudit snapshot.
    """
    common = merged(source, **given, probing=False)
    return run(replace(common, options=replace(common.options, plans=plans)))
