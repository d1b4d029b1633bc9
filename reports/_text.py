"""Text that is safe to show: names in a catalog are hostile input (escape codes, bidi overrides, NULs)."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime
from unicodedata import combining, east_asian_width

from rlsaudit.errors import UsageError
from rlsaudit.finding import SEVERITIES, Cell, Finding, Property, State, at_least

STATES: tuple[State, ...] = ("leak", "not covered", "waived", "held", "proven", "no privilege")
COMMANDS: tuple[str, ...] = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
_PROPERTIES: dict[str, Property] = {"INSERT": "forge", "UPDATE": "write", "DELETE": "write", "TRUNCATE": "write"}

# Blank on the screen although Unicode calls them letters, symbols or marks.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | frozenset(map(chr, range(0xFE00, 0xFE10)))
_QUALIFIED = re.compile(r'("(?:[^"]|"")*"|[^".]+)\.(.+)\Z', re.DOTALL)


def visible(text: str, keep: str = "") -> str:
    """``text`` with every character that does not show spelled out as ⟨U+202E⟩, save those in ``keep``.

    That is: control, bidi, zero-width, blank and unassigned characters, and lone surrogates.

    The result is one line (unless ``keep`` has the newline), legal XML, encodable, and inert in a terminal.
    """
    if text.isprintable() and _BLANK.isdisjoint(text):
        return text
    return "".join(c if (c.isprintable() and c not in _BLANK) or c in keep else f"⟨U+{ord(c):04X}⟩" for c in text)


def lines(text: str) -> str:
    """``visible`` for prose and SQL of several lines."""
    return visible(text.replace("\r\n", "\n"), keep="\n\t")


def schema_of(relation: str) -> tuple[str, str]:
    """Schema and rest of a qualified name, quotes kept; the schema is empty when there is none."""
    match = _QUALIFIED.match(relation)
    return (match[1], match[2]) if match else ("", relation)


def display_width(text: str) -> int:
    """Columns that a terminal needs for ``text``."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def shorten(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` columns; a long one loses its middle, for both ends tell names apart."""
    if display_width(text) <= limit:
        return text
    head, tail = text, ""
    room = max(limit - 1, 0)
    while display_width(tail) < room // 2 and head:
        head, tail = head[:-1], head[-1] + tail
    while display_width(head) + display_width(tail) > room and (head or tail):
        head, tail = (head[:-1], tail) if head else (head, tail[1:])
    return f"{head}…{tail}" if limit > 0 else ""


def instant(text: str) -> datetime:
    """A time of the evidence.  Raises UsageError for text that is none, or that has no zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError(f"{visible(text)!r} in the evidence is no time with a zone: take the file as it was written")
    return moment


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 leak``, ``2,604 statements``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def tally(cells: Iterable[Cell]) -> dict[State, int]:
    """How many cells are in each state; every state is a key."""
    counts: dict[State, int] = dict.fromkeys(STATES, 0)
    for cell in cells:
        counts[cell.state] += 1
    return counts


def command_order(commands: Iterable[str]) -> list[str]:
    """Distinct commands, the usual ones first."""
    return sorted(set(commands), key=lambda c: (COMMANDS.index(c) if c in COMMANDS else len(COMMANDS), c))


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Open before waived, worst first, otherwise in the report's order."""
    return sorted(findings, key=lambda f: (f.status == "waived", SEVERITIES.index(f.severity)))


def fails(finding: Finding, fail_on: str) -> bool:
    """True when the finding alone makes the run exit with 1."""
    threshold = next((severity for severity in SEVERITIES if severity == fail_on), None)
    counts = finding.status == "open" and finding.age != "carried"
    return counts and threshold is not None and at_least(finding.severity, threshold)


def property_of(cell: Cell) -> Property:
    """The property of the isolation contract that a cell is about, by its command."""
    return _PROPERTIES.get(cell.command, "read")


def is_function(cell: Cell) -> bool:
    """True of the cell of a function, whose name stands in ``relation``."""
    return cell.command == "EXECUTE"


def index_findings(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Findings by the relation at stake or the function called, so that a matrix of many cells asks only the few that matter."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.place, []).append(finding)
    return found


def wrap(text: str, width: int, indent: str = "", first: str | None = None) -> str:
    """Prose folded at ``width``; words that are too long (names mostly) lose their middle."""
    room = width - len(indent)
    words = " ".join(shorten(word, room) for word in visible(" ".join(text.split())).split(" "))
    start = indent if first is None else first
    return "\n".join(
        textwrap.wrap(words, width, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False)
    )


def listed(title: str, items: Sequence[str], width: int) -> str:
    return "\n".join([title, *(wrap(item, width, "    ", "  - ") for item in items)]) if items else ""
