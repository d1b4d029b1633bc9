"""Text in Markdown that stays text: names in a catalog are hostile, and a comment on a code host acts on what it reads."""

from __future__ import annotations

import re

from ._text import lines, visible

_PUNCTUATION = re.compile(r"([\\`*_{}\[\]<>()+|~$&!-])")
# A zero-width space after these keeps hosts from mentioning a person, linking an issue or an address, or running /close.
_ACTIVE = re.compile(r"(@|#|:(?=/)|^/|www|GH\\-)(?=\S)", re.IGNORECASE)
_TICKS = re.compile(r"`+")
_BREAK = "\u200b"


def prose(text: str) -> str:
    """One line of text: no markup, no mention, no link."""
    return _ACTIVE.sub(rf"\1{_BREAK}", _PUNCTUATION.sub(r"\\\1", visible(text)))


def code(text: str, *, cell: bool = False) -> str:
    """A code span; ``cell`` where it stands in a table."""
    shown = visible(text) or "-"
    ticks = "`" * (max(map(len, _TICKS.findall(shown)), default=0) + 1)
    pad = " " if shown[0] in "` " or shown[-1] in "` " else ""
    span = f"{ticks}{pad}{shown}{pad}{ticks}"
    return span.replace("|", r"\|") if cell else span


def block(text: str, language: str = "sql") -> str:
    """A fenced block of several lines."""
    shown = lines(text).strip("\n")
    fence = "`" * max(3, max(map(len, _TICKS.findall(shown)), default=0) + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def row(*cells: str) -> str:
    """A row of a table, of cells that are Markdown already."""
    return f"| {' | '.join(cells)} |"
