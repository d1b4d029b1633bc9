"""The generated pages of docs/, which ``python -m rlsaudit.docs DIR`` writes: checks, command line, configuration, manual.

Nothing is taken from click's formatter, whose line breaks and brackets change with its version and the
terminal: the same code gives the same bytes everywhere.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from rlsaudit import manual, waivers
from rlsaudit.check import Check, Example, registry
from rlsaudit.cli import cli
from rlsaudit.config_keys import KEYS, Key
from rlsaudit.markdown import NOTICE, cell, code, joined, table, text, wrapped

_FAMILIES: Mapping[str, str] = {
    "0": "Coverage: is row security there at all",
    "1": "Policy predicates",
    "2": "Roles and privileges",
    "3": "Doors around row security: views, functions, triggers, rules, partitions, copies",
    "4": "The context of a session",
    "5": "Keys and constraints",
    "6": "Performance of policies",
    "7": "The server",
}

_KEY_HEADS = ("key", "type", "meaning", "default", "flag and variable")
_ORDER = (
    "A flag wins over its environment variable, that over `rlsaudit.toml`, and that over `[tool.rlsaudit]` in "
    "`pyproject.toml`."
)


def pages() -> dict[str, str]:
    """Every generated page: path below docs/ → text."""
    own = shipped()
    return {
        "cli.md": command_line(),
        "configuration.md": configuration(),
        "rlsaudit.1": manual.page(_paragraphs(cli), map(_entry, commands())),
        "checks/index.md": index(own),
        **{f"checks/{one.id}.md": check_page(one) for one in own},
    }


def write(directory: Path) -> tuple[Path, ...]:
    """Write the pages below ``directory`` and remove pages of checks that are no more.  Raises OSError."""
    made = {directory / name: page for name, page in pages().items()}
    for old in (directory / "checks").glob("RLS*.md"):
        if old not in made:
            old.unlink()
    for path, page in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8", newline="\n")
    return tuple(made)


def shipped() -> tuple[Check, ...]:
    """The checks of rlsaudit itself: what a plug-in adds has pages of its own elsewhere."""
    return tuple(one for one in registry() if one.run.__module__.startswith("rlsaudit.checks."))


def index(checks: tuple[Check, ...]) -> str:
    """The table of all checks, by family."""
    parts = [
        NOTICE,
        "# Checks",
        wrapped(
            f"{len(checks)} checks read the catalog, in `rlsaudit scan` and in `rlsaudit audit`. The severity is "
            "the check's own; a finding may carry another, by its consequence in the database at hand. "
            "`rlsaudit explain RLS001` prints a page in the terminal."
        ),
    ]
    for digit, family in _FAMILIES.items():
        members = [one for one in checks if one.id[3] == digit]
        if members:
            rows = [(f"[{one.id}]({one.id}.md)", one.severity, cell(one.title)) for one in members]
            parts += [f"## {family}", table(("id", "severity", "title"), rows)]
    return joined(parts)


def check_page(one: Check) -> str:
    """Why a check matters, a bad and a good schema, and the controls it bears on."""
    severity = f"Severity: **{one.severity}** · Family: {_FAMILIES[one.id[3]].partition(':')[0]}"
    parts = [
        NOTICE,
        f"# {one.id}: {text(one.title)}",
        severity,
        "## Why it matters",
        wrapped(one.rationale),
    ]
    for number, example in enumerate(one.examples, 1):
        parts += [f"## Example{f' {number}' if len(one.examples) > 1 else ''}", *_example(example)]
    if one.covers:
        parts += ["## What it looks for", "\n".join(f"* {text(line)}" for line in one.covers)]
    if one.standards:
        parts += ["## Controls", "\n".join(f"* {standard}" for standard in one.standards)]
    return joined([*parts, "[All checks](index.md)"])


def command_line() -> str:
    """Every command with its arguments and options."""
    parts = [NOTICE, "# Command line", _help(cli)]
    parts += [
        wrapped(_ORDER),
        "\n".join(f"* [`{name}`](#{name.replace(' ', '-')})" for name, _ in commands()),
    ]
    for name, command in commands():
        parts += [f"## {name}", f"```\n{_usage(name, command)}\n```", _help(command), *_options(command)]
    return joined(parts)


def configuration() -> str:
    """Every key of rlsaudit.toml and of the waivers, and every variable of the environment."""
    options = {one.name: one for one in cli.commands["scan"].params if isinstance(one, click.Option)}
    parts = [NOTICE, "# Configuration", wrapped(_ORDER)]
    for place, keys in KEYS.items():
        kind = KEYS[""][place.partition(".")[0]].kind if place else ""
        brackets = f"[[{place}]]" if place in ("allow", "context.personas") else f"[{place}]"
        heading = (
            f'`[{place}."schema.name"]`' if kind.startswith("tables by") else f"`{brackets}`" if place else "Top level"
        )
        own = {} if place else options
        parts += [
            f"## {heading}",
            table(_KEY_HEADS, [_key_row(name, key, own.get(name)) for name, key in keys.items()]),
        ]
    parts += [
        f"## Waivers: `{waivers.FILENAME}`",
        wrapped("Each exception is a `[[waiver]]`, by fingerprint or by rule and object."),
        table(_KEY_HEADS, [_key_row(name, key, None) for name, key in waivers.KEYS.items()]),
        "## Environment",
        table(("variable", "what it is"), _variables()),
    ]
    return joined(parts)


def _key_row(name: str, key: Key, option: click.Option | None) -> tuple[str, ...]:
    meaning, _, default = (key.meaning or (option.help if option else "") or "").partition(" Default: ")
    flags = " ".join(f"`{one}`" for one in (option.opts[0], _variable(option))) if option else ""
    kind = _value(option) if option and isinstance(option.type, click.Choice) else key.kind
    return f"`{name}`", kind, cell(meaning), key.default or default.rstrip("."), flags


def _variables() -> Iterator[tuple[str, str]]:
    """Those of the options, by name, each with the options that it stands for; then the others."""
    said: dict[str, set[str]] = {}
    for _, command in commands():
        for one in command.params:
            if isinstance(one, click.Option) and _variable(one):
                said.setdefault(_variable(one), set()).add(one.opts[0])
    yield from ((f"`{name}`", ", ".join(f"`{one}`" for one in sorted(flags))) for name, flags in sorted(said.items()))
    yield from ((f"`{name}`" if "," not in name else name, cell(meaning)) for name, meaning in manual.ENVIRONMENT)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that can be run, by its full name below ``rlsaudit``, such as ``config show``."""
    yield from _below(cli, "")


