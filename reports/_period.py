"""The report on a period: one self-contained page without scripts, and a summary for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from tabulate import tabulate

from rlsaudit.bundle.period import Period, Population

from ._page import finalize, part, script_hash, shown_time
from ._text import count, listed, shorten, visible, wrap

_VERDICTS = {
    "clean": ("ok", "proven", "✓"),
    "exceptions": ("bad", "leak", "✕"),
    "not trustworthy": ("part", "gap", "!"),
}
_NO_RUN = ("none", "–", "no run")
_MOST = 20
_CHART = (1000, 120)


def page(period: Period) -> str:
    style = part("html.css") + part("period.css")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=finalize
    )
    environment.filters |= {"time": shown_time, "n": lambda number: f"{number:,}", "count": count, "days": _days}
    return environment.from_string(part("period.j2")).render(
        p=period,
        style=Markup(style),  # noqa: S704 - our own file
        style_hash=script_hash(style),
        tag=("bad", "✕", "EXCEPTIONS NOTED") if period.exceptions else ("ok", "✓", "NO EXCEPTIONS NOTED"),
        verdicts=_VERDICTS,
        calendar=_calendar(period),
        points=_points(period.population),
        span=_CHART,
    )


def _days(days: float | None) -> str:
    if days is None:
        return "–"
    return f"{days * 24:.1f} hours" if days < 2 else f"{days:.1f} days"


def _calendar(period: Period) -> list[tuple[str, list[tuple[str, str, str, str]]]]:
    """Month → its days in the period: day, class, glyph and what to read aloud; a day has its worst verdict."""
    worst: dict[str, str] = {}
    order = list(_VERDICTS)
    for run in period.runs:
        day = run.started[:10]
        worst[day] = max(worst.get(day, "clean"), run.verdict, key=order.index)
    months: dict[str, list[tuple[str, str, str, str]]] = {}
    at, end = date.fromisoformat(period.first), date.fromisoformat(period.last)
    while at <= end:
        verdict = worst.get(at.isoformat())
        style, glyph, said = (*_VERDICTS[verdict][1:], verdict) if verdict else _NO_RUN
        months.setdefault(f"{at:%Y-%m}", []).append((str(at.day), style, glyph, f"{at.isoformat()}: {said}"))
        at += timedelta(days=1)
    return list(months.items())


def _points(population: Sequence[Population]) -> list[str]:
    """For each system, the path of its number of relations over its runs."""
    width, height = _CHART
    most = max((one.relations for one in population), default=0) or 1
    systems: dict[str, list[int]] = {}
    for one in population:
        systems.setdefault(one.system, []).append(one.relations)
    paths = []
    for numbers in systems.values():
        step = width / max(len(numbers), 1)
        heights = [round(height - 2 - number / most * (height - 8), 1) for number in numbers]
        moves = [f"{'M' if at == 0 else 'L'}{at * step:.1f} {y}H{(at + 1) * step:.1f}" for at, y in enumerate(heights)]
        paths.append("".join(moves))
    return paths


def summary(period: Period, width: int = 80) -> str:
    """What the page says, in text; no line wider than ``width`` (at least 72)."""
    width = max(width, 72)
    days = (date.fromisoformat(period.last) - date.fromisoformat(period.first)).days + 1
    head = f"{period.verdict.upper()}  {period.first} to {period.last}, {count(len(period.runs), 'run')} in {count(days, 'day')}"
    took = f"{period.fixed} fixed, median {_days(period.median_days)}, worst {_days(period.worst_days)}"
    facts = [
        ("findings", f"{count(len(period.findings), 'finding')}, {took}"),
        ("waivers", _waivers(period)),
        (
            "chain",
            f"{count(period.links, 'link')} fit, {count(len(period.failures), 'failure')} of hashes, signatures or links",
        ),
    ]
    gaps = [
        gap.first if gap.days == 1 else f"{gap.first} to {gap.last}, {count(gap.days, 'day')}" for gap in period.gaps
    ]
    blocks = [
        "\n".join([wrap(head, width), *(wrap(text, width, " " * 11, f"{name:<11}") for name, text in facts)]),
        listed("Exceptions", period.exceptions, width),
        listed("Days without a run", _first(gaps), width),
        listed("Does not fit", _first([f"{part.place}: {part.text}" for part in period.failures]), width),
        _findings(period, width),
        listed("Notes", period.notes, width),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _waivers(period: Period) -> str:
    force = sum(span.waiver.status == "in force" for span in period.waivers)
    return f"{force} in force, {sum(span.ended for span in period.waivers)} ended by {period.last}"


def _first(items: Sequence[str]) -> list[str]:
    more = len(items) - _MOST
    return [*items[:_MOST], *([f"and {more:,} more: see period.json"] if more > 0 else [])]


def _findings(period: Period, width: int) -> str:
    shown = period.findings[:_MOST]
    if not shown:
        return ""
    room = width - 10 - 10 - 12 - 12 - 8 - 2
    rows: list[tuple[Any, ...]] = [
        (one.severity, shorten(visible(one.check), 9), one.state.replace("not tested again", "not tested"), one.first_seen[:10],
         _days(one.days), shorten(visible(one.object), room))
        for one in shown
    ]  # fmt: skip
    table = tabulate(
        rows, ("severity", "check", "state", "first seen", "took", "object"), tablefmt="plain", disable_numparse=True
    )
    more = len(period.findings) - _MOST
    return "\n".join(["Findings", table, *([f"… and {count(more, 'more finding')}: see the page"] if more > 0 else [])])
