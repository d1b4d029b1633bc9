"""``rlsaudit evidence DIR… --from DAY --to DAY``."""

from __future__ import annotations

import re
import shutil
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from rlsaudit.bundle import period
from rlsaudit.bundle.gather import Asked, assemble, gather
from rlsaudit.bundle.verify import directories
from rlsaudit.cli.verify import trust_of, trust_options
from rlsaudit.errors import UsageError
from rlsaudit.output import write_all


@click.command()
@click.argument("directory", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--from", "first", required=True, metavar="DAY", help="First day of the period, such as 2026-01-01 (UTC)."
)
@click.option("--to", "last", required=True, metavar="DAY", help="Last day of the period.")
@click.option("--every", default="1d", show_default=True, metavar="DAYS", help="How often a run is due: 1d, 7d.")
@click.option(
    "--output-dir", type=click.Path(path_type=Path), default=Path("rlsaudit-period"), show_default=True,
    help="Where period.html and period.json go.",
)  # fmt: skip
@trust_options
def evidence(directory: tuple[Path, ...], first: str, last: str, every: str, output_dir: Path, **keys: Any) -> int:
    """Report on the runs of a period: which ran and which did not, what they found, how long it stood, what was waived.

    DIRECTORY is the output directory of a run, or one that holds several; give also earlier runs, which tell since when a
    finding stood.  The hashes and the chain of all of them are verified.  Exit codes: 0 no exceptions noted; 1 exceptions
    noted; 2 usage.
    """
    today = datetime.now(UTC).date()
    asked = Asked(_day(first, "--from"), _day(last, "--to"), _days(every), today)
    if asked.last > today + timedelta(days=366):
        raise UsageError(f"--to {last} lies more than a year ahead")
    if asked.first > asked.last:
        raise UsageError(f"--from {first} lies after --to {last}")
    runs = directories(directory)
    target = output_dir.resolve()
    if any(target.is_relative_to(run.resolve()) for run in runs):
        raise UsageError(f"--output-dir {output_dir} is the directory of a run, which nothing may be added to")
    trust = trust_of(**keys)
    made = assemble([gather(run, trust) for run in runs], asked, trust)
    written = write_all(output_dir, {"period.html": period.page(made), "period.json": period.document(made)})
    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80
    click.echo(period.summary(made, width))
    click.echo("\n".join(["Reports", *(f"  - {path}" for path in written)]))
    return 1 if made.exceptions else 0


def _day(given: str, option: str) -> date:
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise UsageError(f"{option} {given}: give a day such as 2026-01-01") from None


def _days(given: str) -> int:
    match = re.fullmatch(r"([1-9]\d{0,3})d?", given.strip().lower())
    if match is None:
        raise UsageError(f"--every {given}: give a number of days such as 1d or 7d")
    return int(match[1])
