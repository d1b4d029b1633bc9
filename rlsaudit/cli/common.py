"""Options that several commands share, and the progress line."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from rlsaudit import baseline, config, duration, history, interrupt, shards, waivers
from rlsaudit.doing import Doing
from rlsaudit.errors import UsageError
from rlsaudit.finding import SEVERITIES, Severity
from rlsaudit.options import Options, Progress
from rlsaudit.probe.detector.planting import MODES, Mode
from rlsaudit.source import presets, statements

F = TypeVar("F", bound=Callable[..., Any])

OUTPUT = "rlsaudit-report"
FORMATS = ("json", "html", "junit")
_BAR = 16


@dataclass(frozen=True)
class Common:
    """The shared options, configuration already merged in."""

    options: Options
    output_dir: Path
    formats: tuple[str, ...]
    progress: Progress
    previous: Path | None = None
    """Directory of the run that this one follows; without it, what the output directory holds."""
    sign_ssh: Path | None = None
    sign_ed25519: Path | None = None


def source_options(command: F) -> F:
    """Options of every command that reads a SOURCE."""
    for decorate in reversed(
        (
            click.option(
                "--role",
                "roles",
                multiple=True,
                envvar="RLSAUDIT_ROLE",
                metavar="ROLE",
                help="Application role to test; repeatable. Default: inferred.",
            ),
            click.option(
                "--config",
                "config_file",
                type=click.Path(path_type=Path),
                envvar="RLSAUDIT_CONFIG",
                help="Configuration file. Default: rlsaudit.toml, then pyproject.toml.",
            ),
            click.option(
                "--pg-bin",
                type=click.Path(path_type=Path),
                envvar="RLSAUDIT_PG_BIN",
                help="bin directory of the PostgreSQL to use as the scratch server. Default: the embedded one.",
            ),
            click.option(
                "--scratch-on-target",
                is_flag=True,
                help="Copy a live database's schema into databases on its own cluster, dropped afterwards, instead of the "
                "embedded server; wants a superuser.",
            ),
            click.option(
                "--preset",
                envvar="RLSAUDIT_PRESET",
                metavar="NAME",
                help=f"Platform that the SQL expects, made before it is loaded: {', '.join(presets.names())}.",
            ),
            click.option("-q", "--quiet", is_flag=True, help="No progress on standard error."),
        )
    ):
        command = decorate(command)
    return command


def run_options(command: F) -> F:
    """Options of every command that ends in a report."""
    for decorate in reversed(
        (
            source_options,
            click.option(
                "--in-place",
                is_flag=True,
                help="Attack a live database itself, in one transaction that is rolled back; wants a superuser, locks every "
                "table meanwhile, and tries less than a copy allows.",
            ),
            click.option("--yes", is_flag=True, help="Do so although the database looks like production."),
            click.option(
                "--output-dir",
                type=click.Path(path_type=Path),
                envvar="RLSAUDIT_OUTPUT_DIR",
                help=f"Where reports go. Default: {OUTPUT}/",
            ),
            click.option(
                "--format",
                "formats",
                envvar="RLSAUDIT_FORMAT",
                metavar="NAME,…",
                help=f"Report formats. Default: {','.join(FORMATS)}.",
            ),
            click.option(
                "--previous",
                type=click.Path(path_type=Path, file_okay=False),
                envvar="RLSAUDIT_PREVIOUS",
                help="Output directory of the run before, to which the manifest of this one is chained. Default: what "
                "the output directory held.",
            ),
            click.option(
                "--sign-ssh",
                type=click.Path(path_type=Path),
                envvar="RLSAUDIT_SIGN_SSH",
                metavar="KEY",
                help="Sign SHA256SUMS with this SSH key, or with the agent's key of which this is the public half.",
            ),
            click.option(
                "--sign-ed25519",
                type=click.Path(path_type=Path),
                envvar="RLSAUDIT_SIGN_ED25519",
                metavar="PEM",
                help="Write attestation.dsse.json, an in-toto test result signed with this Ed25519 key.",
            ),
            click.option(
                "--fail-on",
                type=click.Choice(SEVERITIES),
                envvar="RLSAUDIT_FAIL_ON",
                help="Exit 1 from this severity on. Default: medium.",
            ),
            click.option(
                "--waivers",
                "waivers_file",
                type=click.Path(path_type=Path),
                envvar="RLSAUDIT_WAIVERS",
                help=f"Approved exceptions. Default: {waivers.FILENAME}, where there is one.",
            ),
            click.option(
                "--baseline",
                "baseline_file",
                type=click.Path(path_type=Path),
                envvar="RLSAUDIT_BASELINE",
                help="evidence.json of an earlier run: what stood open then is shown, and only what is new fails.",
            ),
            click.option(
                "--history",
                "history_directory",
                type=click.Path(path_type=Path, exists=True, file_okay=False),
                envvar="RLSAUDIT_HISTORY",
                help=f"Directory of earlier runs, whose last {history.MOST} the HTML report shows in a row.",
            ),
            click.option(
                "--statements",
                "statement_files",
                multiple=True,
                type=click.Path(path_type=Path),
                envvar="RLSAUDIT_STATEMENTS",
                help="SQL file of the application's own statements, run by the probe under every tenant with own and "
                "foreign parameters ($1, :name, %s); repeatable.",
            ),
            click.option(
                "--statements-from-stats",
                is_flag=True,
                help="Run those too that the live database's pg_stat_statements has seen.",
            ),
            click.option(
                "--shard",
                metavar="N/OF",
                help="Attack only the N-th part of the relations and write shard.json; rlsaudit merge makes the parts one "
                "result, which alone has a verdict.",
            ),
            click.option("--seed", type=int, envvar="RLSAUDIT_SEED", help="Seed of the random workloads. Default: 0."),
            click.option(
                "--budget",
                envvar="RLSAUDIT_BUDGET",
                metavar="TIME",
                help="Time for random workloads: seconds, or 30s, 5m, 2h. Default: 5s.",
            ),
            click.option(
                "--jobs",
                type=click.IntRange(min=1, max=64),
                envvar="RLSAUDIT_JOBS",
                help="Sessions that attack at once, each in a copy of its own. Default: one per core, at most 4.",
            ),
            click.option(
                "--database",
                type=click.Path(path_type=Path, file_okay=False),
                envvar="RLSAUDIT_DATABASE",
                help="Directory in which random workloads keep their hard examples and what they learnt, so that the next "
                "run goes on from there (.rlsaudit, say). Default: none are kept.",
            ),
            click.option(
                "--detector",
                type=click.Choice(MODES),
                envvar="RLSAUDIT_DETECTOR",
                help="Leaks of its own that rlsaudit plants and must find: one in each cell (sample) or every kind that "
                "applies (all). Default: sample.",
            ),
        )
    ):
        command = decorate(command)
    return command


def merged(
    source: str,
    *,
    roles: tuple[str, ...],
    config_file: Path | None,
    pg_bin: Path | None,
    quiet: bool,
    preset: str | None = None,
    scratch_on_target: bool = False,
    in_place: bool = False,
    yes: bool = False,
    output_dir: Path | None = None,
    formats: str | None = None,
    previous: Path | None = None,
    sign_ssh: Path | None = None,
    sign_ed25519: Path | None = None,
    fail_on: Severity | None = None,
    waivers_file: Path | None = None,
    baseline_file: Path | None = None,
    history_directory: Path | None = None,
    statement_files: tuple[Path, ...] = (),
    statements_from_stats: bool = False,
    shard: str | None = None,
    seed: int | None = None,
    budget: str | None = None,
    jobs: int | None = None,
    database: Path | None = None,
    detector: Mode | None = None,
    probing: bool = True,
) -> Common:
    """Flags over environment (click reads it) over the configuration file over defaults."""
    loaded = config.load(config_file, Path.cwd())
    declared = loaded.declared
    if roles:
        declared = replace(declared, roles=roles)
    options = Options(
        source=source,
        stdin=sys.stdin.buffer,
        declared=declared,
        allowed=loaded.allowed,
        waivers=waivers.load(waivers_file, Path.cwd()),
        baseline=baseline.load(baseline_file),
        history=history.load(history_directory),
        scratch_on_target=scratch_on_target,
        in_place=in_place and probing,
        agreed=yes,
        preset=presets.known(preset or loaded.preset or ""),
        pg_bin=pg_bin or (Path(loaded.pg_bin) if loaded.pg_bin else None),
        seed=seed if seed is not None else loaded.seed or 0,
        budget=duration.seconds(budget) if budget is not None else loaded.budget if loaded.budget is not None else 5.0,
        jobs=jobs or loaded.jobs or 0,
        examples=database or (Path(loaded.database) if loaded.database else None),
        detector=detector or loaded.detector or "sample",
        fail_on=fail_on or loaded.fail_on or "medium",
        probing=probing,
        shard=shards.parse(shard) if shard else None,
        own=statements.from_files(statement_files),
        recorded=statements_from_stats,
        command=("rlsaudit", *sys.argv[1:]),
        configuration_hash=loaded.hash,
    )
    if options.jobs < 0:
        raise UsageError(f"jobs = {options.jobs}: give the number of sessions, or leave it out for one per core")
    names = tuple(n.strip() for n in formats.split(",") if n.strip()) if formats else loaded.formats or FORMATS
    directory = output_dir or Path(loaded.output_dir or OUTPUT)
    return Common(options, directory, names, _progress(quiet), previous, sign_ssh, sign_ed25519)


def _progress(quiet: bool) -> Progress:
    """A line that rewrites itself on a terminal, plain lines for a log, nothing when quiet."""
    if quiet:
        return lambda what, done, of: interrupt.check()
    live = sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"
    begun, last = time.monotonic(), ""

    def show(what: str, done: int, of: int) -> None:
        nonlocal last
        interrupt.check()
        if live:
            click.echo(f"\r\x1b[K{_line(what, done, of, time.monotonic() - begun)}", err=True, nl=False)
        elif what != last:
            click.echo(f"[{time.monotonic() - begun:5.1f}s] {what}", err=True)
        last = what

    return show


def _line(what: str, done: int, of: int, spent: float) -> str:
    """One line for a terminal: the bar, the layer, and where it is, as far as it fits."""
    filled = _BAR * done // of if of > 1 else 0
    bar = f"[{'█' * filled}{'·' * (_BAR - filled)}] " if of > 1 else ""
    count = f" {done + 1}/{of}" if of > 1 else ""
    parts = [f"{bar}{what}{count}"]
    if isinstance(what, Doing) and what.statements:
        leaks = f"{what.leaks} leak{'' if what.leaks == 1 else 's'}"
        parts += [what.relation, f"{what.statements / max(spent, 0.001):,.0f} statements/s", f"{leaks} so far"]
    width = shutil.get_terminal_size().columns - 3
    line = " · ".join(part for part in parts if part)
    return (line if len(line) <= width else line[: max(width, 10)]) + " …"


def clear_progress() -> None:
    """End the rewriting line before anything else is printed."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
