"""``rlsaudit merge DIR…``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlsaudit import evidence, shards
from rlsaudit.cli import sealing
from rlsaudit.cli.common import merged, run_options
from rlsaudit.cli.finish import finish
from rlsaudit.errors import UsageError
from rlsaudit.output import check_writable
from rlsaudit.report import chosen
from rlsaudit.whole import merge as whole


@click.command()
@click.argument("directory", nargs=-1, required=True, type=click.Path(path_type=Path))
@run_options
def merge(directory: tuple[Path, ...], **given: Any) -> int:
    """Make the parts of a run (scan --shard) one result, with one verdict.

    DIRECTORY is the output directory of a part, or its shard.json.  Give all of them, and the configuration and waivers of
    the run: a part that is missing, doubled or of another run is an error (exit code 3).
    """
    parts = [_read(one) for one in directory]
    common = merged(parts[0].source, **given)
    formats = chosen(common.formats)
    check_writable(common.output_dir)
    sealing.check(common)
    return finish(common, formats, whole(parts, common.options, common.progress))


def _read(place: Path) -> shards.Part:
    file = place / shards.FILENAME if place.is_dir() else place
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error
    return evidence.read(shards.Part, text, str(file))
