"""``report.html``: one file for people and auditors that asks nothing of any network or server."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from rlsaudit.errors import UsageError
from rlsaudit.finding import Cell, Finding, Property, PropertyResult, concerns
from rlsaudit.report import PolicyEntry, Report, format_

from ._controls import ControlResult, control_results
from ._graph import exemption, graph
from ._page import finalize, part, script_hash, shown_time
from ._text import (
    STATES,
    by_severity,
    command_order,
    count,
    index_findings,
    instant,
    is_function,
    lines,
    schema_of,
    tally,
    visible,
)

_TAGS = {
    "clean": ("ok", "✓", "NO EXCEPTIONS"),
    "exceptions": ("bad", "✕", "EXCEPTIONS"),
    "not trustworthy": ("part", "!", "NOT TRUSTWORTHY"),
}
_STYLES = {
    "leak": "leak",
    "not covered": "gap",
    "waived": "waived",
    "held": "held",
    "proven": "proven",
    "no privilege": "nopriv",
}
_CONCLUSIONS = {
    "exceptions noted": ("bad", "✕"),
    "exception, waived": ("part", "W"),
    "no conclusion": ("part", "!"),
    "partly tested, no exceptions noted": ("part", "!"),
    "no exceptions noted": ("ok", "✓"),
}
_GLYPHS = {"leak": "✕", "not covered": "!", "waived": "W", "held": "n", "proven": "✓", "no privilege": "·"}
_OUTCOMES = {"held": ("ok", "✓"), "leak": ("bad", "✕"), "not covered": ("part", "!"), "waived": ("part", "W")}
_PROPERTIES = {
    "read": "No output of a session holds a value of another tenant.",
    "write": "No statement changes or deletes another tenant’s row.",
    "forge": "No row can be made for, or moved to, another tenant.",
    "closed": "Without context (never set, empty, unknown, garbage) a session sees no tenant row.",
    "carryover": "Context does not outlive commit, rollback, pool check-in, a prepared plan or a cursor.",
    "interference": "What a tenant observes does not depend on another tenant’s rows.",
    "alive": "A tenant sees and can change its own rows, so the test is not vacuous.",
    "detector": "Leaks that rlsaudit planted in the scratch copy were found.",
}
_RUN_LEVEL: tuple[Property, ...] = ("closed", "carryover", "alive", "detector")
_OPEN_FINDINGS = 3
_KEYWORDS = """
    ADD ALL ALTER AND AS BEGIN BY BYPASSRLS CASCADE CASE CHECK COLUMN COMMIT CONSTRAINT CREATE
    CURRENT_USER DEFAULT DELETE DISABLE DISTINCT DO DROP ELSE ENABLE END EXECUTE EXISTS FALSE FOR
    FORCE FOREIGN FROM FUNCTION GRANT GROUP IF IN INDEX INSERT INTO IS KEY LEVEL LIMIT LOCAL NO NOT
    NULL ON OR ORDER OWNER POLICY PRIMARY REFERENCES RESET RETURNING REVOKE ROLE ROLLBACK ROW SCHEMA
    SECURITY SELECT SESSION SET TABLE THEN TO TRIGGER TRUE TRUNCATE UNION UNIQUE UPDATE USER USING
    VALUES VIEW WHEN WHERE WITH
"""
_SQL = re.compile(
    r"""(?P<c>--[^\n]*|/\*.*?\*/|^\\[^\n]*)|(?P<s>'(?:[^']|'')*'|\$(\w*)\$.*?\$\3\$)|"(?:[^"]|"")*"|"""
    rf"(?P<k>\b(?:{'|'.join(_KEYWORDS.split())})\b)",
    re.DOTALL | re.MULTILINE,
)


@format_("html", filename="report.html", description="one self-contained page for people and auditors")
def html(report: Report) -> str:
    style, script = part("html.css"), part("html.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=finalize
    )
    environment.filters |= {
        "lines": lambda text: escape(lines(text)), "sql": _sql, "whole": _whole, "time": shown_time,
        "policy": _policy,
        "n": lambda number: f"{number:,}", "count": count,
    }  # fmt: skip
    return environment.from_string(part("html.j2")).render(
        r=report,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        style_hash=script_hash(style),
        script_hash=script_hash(script),
        data=_data(report),
        tag=_TAGS[report.verdict],
        past=_TAGS,
        tally=tally(report.cells),
        segments=_segments(report.cells),
        states=[(state, _STYLES[state], _GLYPHS[state]) for state in STATES],
        controls=_controls(report),
        findings=_findings(report.findings),
        properties=_properties(report.properties),
        gaps=_gaps(report.cells),
        idle=_idle(report),
        functions=_functions(report),
        graph=graph(report.roles),
        exemption=exemption,
        policies=_policies(report),
        skew=_skew(report),
        waived_cells=[cell for cell in report.cells if cell.state == "waived"],
    )  # fmt: skip


