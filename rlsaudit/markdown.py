"""Pieces of the generated pages of docs/: prose and tables that say in Markdown what they say in the source."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 110
NOTICE = "<!-- Written by `make docs`; edit the source it is made from, not this page. -->"


def wrapped(prose: str) -> str:
    """A paragraph in lines of ``WIDTH``."""
    return textwrap.fill(text(" ".join(prose.split())), WIDTH, break_long_words=False, break_on_hyphens=False)


def text(prose: str) -> str:
    """Prose in Markdown: what stands between backticks is code, elsewhere neither HTML nor emphasis."""
    pieces = prose.split("`")
    return "`".join(re.sub(r"([<*])", r"\\\1", p) if n % 2 == 0 else p for n, p in enumerate(pieces))


def cell(prose: str) -> str:
    """Prose in a table."""
    return text(prose).replace("|", "\\|")


def code(source: str) -> str:
    """What stands between backticks in a table."""
    return source.replace("|", "\\|")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of finished cells."""
    first, *rest = (f"| {' | '.join(row)} |" for row in (heads, *rows))
    return "\n".join((first, f"|{'---|' * len(heads)}", *rest))


def joined(parts: Iterable[str]) -> str:
    """A page of blocks."""
    return "\n\n".join(parts) + "\n"
