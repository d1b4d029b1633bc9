"""``population.csv``: every relation of the catalog with what became of it, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections import defaultdict

from rlsaudit.finding import Cell
from rlsaudit.report import Report, format_

from ._text import command_order, is_function, visible

_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")
"""With these a cell begins to calculate, the full-width ones included."""


@format_("csv", filename="population.csv", description="the population, a row for each relation, for a spreadsheet")
def population(report: Report) -> str:
    cells: dict[str, dict[tuple[str, str], Cell]] = defaultdict(dict)
    for cell in report.cells:
        if not is_function(cell):
            cells[cell.relation][cell.role, cell.command] = cell
    told = [cell for row in cells.values() for cell in row.values()]
    commands = command_order(cell.command for cell in told)
    pairs = [(role, command) for role in dict.fromkeys(cell.role for cell in told) for command in commands]
    heads = ("relation", "kind", "class", "why", "owner", "outcome", "not covered because")
    rows = [(*heads, *(f"{role} {command}" for role, command in pairs))]
    for entry in report.population:
        mine = cells.get(entry.relation, {})
        gaps = dict.fromkeys(cell.reason for cell in mine.values() if cell.state == "not covered")
        facts = (entry.relation, entry.kind, entry.class_, entry.why, entry.owner, entry.outcome, "; ".join(gaps))
        rows.append((*facts, *(_state(mine.get(pair)) for pair in pairs)))
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([*map(_safe, row)] for row in rows)
    return text.getvalue()


def _state(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{cell.state} {cell.trials}" if cell.state == "held" else cell.state


def _safe(text: str) -> str:
    """The text as a spreadsheet shows it and does not run it."""
    shown = visible(text)
    return f"'{shown}" if shown.lstrip(" '\"")[:1] in _FORMULA else shown
