"""The manual page ``rlsaudit(1)``, put together by ``rlsaudit.docs`` from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rlsaudit import __version__

_FILES = (
    ("rlsaudit.toml", "Configuration, in the directory where rlsaudit is started; rlsaudit init writes it."),
    ("rlsaudit-waivers.toml", "Approved exceptions with an end, in the same place."),
    ("rlsaudit-report/", "Where the reports go; evidence.json is the record that the others are made from."),
)
ENVIRONMENT = (
    ("PGHOST, PGUSER, PGDATABASE, PGPASSFILE, PGSERVICEFILE and so on", "The live database, as for psql."),
    ("TMPDIR", "Where the scratch server has its directory."),
    ("NO_COLOR", "No colours."),
    ("RLSAUDIT_DEBUG", "When 1: where an unexpected error came from."),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: what to type, the paragraphs of its help, and its options as (name, value, variable, meaning)."""

    usage: str
    help: Sequence[str]
    options: Sequence[tuple[str, str, str, str]]


def page(about: Sequence[str], entries: Iterable[Entry]) -> str:
    """The page in man(7) macros, ASCII only; ``about`` are the paragraphs on the whole program, its exit codes last."""
    title, *rest = about
    exits = next(paragraph for paragraph in rest if paragraph.startswith("Exit codes: "))
    return "".join(f"{line}\n" for line in _lines(title, [p for p in rest if p != exits], exits, entries))


def _lines(title: str, rest: Sequence[str], exits: str, entries: Iterable[Entry]) -> Iterator[str]:
    yield '.\\" Written by `make docs`; edit the source it is made from, not this page.'
    yield f'.TH RLSAUDIT 1 "" "rlsaudit {__version__}" "User Commands"'
    yield from (".SH NAME", f"rlsaudit \\- {_text(title[:1].lower() + title[1:].rstrip('.'))}")
    yield from (".SH SYNOPSIS", ".B rlsaudit", r"\fICOMMAND\fR [\fIOPTIONS\fR] [\fIARGUMENTS\fR]")
    yield ".SH DESCRIPTION"
    yield from _paragraphs([title, *rest])
    yield ".SH COMMANDS"
    for entry in entries:
        yield f".SS {_text(entry.usage)}"
        yield from _paragraphs(entry.help)
        for name, value, variable, meaning in entry.options:
            shown = f"\\fB{_text(name)}\\fR" + (f" \\fI{_text(value)}\\fR" if value else "")
            yield from _item(shown, meaning + (f" Environment: {variable}." if variable else ""))
    yield ".SH EXIT STATUS"
    for code, meaning in re.findall(r"(\d+(?: or \d+)?) ([^;]+)", exits.removeprefix("Exit codes: ")):
        yield from _item(code, meaning.rstrip(".") + ".")
    yield ".SH ENVIRONMENT"
    yield _text(
        "A flag wins over its variable, that over rlsaudit.toml, and that over [tool.rlsaudit] in pyproject.toml."
    )
    for name, meaning in ENVIRONMENT:
        yield from _item(f"\\fB{_text(name)}\\fR", meaning)
    yield ".SH FILES"
    for name, meaning in _FILES:
        yield from _item(f"\\fI{_text(name)}\\fR", meaning)
    yield from (".SH SEE ALSO", ".BR psql (1),", ".BR pg_dump (1)")


def _paragraphs(texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number:
            yield ".PP"
        yield _text(text)


def _item(name: str, meaning: str) -> Iterator[str]:
    yield from (".TP", name, _text(meaning))


def _text(prose: str) -> str:
    """One line of running text in which nothing is a request or an escape."""
    plain = " ".join(prose.replace("`", "").split()).replace("\\", "\\e").replace("-", "\\-")
    safe = "".join(one if one.isascii() else f"\\[u{ord(one):04X}]" for one in plain)
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe
