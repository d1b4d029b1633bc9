"""``rlsaudit demo``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from rlsaudit.cli.common import Common, clear_progress, merged, run_options
from rlsaudit.cli.finish import run
from rlsaudit.demo import Demo, demos, path
from rlsaudit.errors import UsageError
from rlsaudit.scan import scan
from rlsaudit.tenancy.infer import Declared


@click.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Scan all ten and print one table.")
@click.option("--list", "listing", is_flag=True, help="List the demo schemas.")
@run_options
def demo(name: str | None, everything: bool, listing: bool, **given: Any) -> int:
    """Scan a schema that ships with rlsaudit: five multi-tenant architectures, as usually written and hardened.

    NAME is a file name or its beginning, such as 2_org_id_hardened.  Without it the first schema is scanned.
    """
    if listing:
        click.echo(tabulate([(d.filename.removesuffix(".sql"), d.title) for d in demos()], ("name", "architecture")))
        return 0
    if everything:
        return _all(_merged("", given))
    chosen = _named(name) if name else demos()[0]
    code = run(_merged(str(path(chosen)), given))
    click.echo("\nThis was " + chosen.title + (", as usually written" if not chosen.hardened else ", hardened") + ".")
    click.echo("See the other nine with: rlsaudit demo --list, rlsaudit demo NAME, rlsaudit demo --all")
    # The demonstration has worked when it found what is really there.
    return 0 if code in (0, 1) else code


def _merged(source: str, given: Mapping[str, Any]) -> Common:
    """The shared options; what lies in the working directory is about another schema, and has no say in this one's."""
    common = merged(source, **given)
    options = common.options
    if given["config_file"] is None:
        options = replace(options, declared=Declared(roles=given["roles"]), allowed=())
    if given["waivers_file"] is None:
        options = replace(options, waivers=())
    return replace(common, options=options)


def _named(name: str) -> Demo:
    found = [d for d in demos() if d.filename.startswith(name) or name in (d.name, str(d.number))]
    if not found:
        raise UsageError(f"no demo {name!r}; rlsaudit demo --list shows them")
    return found[0]


def _all(common: Common) -> int:
    rows = []
    for one in demos():
        scanned = scan(replace(common.options, source=str(path(one))), lambda what, done, of: None)
        report = scanned.report
        states = Counter(cell.state for cell in report.cells)
        leaks = [f for f in report.findings if f.source == "probe"]
        static = Counter(f.severity for f in report.findings if f.source == "check")
        rows.append(
            (
                Path(one.filename).stem, report.exit_code, f"{sum(f.confirmed for f in leaks)}/{len(leaks)}",
                static["critical"] + static["high"] + static["medium"], states["proven"], states["held"],
                states["not covered"], f"{report.timing.seconds:.1f}",
            )
        )  # fmt: skip
        common.progress(f"{one.filename}: exit {report.exit_code}", len(rows) - 1, 10)
    clear_progress()
    headers = (
        "schema",
        "exit",
        "leaks\nreplayed",
        "static\n≥ medium",
        "proven",
        "held",
        "not\ncovered",
        "seconds",
    )
    click.echo(tabulate(rows, headers))
    wanted = [(one, row) for one, row in zip(demos(), rows, strict=True) if row[1] != (0 if one.hardened else 1)]
    return 3 if wanted else 0
