"""Options that several commands share, and the progress line."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from rlsaudit import config, interrupt
from rlsaudit.errors import UsageError
from rlsaudit.finding import SEVERITIES, Severity
from rlsaudit.scan import Options, Progress

F = TypeVar("F", bound=Callable[..., Any])

OUTPUT = "rlsaudit-report"
FORMATS = ("json", "html", "junit")


@dataclass(frozen=True)
class Common:
    """The shared options, configuration already merged in."""

    options: Options
    output_dir: Path
    formats: tuple[str, ...]
    progress: Progress


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
                "--fail-on",
                type=click.Choice(SEVERITIES),
                envvar="RLSAUDIT_FAIL_ON",
                help="Exit 1 from this severity on. Default: medium.",
            ),
            click.option("--seed", type=int, envvar="RLSAUDIT_SEED", help="Seed of the random workloads. Default: 0."),
            click.option(
                "--budget",
                type=click.FloatRange(min=0),
                envvar="RLSAUDIT_BUDGET",
                help="Seconds for random workloads. Default: 5.",
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
    output_dir: Path | None = None,
    formats: str | None = None,
    fail_on: Severity | None = None,
    seed: int | None = None,
    budget: float | None = None,
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
        pg_bin=pg_bin or (Path(loaded.pg_bin) if loaded.pg_bin else None),
        seed=seed if seed is not None else loaded.seed or 0,
        budget=budget if budget is not None else loaded.budget if loaded.budget is not None else 5.0,
        fail_on=fail_on or loaded.fail_on or "medium",
        probing=probing,
        command=("rlsaudit", *sys.argv[1:]),
        configuration_hash=loaded.hash,
    )
    if not math.isfinite(options.budget) or options.budget < 0:
        raise UsageError(f"budget {options.budget}: give a number of seconds, 0 or more")
    names = tuple(n.strip() for n in formats.split(",") if n.strip()) if formats else loaded.formats or FORMATS
    directory = output_dir or Path(loaded.output_dir or OUTPUT)
    return Common(options, directory, names, _progress(quiet))


def _progress(quiet: bool) -> Progress:
    """A line that rewrites itself on a terminal, plain lines for a log, nothing when quiet."""
    if quiet:
        return lambda what, done, of: interrupt.check()
    live = sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"
    begun, last = time.monotonic(), ""

    def show(what: str, done: int, of: int) -> None:
        nonlocal last
        interrupt.check()
        count = f" {done + 1}/{of}" if of > 1 else ""
        if live:
            click.echo(f"\r\x1b[K{what}{count} …", err=True, nl=False)
        elif what != last:
            click.echo(f"[{time.monotonic() - begun:5.1f}s] {what}", err=True)
        last = what

    return show


def clear_progress() -> None:
    """End the rewriting line before anything else is printed."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
