"""``rlsaudit checks`` and ``rlsaudit explain CHECK``."""

from __future__ import annotations

import json
import textwrap

import click
from tabulate import tabulate

from rlsaudit.check import Check, registry
from rlsaudit.errors import UsageError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def checks(as_json: bool) -> int:
    """List every check with its severity and title."""
    if as_json:
        rows = [{"id": c.id, "severity": c.severity, "title": c.title, "standards": c.standards} for c in registry()]
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(tabulate([(c.id, c.severity, c.title) for c in registry()], ("id", "severity", "title")))
    return 0


@click.command()
@click.argument("check")
def explain(check: str) -> int:
    """Say what a check finds, why it matters, and show a bad and a good schema."""
    found = next((one for one in registry() if one.id == check.upper()), None)
    if found is None:
        raise UsageError(f"no check {check!r}; rlsaudit checks lists them")
    click.echo(page(found))
    return 0


def page(check: Check) -> str:
    """The check's page as plain text."""
    parts = [
        f"{check.id}: {check.title}",
        f"severity: {check.severity}",
        "",
        textwrap.fill(check.rationale, 88),
    ]
    for example in check.examples:
        for heading, sql in (("Setting", example.setup), ("Bad", example.bad), ("Good", example.good)):
            if sql.strip():
                parts += ["", heading, "", textwrap.indent(textwrap.dedent(sql).strip(), "    ")]
    if check.covers:
        parts += [
            "",
            "Looks for",
            "",
            *(textwrap.fill(f"* {line}", 88, subsequent_indent="  ") for line in check.covers),
        ]
    return "\n".join((*parts, "", f"standards: {', '.join(check.standards)}"))
