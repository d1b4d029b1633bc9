"""The end of every run: files, summary, exit code."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from rlsaudit.cli.common import Common, clear_progress
from rlsaudit.output import check_writable, write_all
from rlsaudit.probe.replay import SCHEMA_FILE
from rlsaudit.report import Report, chosen, terminal_summary
from rlsaudit.scan import Scanned, scan

REPLAY = "replay"


def run(common: Common) -> int:
    """Scan, write the reports, print the summary; returns the exit code."""
    formats = chosen(common.formats)  # an unknown format ends the run before it starts
    check_writable(common.output_dir)
    scanned = scan(common.options, common.progress)
    clear_progress()
    files = {one.filename: one.write(scanned.report) for one in formats}
    files |= replay_files(scanned)
    _drop_stale(common.output_dir)
    written = write_all(common.output_dir, files)
    shown = [str(path) for path in written if path.parent == common.output_dir]
    scripts = sum(path.parent.name == REPLAY and path.name != SCHEMA_FILE for path in written)
    if scripts:
        shown.append(f"{common.output_dir / REPLAY}/ ({scripts} replay scripts)")
    show(scanned.report, shown)
    return scanned.report.exit_code


def replay_files(scanned: Scanned) -> dict[str, str]:
    """``replay/F-1.sql`` and the ``schema.sql`` they read."""
    scripts = {f"{REPLAY}/{f.id}.sql": f.replay for f in scanned.report.findings if f.replay}
    return {f"{REPLAY}/{SCHEMA_FILE}": scanned.schema, **scripts} if scripts else {}


def _drop_stale(directory: Path) -> None:
    """Scripts of an earlier run must not stand beside this run's findings."""
    for old in (directory / REPLAY).glob("F-*.sql"):
        old.unlink(missing_ok=True)


def show(report: Report, paths: list[str]) -> None:
    """Print the summary on standard output."""
    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    click.echo(terminal_summary(report, width, color, paths))
