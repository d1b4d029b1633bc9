"""``rlsaudit audit SOURCE``."""

from __future__ import annotations

from typing import Any

import click

from rlsaudit.cli.common import merged, run_options
from rlsaudit.cli.finish import run


@click.command()
@click.argument("source")
@run_options
def audit(source: str, **given: Any) -> int:
    """Read the catalog of SOURCE and run the checks; nothing is executed against any row.

    SOURCE as for scan, and also a snapshot.json saved by rlsaudit snapshot.
    """
    return run(merged(source, **given, probing=False))
