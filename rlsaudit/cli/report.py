"""``rlsaudit report evidence.json``."""

from __future__ import annotations

from pathlib import Path

import click

from rlsaudit import evidence
from rlsaudit.bundle.manifest import MANIFEST
from rlsaudit.cli.common import FORMATS
from rlsaudit.cli.finish import show
from rlsaudit.errors import UsageError
from rlsaudit.output import write_all
from rlsaudit.report import chosen


@click.command()
@click.argument("evidence_file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "formats",
    default=",".join(FORMATS),
    show_default=True,
    metavar="NAME,…",
    help="Report formats.",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    help="Where reports go. Default: beside the evidence, unless a run sealed it there.",
)
def report(evidence_file: Path, formats: str, output_dir: Path | None) -> int:
    """Render reports again from an evidence file; the same evidence gives the same bytes."""
    try:
        text = evidence_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{evidence_file}: cannot be read: {error}") from error
    parsed = evidence.parse(text, str(evidence_file))
    if output_dir is None and (evidence_file.parent / MANIFEST).exists():
        raise UsageError(f"{evidence_file.parent} is sealed, so nothing may be added to it: give another --output-dir")
    wanted = chosen(tuple(n.strip() for n in formats.split(",") if n.strip()))
    written = write_all(output_dir or evidence_file.parent, {one.filename: one.write(parsed) for one in wanted})
    show(parsed, [str(path) for path in written])
    return parsed.exit_code
