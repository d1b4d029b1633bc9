"""``rlsaudit init SOURCE``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rlsaudit.cli.common import clear_progress, merged, source_options
from rlsaudit.config import FILENAME
from rlsaudit.errors import UsageError
from rlsaudit.inferred import as_toml
from rlsaudit.opening import open_source
from rlsaudit.output import write_all


@click.command()
@click.argument("source")
@source_options
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(FILENAME),
    show_default=True,
    help="File to write; - for standard output.",
)
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def init(source: str, output: Path, force: bool, **given: Any) -> int:
    """Write what is inferred of SOURCE (roles, tenant key, context, classes) as configuration, each with its reason."""
    if str(output) != "-" and output.exists() and not force:
        raise UsageError(f"{output} exists already; use --force to overwrite it or --output to write elsewhere")
    common = merged(source, **given, probing=False)
    with open_source(replace(common.options, probing=False), common.progress) as opened:
        text = as_toml(opened.catalog, opened.tenancy)
    clear_progress()
    if str(output) == "-":
        click.echo(text, nl=False)
    else:
        write_all(output.parent, {output.name: text})
        click.echo(f"wrote {output}")
    return 0
