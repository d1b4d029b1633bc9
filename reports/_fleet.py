"""The reports on a fleet: one page that links to each target's own, one JUnit, and a summary for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from tabulate import tabulate

from rlsaudit.fleet.result import REPORT, Entry, Fleet

from ._page import finalize, part, script_hash, shown_time
from ._text import count, lines, shorten, visible, wrap

_OUTCOMES = {"clean": ("ok", "proven", "✓"), "exceptions": ("bad", "leak", "✕"), "no verdict": ("part", "gap", "!")}
_TAGS = {
    0: ("ok", "✓", "NO EXCEPTIONS NOTED"),
    1: ("bad", "✕", "EXCEPTIONS NOTED"),
    3: ("part", "!", "NOT TRUSTWORTHY"),
}
_MOST = 40


def page(fleet: Fleet, linked: Collection[str]) -> str:
    style = part("html.css") + part("period.css")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=finalize
    )
    environment.filters |= {"time": shown_time, "n": lambda number: f"{number:,}", "count": count, "lines": lines}
    found: Counter[str] = Counter(entry.outcome for entry in fleet.entries)
    return environment.from_string(part("fleet.j2")).render(
        f=fleet,
        linked={name: quote(f"{name}/{REPORT}") for name in linked},
        style=Markup(style),  # noqa: S704 - our own file
        style_hash=script_hash(style),
        tag=_TAGS[fleet.exit_code],
        outcomes=_OUTCOMES,
        tally=[(outcome, found[outcome]) for outcome in _OUTCOMES],
        bad=fleet.exit_code != 0,
        relations=sum(entry.relations for entry in fleet.entries),
        stands=sum(entry.stands for entry in fleet.entries),
    )


def junit(fleet: Fleet) -> str:
    """One suite with a case for each target, and one for the whole, so that none can be missing unseen."""
    whole = "pass" if fleet.exit_code == 0 else "failure" if fleet.exit_code == 1 else "error"
    cases = [(entry.name, _kind(entry), entry.sentence, _said(entry)) for entry in fleet.entries]
    cases.append(("all targets", whole, fleet.sentence, f"{fleet.sentence}\nExit code {fleet.exit_code}."))
    kinds = Counter(kind for _, kind, _, _ in cases)
    totals: dict[str, str] = {
        "tests": str(len(cases)),
        "failures": str(kinds["failure"]),
        "errors": str(kinds["error"]),
    }
    root = ET.Element("testsuites", {"name": "rlsaudit", **totals, "time": f"{fleet.seconds:.3f}"})
    more = {"skipped": "0", "time": f"{fleet.seconds:.3f}", "timestamp": visible(fleet.started)}
    suite = ET.SubElement(root, "testsuite", {"name": "fleet", **totals, **more})
    for name, kind, sentence, text in cases:
        case = ET.SubElement(suite, "testcase", classname="fleet", name=visible(name), time="0.000")
        if kind == "pass":
            ET.SubElement(case, "system-out").text = lines(text)
        else:
            ET.SubElement(case, kind, message=visible(sentence), type=kind).text = lines(text)
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _kind(entry: Entry) -> str:
    return {"clean": "pass", "exceptions": "failure", "no verdict": "error"}[entry.outcome]


def _said(entry: Entry) -> str:
    facts = [entry.source, entry.sentence, _found(entry), _cells(entry), f"Exit code {entry.exit_code}."]
    return "\n".join(fact for fact in facts if fact)


def _found(entry: Entry) -> str:
    return ", ".join(f"{number:,} {severity}" for severity, number in entry.findings)


def _cells(entry: Entry) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in entry.cells if state != "no privilege")


def summary(fleet: Fleet, width: int = 80) -> str:
    """What the page says, in text; no line wider than ``width`` (at least 72)."""
    width = max(width, 72)
    word = {0: "PASS", 1: "FAIL", 3: "NO VERDICT"}[fleet.exit_code]
    shown = [entry for entry in fleet.entries if entry.outcome != "clean"][:_MOST]
    name = min(max((len(visible(entry.name)) for entry in shown), default=0), 24)
    room = width - name - 12 - 4
    rows: list[tuple[Any, ...]] = [
        (shorten(visible(entry.name), name), entry.outcome, shorten(visible(entry.sentence), room)) for entry in shown
    ]
    table = (
        tabulate(rows, ("target", "verdict", "what it said"), tablefmt="plain", disable_numparse=True) if rows else ""
    )
    more = sum(entry.outcome != "clean" for entry in fleet.entries) - len(shown)
    clean = sum(entry.outcome == "clean" for entry in fleet.entries)
    tail = [f"… and {count(more, 'more target')}: see index.html"] if more > 0 else []
    tail += [f"{count(clean, 'clean target')} left out"] if clean and rows else []
    head = wrap(f"{word}  {fleet.sentence}, {fleet.seconds:,.0f} s", width)
    return "\n\n".join(block for block in (head, "\n".join([table, *tail]) if rows else "") if block)
