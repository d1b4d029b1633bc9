"""``rlsaudit snapshot SOURCE``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlsaudit.catalog.snapshot import save
from rlsaudit.cli.common import clear_progress, merged, source_options
from rlsaudit.opening import open_source
from rlsaudit.output import write_all


@click.command()
@click.argument("source")
@source_options
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("snapshot.json"),
    show_default=True,
    help="File to write.",
)
def snapshot(source: str, output: Path, **given: Any) -> int:
    """Save the catalog of SOURCE, to be audited later or elsewhere; no row and no password is in it."""
    common = merged(source, **given, probing=False)
    with open_source(common.options, common.progress) as opened:
        text = save(opened.catalog)
    clear_progress()
    write_all(output.parent, {output.name: text})
    click.echo(f"wrote {output}")
    return 0
