"""``rlsaudit scan SOURCE``."""

from __future__ import annotations

from typing import Any

import click

from rlsaudit.cli.common import merged, run_options
from rlsaudit.cli.finish import run


@click.command()
@click.argument("source")
@run_options
def scan(source: str, **given: Any) -> int:
    """Audit, prove and probe SOURCE, and write the reports: the main job.

    SOURCE is an SQL file, a directory of migrations, - for standard input, or a connection string (a DSN, a
    postgresql:// URI or service=NAME).  A live database is only read; everything that attacks runs in a scratch copy.
    """
    return run(merged(source, **given))
