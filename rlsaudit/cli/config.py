"""``rlsaudit config show`` and ``rlsaudit config schema``."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from rlsaudit import config as configuration


@click.group()
def config() -> None:
    """Show the configuration in force, or the schema of the evidence file."""


@config.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    envvar="RLSAUDIT_CONFIG",
    help="Configuration file.",
)
def show(config_file: Path | None) -> int:
    """Print what the configuration file says, after checking it."""
    loaded = configuration.load(config_file, Path.cwd())
    click.echo(f"file: {loaded.path or 'none'}")
    for name in ("fail_on", "seed", "budget", "jobs", "database", "detector", "formats", "output_dir", "pg_bin"):
        click.echo(f"{name}: {getattr(loaded, name) if getattr(loaded, name) not in (None, ()) else 'default'}")
    click.echo(f"roles: {', '.join(loaded.declared.roles) or 'inferred'}")
    click.echo(f"tenant key: {', '.join(loaded.declared.keys) or 'inferred'}")
    context = loaded.declared.context
    click.echo("context: " + ("inferred" if context is None else ""))
    for persona in context.personas if context else ():
        said = (
            f"login {persona.login}" if persona.login else "",
            *persona.statements,
            "opening" if persona.opening else "",
        )
        click.echo(f"  {persona.name}: {'; '.join(filter(None, said))}")
    for name, one in loaded.declared.relations.items():
        click.echo(f"{name}: {one.kind}{f' by {one.key}' if one.key else ''}{f' ({one.reason})' if one.reason else ''}")
    return 0


@config.command()
@click.option("--evidence", is_flag=True, required=True, help="The JSON Schema of evidence.json.")
def schema(evidence: bool) -> int:
    """Print a JSON Schema."""
    click.echo(files("rlsaudit.reports").joinpath("evidence.schema.json").read_text(encoding="utf-8"), nl=False)
    return 0