def _below(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    for name in sorted(group.commands):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from _below(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _entry(named: tuple[str, click.Command]) -> manual.Entry:
    name, command = named
    options = [
        (", ".join(one.opts), "" if one.is_flag else _value(one), _variable(one), _meaning(one))
        for one in command.params
        if isinstance(one, click.Option)
    ]
    return manual.Entry(_usage(name, command), _paragraphs(command), options)


def _usage(name: str, command: click.Command) -> str:
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    shown = [(one.name or "").upper() if one.required else f"[{(one.name or '').upper()}]" for one in arguments]
    return " ".join(("rlsaudit", name, "[OPTIONS]", *shown))


def _options(command: click.Command) -> Iterator[str]:
    options = [one for one in command.params if isinstance(one, click.Option)]
    if not options:
        return
    rows = []
    for one in options:
        names = ", ".join(one.opts)
        value = "" if one.is_flag else f" {_value(one)}"
        variable = f"`{_variable(one)}`" if _variable(one) else ""
        rows.append((f"`{code(names + value)}`", variable, cell(_meaning(one))))
    yield table(("option", "environment", "meaning"), rows)


def _variable(option: click.Option) -> str:
    return option.envvar if isinstance(option.envvar, str) else ""


def _meaning(option: click.Option) -> str:
    default = f" Default: {option.default}." if option.show_default and option.default is not None else ""
    return (option.help or "") + default


def _value(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "/".join(map(str, option.type.choices))
    kinds = {click.INT: "NUMBER", click.FLOAT: "NUMBER"}
    return "NUMBER" if isinstance(option.type, click.FloatRange) else kinds.get(option.type, option.type.name.upper())


def _help(command: click.Command) -> str:
    return "\n\n".join(map(wrapped, _paragraphs(command)))


def _paragraphs(command: click.Command) -> list[str]:
    return [" ".join(one.split()) for one in re.split(r"\n\s*\n", (command.help or "").strip())]


def _example(example: Example) -> Iterator[str]:
    for heading, sql in (("Setting", example.setup), ("Bad", example.bad), ("Good", example.good)):
        if sql.strip():
            yield f"{heading}:"
            yield f"```sql\n{textwrap.dedent(sql).strip()}\n```"


def main(arguments: list[str]) -> int:
    """``python -m rlsaudit.docs DIR``: 0, or 2 when DIR is not given."""
    if len(arguments) != 1:
        click.echo("usage: python -m rlsaudit.docs DIR", err=True)
        return 2
    for path in write(Path(arguments[0])):
        click.echo(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
