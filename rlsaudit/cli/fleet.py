"""``rlsaudit fleet TARGETS``."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from rlsaudit import __version__, duration, interrupt
from rlsaudit.errors import UsageError
from rlsaudit.fleet import page
from rlsaudit.fleet.executors import executor_of
from rlsaudit.fleet.result import DOCUMENT, REPORT, Entry, Fleet, document, earlier, not_run, ordered
from rlsaudit.fleet.run import finished, run, set_aside
from rlsaudit.fleet.targets import Target, of_cluster, read
from rlsaudit.fleet.work import Done, directory_files
from rlsaudit.output import check_writable, exclusive, replace_directory, write_all
from rlsaudit.source.dsn import looks_like_dsn


@click.command()
@click.argument("targets")
@click.option(
    "--query",
    default="",
    help="SQL that names the databases of the cluster TARGETS. Default: all that take connections.",
)
@click.option("--role", "roles", multiple=True, help="Application role, where TARGETS is a cluster; repeatable.")
@click.option("--config", default="", help="Configuration file, where TARGETS is a cluster.")
@click.option(
    "--jobs", type=click.IntRange(1, 256), default=2, show_default=True, help="Targets that are tested at once."
)
@click.option("--dask", metavar="ADDRESS", help="Scheduler of a Dask cluster that does the work, as tcp://host:8786.")
@click.option(
    "--time-limit", metavar="TIME", help="End a target after this time, where the file says nothing. Default: 1h."
)
@click.option(
    "--format", "formats", default="json,html,junit", show_default=True, help="Formats of each target's report."
)
@click.option("--fail-on", default="", metavar="SEVERITY", help="For every target: exceptions from this severity on.")
@click.option("--resume", is_flag=True, help="Let finished targets stand whose catalog and configuration are the same.")
@click.option(
    "--output-dir", type=click.Path(path_type=Path), default=Path("rlsaudit-fleet"), show_default=True,
    help="Where index.html, TEST-fleet.xml and fleet.json go, and a directory for each target.",
)  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="No progress on standard error.")
def fleet(targets: str, **given: Any) -> int:
    """Test many databases, each by a run of its own, and write one report of all.

    TARGETS is a TOML file, a directory of TOML or libpq service files, or a connection string whose cluster's databases
    are all tested.  A target that fails is a result and ends nothing.  Exit codes: 0 all clean; 1 exceptions; 3 a target
    has no verdict.
    """
    asked = _Asked(**given)
    found = _targets(targets, asked)
    directory = asked.output_dir
    check_writable(directory)
    with exclusive(directory):
        interrupt.obey()
        whole = _tested(found, asked, finished(directory, _earlier(directory)) if asked.resume else {})
        linked = frozenset(
            one.name for one in whole.entries if one.catalog and (directory / one.name / REPORT).is_file()
        )
        files = {DOCUMENT: document(whole), "index.html": page.html(whole, linked), "TEST-fleet.xml": page.junit(whole)}
        written = write_all(directory, files)
    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80
    click.echo(page.summary(whole, width))
    click.echo("\n".join(["", "Reports", *(f"  - {path}" for path in written)]))
    return interrupt.exit_code() or whole.exit_code


@dataclass(frozen=True)
class _Asked:
    """The options."""

    query: str
    roles: tuple[str, ...]
    config: str
    jobs: int
    dask: str | None
    time_limit: str | None
    formats: str
    fail_on: str
    resume: bool
    output_dir: Path
    quiet: bool


def _targets(given: str, asked: _Asked) -> tuple[Target, ...]:
    limit = duration.seconds(asked.time_limit) if asked.time_limit is not None else None
    usual = Target("", "", asked.roles, asked.config)
    if not Path(given).exists() and looks_like_dsn(given):
        found = of_cluster(given, asked.query, usual)
    elif asked.query or asked.roles or asked.config:
        raise UsageError("--query, --role and --config are for a cluster; in a file each target says its own")
    elif not Path(given).exists():
        raise UsageError(f"{given}: no such file or directory, and no connection string")
    else:
        found = read(Path(given))
    if limit is None:
        return found
    return tuple(replace(one, time_limit=limit) if one.time_limit == usual.time_limit else one for one in found)


def _tested(found: tuple[Target, ...], asked: _Asked, known: dict[str, Entry]) -> Fleet:
    """Test all; what a signal leaves unfinished has no verdict."""
    begun, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    options = ("--format", f"json,{asked.formats}", *(("--fail-on", asked.fail_on) if asked.fail_on else ()))
    entries: list[Entry] = []

    def standing() -> Fleet:
        return Fleet(__version__, started, round(time.monotonic() - begun, 3), len(found), ordered(entries))

    def keep(done: Done) -> None:
        last, aside = asked.output_dir / done.name, set_aside(asked.output_dir, done.name)
        if done.files:
            replace_directory(last, done.files)
            shutil.rmtree(aside, ignore_errors=True)
        elif last.is_dir():
            replace_directory(aside, directory_files(last))
            shutil.rmtree(last, ignore_errors=True)

    try:
        with executor_of(asked.jobs, asked.dask) as executor:
            for one in run(found, options, executor, known, keep, None if asked.dask else asked.output_dir):
                entries.append(one)
                write_all(
                    asked.output_dir, {DOCUMENT: document(standing())}
                )  # so that a crash loses nothing to --resume
                if not asked.quiet:
                    click.echo(f"[{len(entries)}/{len(found)}] {one.outcome:<10} {one.name}", err=True)
    except KeyboardInterrupt:
        interrupt.remember()
        done = {one.name for one in entries}
        entries += [not_run(target) for target in found if target.name not in done]
    return standing()


def _earlier(directory: Path) -> dict[str, Entry]:
    try:
        return dict(earlier((directory / DOCUMENT).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return {}
