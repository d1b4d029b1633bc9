"""``rlsaudit diff BASE HEAD``."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rlsaudit.cli.common import clear_progress, merged, source_options
from rlsaudit.diff.change import FORMATS, Format, rendered
from rlsaudit.diff.run import compared
from rlsaudit.output import write_all

_BUDGET = "0.5s"


@click.command()
@click.argument("base")
@click.argument("head")
@source_options
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True,
              help="markdown is the comment on a pull request, github are annotations for a step to print.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="Write it here too; what is printed is then the text.")  # fmt: skip
@click.option("--fail-on", type=click.Choice(("dangerous", "review")), default="dangerous", show_default=True,
              help="Exit 1 from this verdict on.")  # fmt: skip
@click.option("--no-probe", is_flag=True, help="Execute nothing: leave it to the catalogs and the prover.")
@click.option("--waivers", "waivers_file", type=click.Path(path_type=Path), envvar="RLSAUDIT_WAIVERS",
              help="Approved exceptions. Default: rlsaudit-waivers.toml, where there is one.")  # fmt: skip
@click.option("--seed", type=int, envvar="RLSAUDIT_SEED", help="Seed of the random workloads. Default: 0.")
@click.option("--budget", envvar="RLSAUDIT_BUDGET", metavar="TIME", default=_BUDGET, show_default=True,
              help="Time for random workloads on what changed: seconds, or 30s, 5m.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1, max=64), envvar="RLSAUDIT_JOBS",
              help="Sessions that attack at once. Default: one per core, at most 4.")  # fmt: skip
def diff(base: str, head: str, form: Format, output: Path | None, fail_on: str, no_probe: bool, **given: Any) -> int:
    """Say what changed in isolation from BASE to HEAD: the gate for a pull request.

    Each is a SOURCE as for scan, a snapshot.json, or git:REF:path, the files of a commit of the repository here. What
    did not change is not tested again; what did is proven and attacked in HEAD, and in BASE where it may have been so
    there already. Two evidence.json of earlier runs are compared as they are.

    The verdict is SAFE, REVIEW (nothing shows it to be open and nothing proves it closed) or DANGEROUS. Exit codes: 0;
    1 DANGEROUS, or REVIEW with --fail-on review; 2 usage; 3 not trustworthy.
    """
    common = merged(head, **given)
    options = replace(common.options, probing=not no_probe)
    found = compared(base, head, options, common.progress, fail_on="review" if fail_on == "review" else "dangerous")
    clear_progress()
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((80, 24)).columns if terminal else 80
    color = terminal and not os.environ.get("NO_COLOR")
    if output is not None:
        write_all(output.parent, {output.name: rendered(found, form)})
        form = "text"
    click.echo(rendered(found, form, width, color), nl=False)
    return found.exit_code
