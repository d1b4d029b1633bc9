"""The end of every run: files, summary, exit code."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
from tabulate import tabulate

from rlsaudit import evidence, interrupt
from rlsaudit.bundle import manifest
from rlsaudit.cli import sealing
from rlsaudit.cli.common import Common, clear_progress
from rlsaudit.errors import ServerLost, UsageError
from rlsaudit.output import check_writable, write_all
from rlsaudit.probe.planner.plans import ROWS, TENANTS, Planned
from rlsaudit.probe.replay.script import SCHEMA_FILE
from rlsaudit.report import Format, Report, chosen, terminal_summary
from rlsaudit.scan import Scanned, scan
from rlsaudit.shards import FILENAME

REPLAY = "replay"


def run(common: Common) -> int:
    """Scan, write the reports, print the summary; returns the exit code."""
    formats = chosen(common.formats)  # an unknown format ends the run before it starts
    check_writable(common.output_dir)
    sealing.check(common)
    scanned = scan(common.options, common.progress)
    return finish(common, formats, scanned) if common.options.shard is None else _write_part(common, scanned)


def finish(common: Common, formats: Iterable[Format], scanned: Scanned) -> int:
    """Write the reports of a finished scan, print the summary; returns the exit code."""
    interrupt.remember()  # what has been found is not lost to a signal that comes this late
    clear_progress()
    shown, unsigned = _write(common, formats, scanned)
    if common.options.plans:
        show_plans(scanned.planned)
    show(scanned.report, shown)
    if unsigned:
        click.echo(f"rlsaudit: the reports are written, but not signed: {unsigned}", err=True)
    if scanned.interrupted:
        why = "interrupted" if interrupt.exit_code() else "the run ended early"
        click.echo(f"rlsaudit: {why}; the reports say what was found until then", err=True)
    elif interrupt.exit_code():
        click.echo("rlsaudit: interrupted when the verdict stood; the reports are whole", err=True)
    return interrupt.exit_code() or max(scanned.report.exit_code, UsageError.exit_code if unsigned else 0)


def _write_part(common: Common, scanned: Scanned) -> int:
    """A part has no report of its own: whoever read it would take a few relations for all."""
    interrupt.remember()
    clear_progress()
    part = scanned.part
    if part is None:
        raise UsageError(f"--shard {common.options.shard}: a part is of what is attacked; this command attacks nothing")
    written = write_all(common.output_dir, {FILENAME: evidence.written(evidence.document(part))})
    told = f"Part {part.shard}: {len(part.relations)} relations and {len(part.functions)} functions, {part.probed.statements:,} statements."
    click.echo(f"{told} No verdict: merge all parts with rlsaudit merge.\n\nReports\n  - {written[0]}")
    return interrupt.exit_code() or (ServerLost.exit_code if scanned.interrupted else 0)


def _write(common: Common, formats: Iterable[Format], scanned: Scanned) -> tuple[list[str], str]:
    """Write all files; gives what to show of them, and why they are not signed although they should be."""
    directory, report = common.output_dir, scanned.report
    files = {one.filename: one.write(report) for one in formats} | replay_files(scanned)
    earlier = manifest.held(directory)
    seals, unsigned = sealing.seals(common, files, report)
    files |= seals
    written = write_all(directory, files)
    _drop_stale(directory, files)
    sealing.clear(common, earlier, files)
    shown = [str(path) for path in written if path.parent == directory]
    scripts = sum(path.parent.name == REPLAY and path.name != SCHEMA_FILE for path in written)
    return ([*shown, f"{directory / REPLAY}/ ({scripts} replay scripts)"] if scripts else shown), unsigned


def replay_files(scanned: Scanned) -> dict[str, str]:
    """``replay/F-1.sql`` and the ``schema.sql`` they read."""
    scripts = {f"{REPLAY}/{f.id}.sql": f.replay for f in scanned.report.findings if f.replay}
    return {f"{REPLAY}/{SCHEMA_FILE}": scanned.schema, **scripts} if scripts else {}


def _drop_stale(directory: Path, files: Mapping[str, str]) -> None:
    """Scripts of an earlier run must not stand beside this run's findings, whoever touched them since."""
    for old in (directory / REPLAY).glob("F-*.sql"):
        if f"{REPLAY}/{old.name}" not in files:
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
