"""The end of every run: files, summary, exit code."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import click
from tabulate import tabulate

from rlsaudit import interrupt
from rlsaudit.cli.common import Common, clear_progress
from rlsaudit.output import check_writable, write_all
from rlsaudit.probe.planner.plans import ROWS, TENANTS, Planned
from rlsaudit.probe.replay.script import SCHEMA_FILE
from rlsaudit.report import Format, Report, chosen, terminal_summary
from rlsaudit.scan import Scanned, scan
from rlsaudit.source.process import signals_held

REPLAY = "replay"


def run(common: Common) -> int:
    """Scan, write the reports, print the summary; returns the exit code."""
    formats = chosen(common.formats)  # an unknown format ends the run before it starts
    check_writable(common.output_dir)
    scanned = scan(common.options, common.progress)
    clear_progress()
    try:
        with signals_held():  # what has been found is not lost to a signal that comes this late
            shown = _write(common.output_dir, formats, scanned)
    except (KeyboardInterrupt, SystemExit):
        click.echo("rlsaudit: interrupted when the reports had been written", err=True)
        return interrupt.exit_code()
    if common.options.plans:
        show_plans(scanned.planned)
    show(scanned.report, shown)
    if scanned.interrupted:
        click.echo("rlsaudit: interrupted; the reports say what was found until then", err=True)
        return interrupt.exit_code() or scanned.report.exit_code
    return scanned.report.exit_code


def _write(directory: Path, formats: Iterable[Format], scanned: Scanned) -> list[str]:
    """Write all files; gives what to show of them."""
    files = {one.filename: one.write(scanned.report) for one in formats}
    files |= replay_files(scanned)
    _drop_stale(directory)
    written = write_all(directory, files)
    shown = [str(path) for path in written if path.parent == directory]
    scripts = sum(path.parent.name == REPLAY and path.name != SCHEMA_FILE for path in written)
    return [*shown, f"{directory / REPLAY}/ ({scripts} replay scripts)"] if scripts else shown


def replay_files(scanned: Scanned) -> dict[str, str]:
    """``replay/F-1.sql`` and the ``schema.sql`` they read."""
    scripts = {f"{REPLAY}/{f.id}.sql": f.replay for f in scanned.report.findings if f.replay}
    return {f"{REPLAY}/{SCHEMA_FILE}": scanned.schema, **scripts} if scripts else {}


def _drop_stale(directory: Path) -> None:
    """Scripts of an earlier run must not stand beside this run's findings."""
    for old in (directory / REPLAY).glob("F-*.sql"):
        old.unlink(missing_ok=True)


def show_plans(planned: tuple[Planned, ...]) -> None:
    """Print the table of plans on standard output."""
    click.echo(f"Plans as of {ROWS:,} rows in each table and {TENANTS} tenants:\n")
    rows = [(one.relation, one.role, one.command, one.way, one.detail) for one in planned]
    heads = ("relation", "role", "command", "rows found by", "detail")
    click.echo(tabulate(rows, heads) if rows else "No tenant table is under policies that bind an application role.")
    click.echo()


def show(report: Report, paths: list[str]) -> None:
    """Print the summary on standard output."""
    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    click.echo(terminal_summary(report, width, color, paths))