def _whole(text: str) -> bool:
    """True when the text is shown exactly as it is, so that copying it gives the same bytes."""
    return lines(text) == text


def _sql(text: str) -> Markup:
    """SQL with keywords, strings and comments marked, for a ``pre``."""
    text = lines(text)
    parts, at = [], 0
    for match in _SQL.finditer(text):
        if match.lastgroup is None:
            continue
        parts.append(escape(text[at : match.start()]))
        parts.append(Markup('<span class="{}">{}</span>').format(match.lastgroup, match[0]))
        at = match.end()
    return Markup("").join([*parts, escape(text[at:])])


def _policy(policy: PolicyEntry) -> Markup:
    parts = (("USING      ", policy.using), ("WITH CHECK ", policy.check))
    return _sql("\n".join(f"{name} {expression}" for name, expression in parts if expression is not None))


def _data(report: Report) -> Markup:
    """The matrix as JSON for the page's script; no character in it can end the script element."""
    kinds = {entry.relation: entry.kind for entry in report.population}
    shown = [cell for cell in report.cells if not is_function(cell)]
    roles = list(dict.fromkeys(cell.role for cell in shown))
    commands = command_order(cell.command for cell in shown)
    reasons: dict[str, int] = {}
    position = {(role, command): (i, j) for i, role in enumerate(roles) for j, command in enumerate(commands)}
    grid: dict[str, list[Any]] = {}
    by_relation = index_findings(report.findings)
    number = {id(finding): at for at, finding in enumerate(report.findings)}
    for cell in shown:
        row = grid.setdefault(cell.relation, [0] * (len(roles) * len(commands)))
        i, j = position[cell.role, cell.command]
        reason = reasons.setdefault(lines(cell.reason), len(reasons))
        entry: list[Any] = [STATES.index(cell.state), cell.trials, reason]
        if links := [number[id(f)] for f in by_relation.get(cell.relation, ()) if concerns(f, cell)]:
            entry.append(links)
        row[i * len(commands) + j] = entry
    schemas = list(dict.fromkeys(schema_of(relation)[0] for relation in grid))
    rows = [
        [*map(visible, schema_of(relation)), kinds.get(relation, ""), cells]
        for relation, cells in sorted(grid.items(), key=lambda item: schemas.index(schema_of(item[0])[0]))
    ]
    document = {
        "roles": list(map(visible, roles)),
        "commands": list(map(visible, commands)),
        "reasons": list(reasons),
        "findings": [[_anchor(f, at), visible(f.title)] for at, f in enumerate(report.findings)],
        "rows": rows,
    }
    text = json.dumps(document, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def _anchor(finding: Finding, at: int) -> str:
    return finding.id if re.fullmatch(r"F-\d+", finding.id) else f"finding-{at + 1}"


def _segments(cells: Sequence[Cell]) -> list[tuple[str, float, float]]:
    """Class, start and width (of 1000) of each part of the bar; cells without privilege are not in it."""
    counts = [(state, number) for state, number in tally(cells).items() if state != "no privilege" and number]
    total, gap = sum(number for _, number in counts), 3.0
    room = 1000 - gap * max(len(counts) - 1, 0)
    segments, at = [], 0.0
    for state, number in counts:
        width = room * number / total
        segments.append((_STYLES[state], round(at, 1), round(width, 1)))
        at += width + gap
    return segments


def _controls(report: Report) -> list[dict[str, str | bool]]:
    """What the run says of each control that a check, a cell or a finding is about; never that a control is met."""
    anchors = {id(finding): _anchor(finding, at) for at, finding in enumerate(report.findings)}
    return [_control(result, anchors, report) for result in control_results(report)]


def _control(result: ControlResult, anchors: Mapping[int, str], report: Report) -> dict[str, str | bool]:
    style, glyph = _CONCLUSIONS[result.conclusion]
    exceptions, waived, observed = (
        [(anchors[id(finding)], finding) for finding in found]
        for found in (result.exceptions, result.waived, result.observed)
    )
    text = f"{count(len(result.checks), 'check')} ran: {', '.join(result.checks)}. " if result.checks else ""
    if exceptions or waived:
        text = _titles(exceptions or waived)
    elif result.crashed:
        text = f"Crashed: {', '.join(result.crashed)}. "
    elif report.verdict == "not trustworthy":
        text = "The run is not trustworthy. " + text
    if result.gaps:
        text += f"{result.tested:,} of {count(result.tested + result.gaps, 'result')}; the rest could not be tested. "
    if observed:
        text += f"For information: {_titles(observed)}"
    name, title, status = result.control.name, result.control.title, result.conclusion.capitalize()
    text = f"{title}. {text}" if title else text
    weakness = name.startswith(("CWE", "CVE"))
    return {"name": name, "status": status, "style": style, "glyph": glyph, "text": text, "weakness": weakness}


def _titles(found: Sequence[tuple[str, Finding]]) -> str:
    titles: dict[str, list[str]] = defaultdict(list)
    for anchor, finding in found:
        titles[finding.title].append(anchor)
    some = (f"{title} ({', '.join(anchors[:4])}{' …' * (len(anchors) > 4)})" for title, anchors in titles.items())
    return "; ".join(some) + ". "


def _findings(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    anchors = {id(finding): _anchor(finding, at) for at, finding in enumerate(findings)}
    ordered = by_severity(findings)
    return [
        {"f": f, "anchor": anchors[id(f)], "open": at < _OPEN_FINDINGS and f.severity in ("critical", "high")}
        for at, f in enumerate(ordered)
    ]


def _properties(results: Iterable[PropertyResult]) -> list[dict[str, Any]]:
    """Every result, and a line for each run-level property that the run says nothing of."""
    told = list(results)
    missing = [name for name in _RUN_LEVEL if name not in {result.property for result in told}]
    told += [PropertyResult(name, "", "not covered", 0, "This run recorded no result.") for name in missing]
    order = list(_PROPERTIES)
    told.sort(key=lambda result: order.index(result.property) if result.property in order else len(order))
    return [
        {"r": result, "what": _PROPERTIES.get(result.property, ""), "style": _OUTCOMES[result.outcome]}
        for result in told
    ]


def _gaps(cells: Iterable[Cell]) -> list[tuple[str, list[str], int]]:
    """Reason, relations and number of the cells that were not covered, most cells first."""
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.state == "not covered":
            groups[cell.reason or "no reason was recorded"].append(cell)
    rows = [(reason, list(dict.fromkeys(c.relation for c in group)), len(group)) for reason, group in groups.items()]
    return sorted(rows, key=lambda row: -row[2])


def _functions(report: Report) -> list[dict[str, Any]]:
    """Cells of functions, the worst first, with the findings that tell of them."""
    by_place = index_findings(report.findings)
    number = {id(finding): at for at, finding in enumerate(report.findings)}
    cells = sorted(filter(is_function, report.cells), key=lambda cell: STATES.index(cell.state))
    return [
        {
            "cell": cell,
            "style": _STYLES[cell.state],
            "glyph": _GLYPHS[cell.state],
            "findings": [_anchor(f, number[id(f)]) for f in by_place.get(cell.relation, ()) if concerns(f, cell)],
        }
        for cell in cells
    ]


def _idle(report: Report) -> int:
    """Relations of the population without a single cell."""
    tested = {cell.relation for cell in report.cells}
    return sum(entry.relation not in tested for entry in report.population)


def _policies(report: Report) -> list[dict[str, Any]]:
    """Policies by relation with what is known of them, those of relations with an open finding first."""
    suspects = {
        finding.relation for finding in report.findings if finding.status == "open" and finding.severity != "info"
    }
    groups: Mapping[str, list[PolicyEntry]] = defaultdict(list)
    for policy in report.policies:
        groups[policy.relation].append(policy)
    known: Mapping[str, dict[str, list[str]]] = defaultdict(dict)
    for cell in report.cells:
        if cell.state != "no privilege":
            known[cell.relation].setdefault(cell.state, []).append(f"{cell.command} as {cell.role}")
    rows = [
        {
            "relation": relation,
            "suspect": relation in suspects,
            "policies": group,
            "known": [(state, known[relation][state]) for state in STATES if state in known[relation]],
        }
        for relation, group in groups.items()
    ]
    return sorted(rows, key=lambda row: not row["suspect"])


def _skew(report: Report) -> str:
    """How far the server's clock is from the runner's, in seconds; empty where one of them is not told."""
    try:
        apart = instant(report.provenance.server_clock) - instant(report.provenance.runner_clock)
    except UsageError:
        return ""
    return f"{apart.total_seconds():+.1f} s"
