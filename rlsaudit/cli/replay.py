"""``rlsaudit replay LEAK.sql``."""

from __future__ import annotations

from pathlib import Path

import click

from rlsaudit.errors import NotTrustworthy, UsageError
from rlsaudit.probe.replay.script import SCHEMA_FILE
from rlsaudit.probe.replaying import replay_output
from rlsaudit.source.server import ScratchServer


@click.command()
@click.argument("script", type=click.Path(path_type=Path))
@click.option(
    "--pg-bin",
    type=click.Path(path_type=Path),
    envvar="RLSAUDIT_PG_BIN",
    help="bin directory of the PostgreSQL to use.",
)
def replay(script: Path, pg_bin: Path | None) -> int:
    """Run a leak's script on a scratch server and say whether it still leaks: prints LEAK (exit 1) or HELD (exit 0).

    Put a mended schema.sql beside the script to see whether the mend holds.
    """
    text, schema = _read(script), _read(script.parent / SCHEMA_FILE)
    with ScratchServer(pg_bin) as server:
        output = replay_output(server, text, schema)
    lines = output.split()
    verdict = "LEAK" if "LEAK" in lines else "HELD" if "HELD" in lines else ""
    if not verdict:
        said = next((line for line in output.splitlines() if "ERROR" in line), "psql printed no verdict")
        raise NotTrustworthy(f"{script}: the script did not run to its end: {said}")
    click.echo(output.strip())
    return 1 if verdict == "LEAK" else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
