"""``rlsaudit fix SOURCE``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rlsaudit import mend
from rlsaudit.allow import apply, require_known
from rlsaudit.check import registry, run_checks
from rlsaudit.cli.common import Common, clear_progress, merged, source_options
from rlsaudit.finding import SEVERITIES, Severity
from rlsaudit.opening import DATABASE, Opened, open_source
from rlsaudit.output import write_all
from rlsaudit.scan import scan_again


@click.command()
@click.argument("source")
@source_options
@click.option("--severity", type=click.Choice(SEVERITIES), default="medium", show_default=True,
              help="Fix findings of this severity and above.")  # fmt: skip
@click.option("--verify", is_flag=True, help="Apply the fixes to a scratch copy, audit and probe it again.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write the script here. Default: standard output."
)
def fix(source: str, severity: Severity, verify: bool, output: Path | None, **given: Any) -> int:
    """Print SQL that closes the findings of the audit, worst first, as one transaction.

    Nothing is ever run on the database that was audited. With --verify the fixes are tried on a scratch copy, one
    after the other, each made for what the former ones left, and the copy is then audited and probed again; exit
    code 1 when something is left.
    """
    common = merged(source, **given, probing=verify, fail_on=severity)
    require_known(common.options.allowed, [one.id for one in registry()])
    with open_source(common.options, common.progress) as opened:
        found, _ = apply(run_checks(opened.catalog, opened.tenancy, live=opened.live), common.options.allowed)
        mended = mend.proposed(found, severity)
        said, code = f"{_count(mended)}; nothing was tried, see --verify", 0
        if verify and opened.server is not None:
            mended, said, code = _verified(common, opened, severity)
    clear_progress()
    text = mend.script(mended, source)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_all(output.parent, {output.name: text})
    click.echo(said, err=True)
    return code


def _verified(common: Common, opened: Opened, severity: Severity) -> tuple[mend.Mended, str, int]:
    server, tenancy = opened.server, opened.scratch_tenancy
    assert server is not None and tenancy is not None
    common.progress("trying the fixes", 0, 1)
    declared = replace(common.options.declared, roles=tuple(role.name for role in tenancy.roles))
    mended = mend.tried(lambda: server.connect(DATABASE), declared, common.options.allowed, severity)
    report = scan_again(opened, common.options, common.progress).report
    left = f"{len(mended.left)} findings of {severity} or above are left" if mended.left else "nothing is left to fix"
    return mended, f"{_count(mended)} applied to the scratch copy; {left}. Then: {report.sentence}", report.exit_code


def _count(mended: mend.Mended) -> str:
    fixes = sum(bool(step.statements) for step in mended.steps)
    return "1 fix" if fixes == 1 else f"{fixes} fixes"
