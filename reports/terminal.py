"""The run in a few screens of text, for stdout and CI logs: needs no colour, safe with hostile names."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence

from tabulate import tabulate

from rlsaudit.finding import Cell, Finding
from rlsaudit.report import BaselineEntry, Report, WaiverEntry

from ._text import (
    STATES,
    by_severity,
    command_order,
    count,
    display_width,
    is_function,
    lines,
    listed,
    shorten,
    tally,
    visible,
    wrap,
)

_VERDICT = {"clean": "PASS", "exceptions": "FAIL", "not trustworthy": "NOT TRUSTWORTHY"}
_COLOUR = {
    "PASS": "32", "FAIL": "31", "NOT TRUSTWORTHY": "33", "critical": "31", "high": "31",
    "medium": "33", "low": "36", "info": "36",
    "waived": "35", "leak": "31", "not covered": "33", "held": "32", "proven": "32",
}  # fmt: skip
_MOST_ROWS = 40
_MOST_PASSING = 16
_MOST_LEAKS = 20
_MOST_REASONS = 8


def summary(report: Report, width: int = 80, color: bool = False, paths: Sequence[str] = ()) -> str:
    """Verdict, tallies, leaks, findings, coverage, properties; no line wider than ``width`` (at least 72).

    ``paths`` are the files that were written, named at the end.
    """
    width = max(width, 72)
    paint = _paint if color else _plain
    base = visible(f"{posixpath.dirname(paths[0])}/") if paths and "/" in paths[0] else ""
    blocks = [
        _head(report, width, paint),
        *(_leak(finding, width, paint, base) for finding in _leaks(report)[:_MOST_LEAKS]),
        _more(len(_leaks(report)) - _MOST_LEAKS, "leak"),
        _findings(report, width),
        _coverage(report, width),
        _functions(report, width),
        _gaps(report.cells, width),
        _properties(report, width, paint),
        listed("Waivers", [_waiver(one) for one in report.waivers], width),
        _baseline(report.baseline, width),
        listed(f"Exit code {report.exit_code}", report.reasons, width)
        if report.reasons
        else f"Exit code {report.exit_code}",
        listed("Reports", paths, width),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


Paint = Callable[[str, str], str]


def _plain(text: str, _name: str) -> str:
    return text


def _paint(text: str, name: str) -> str:
    return f"\x1b[1;{_COLOUR[name]}m{text}\x1b[0m" if name in _COLOUR else text


def _head(report: Report, width: int, paint: Paint) -> str:
    word = _VERDICT[report.verdict]
    indent = " " * (len(word) + 2)
    text = wrap(report.sentence, width, indent)[len(indent) :]
    counts = tally(report.cells)
    states = " · ".join(f"{state} {counts[state]:,}" for state in STATES if counts[state]) or "none was tested"
    server = report.provenance.server_version or report.provenance.scratch_version
    done = f"{count(report.statements, 'statement')}, {count(report.tenants, 'tenant')}"
    tried = f"{done}, {report.timing.seconds:.1f} s"
    matched = (
        "" if len(report.population) == report.population_counted else f", but {report.population_counted:,} counted"
    )
    facts = [
        ("cells", states),
        ("relations", f"{len(report.population):,} in the catalog{matched}"),
        ("tried", f"{tried}, PostgreSQL {server}"),
    ]
    return "\n".join([f"{paint(word, word)}  {text}", *(wrap(v, width, " " * 11, f"{k:<11}") for k, v in facts)])


def _leaks(report: Report) -> list[Finding]:
    return [f for f in by_severity(report.findings) if f.source != "check" and f.status == "open"]


def _leak(finding: Finding, width: int, paint: Paint, base: str) -> str:
    """``critical[PROBE-READ] public.invoices: SELECT as app_user``, then what happened, and the fix."""
    label = f"{finding.severity}[{visible(finding.check)}]"
    doing = (
        f"{finding.command} as {finding.role}" if finding.command and finding.role else finding.command or finding.role
    )
    tail = f": {shorten(visible(doing or finding.title), 34)}"
    place = shorten(visible(finding.object), max(width - len(label) - display_width(tail) - 1, 12))
    rows = [f"{paint(label, finding.severity)} {place}{tail}"]
    rows += [wrap(f"--> {finding.file}:{finding.line}", width, "  ")] if finding.file else []
    rows.append(wrap(finding.message, width, "  "))
    if finding.fix:
        fix = lines(finding.fix).strip().replace("\t", "  ").split("\n")
        rows += [f"  {'fix: ' if n == 0 else '     '}{shorten(line, width - 7)}" for n, line in enumerate(fix[:4])]
        rows += ["       …"] if len(fix) > 4 else []
    shown = "printed LEAK in psql" if finding.confirmed else "not confirmed"
    script = f"  replay ({shown}): rlsaudit replay {base}replay/{finding.id or finding.fingerprint}.sql"
    return "\n".join([*rows, *([script] if finding.replay else [])])


def _more(number: int, noun: str) -> str:
    return f"… and {count(number, f'more {noun}')}: see the reports" if number > 0 else ""


def _findings(report: Report, width: int) -> str:
    found = [f for f in by_severity(report.findings) if f.source == "check" or f.status == "waived"]
    if not found:
        return ""
    marked = [("waived" if f.status == "waived" else f.severity, f) for f in found[:_MOST_ROWS]]
    # tabulate makes a column at least two wider than its heading, and puts two blanks between columns.
    check = max(7, *(len(visible(f.check)) for _, f in marked))
    room = width - 10 - check - 6
    place = min(max(display_width(visible(f.object)) for _, f in marked), room * 9 // 20)
    rows = [
        (mark, visible(f.check), shorten(visible(f.object), place), wrap(f.title, room - place)) for mark, f in marked
    ]
    table = tabulate(rows, ("severity", "check", "object", "what"), tablefmt="plain", disable_numparse=True)
    title = "Other findings" if _leaks(report) else "Findings"
    return "\n".join(part for part in (title, table, _more(len(found) - _MOST_ROWS, "finding")) if part)


def _state(cell: Cell | None) -> str:
    if cell is None:
        return "?"
    if cell.state == "held":
        return f"held {cell.trials}" if cell.trials < 1000 else f"held {cell.trials // 1000}k"
    return {"leak": "LEAK", "not covered": "not cov.", "no privilege": "-"}.get(cell.state, cell.state)


def _coverage(report: Report, width: int) -> str:
    """Relation and role by command, the worst first; what fits no screen is a count."""
    if not report.cells:
        return "Coverage\nNo cell was tested."
    cells = [cell for cell in report.cells if not is_function(cell)]
    commands = command_order(cell.command for cell in cells)
    grid: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in cells:
        grid.setdefault((cell.relation, cell.role), {})[cell.command] = cell
    busy = {key: row for key, row in grid.items() if any(cell.state != "no privilege" for cell in row.values())}
    worst = {key: min(STATES.index(cell.state) for cell in row.values()) for key, row in busy.items()}
    keys = sorted(busy, key=lambda key: worst[key])
    room = width - sum(max(8, len(command) + 2) + 2 for command in commands) - 2
    role = min(max((display_width(visible(name)) for _, name in keys), default=4), max(room // 3, 6))
    bad = [key for key in keys if worst[key] <= STATES.index("waived")]
    shown = keys[: min(max(len(bad), _MOST_PASSING), _MOST_ROWS)]
    rows = [
        (
            shorten(visible(relation), max(room - role, 10)),
            shorten(visible(name), role),
            *(_state(busy[relation, name].get(command)) for command in commands),
        )
        for relation, name in shown
    ]
    table = tabulate(rows, ("relation", "role", *commands), tablefmt="plain", disable_numparse=True)
    tail = []
    if len(keys) > len(shown):
        left = max(len(bad) - len(shown), 0)
        what = f"{left:,} of them with a leak, a gap or a waiver" if left else "all held or proven"
        tail.append(f"… and {count(len(keys) - len(shown), 'more row')}, {what}")
    if len(grid) > len(busy):
        tail.append(f"{count(len(grid) - len(busy), 'row')} without any privilege left out")
    legend = "held n: n statements showed nothing, no proof · not cov.: not covered · -: none"
    return "\n".join(["Coverage", table, *tail, wrap(legend, width)])


def _functions(report: Report, width: int) -> str:
    """Functions that may touch tenant data, the worst first."""
    cells = sorted(filter(is_function, report.cells), key=lambda cell: STATES.index(cell.state))
    bad = sum(STATES.index(cell.state) <= STATES.index("waived") for cell in cells)
    shown = cells[: min(max(bad, _MOST_PASSING), _MOST_ROWS)]
    if not shown:
        return ""
    room = width - 14
    role = min(max(display_width(visible(cell.role)) for cell in shown), room // 3)
    rows = [
        (shorten(visible(cell.relation), max(room - role, 10)), shorten(visible(cell.role), role), _state(cell))
        for cell in shown
    ]
    own = any(not visible(cell.relation).endswith(")") for cell in cells)  # a function's name ends in its arguments
    first, heading = ("what is run", "Functions and own statements") if own else ("function", "Functions")
    table = tabulate(rows, (first, "role", "calls"), tablefmt="plain", disable_numparse=True)
    return "\n".join(filter(None, [heading, table, _more(len(cells) - len(shown), "function")]))


def _gaps(cells: Iterable[Cell], width: int) -> str:
    reasons: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.state == "not covered":
            reasons.setdefault(cell.reason or "no reason was recorded", []).append(cell)
    ranked = sorted(reasons.items(), key=lambda item: -len(item[1]))
    told = [
        f"{count(len(group), 'cell')}, {shorten(visible(group[0].relation), 30)}"
        f"{' and others' if len({cell.relation for cell in group}) > 1 else ''}: {reason}"
        for reason, group in ranked[:_MOST_REASONS]
    ]
    return "\n".join(filter(None, [listed("Not covered", told, width), _more(len(ranked) - _MOST_REASONS, "reason")]))


def _properties(report: Report, width: int, paint: Paint) -> str:
    if not report.properties:
        return "Run-level properties\nNo result was recorded."
    rows = []
    for result in report.properties:
        who = f"{result.property}{f' as {visible(result.role)}' if result.role else ''}"
        word = result.outcome.upper() if result.outcome == "leak" else result.outcome
        text = f"{count(result.trials, 'trial')}, {result.reason}" if result.trials else result.reason
        head = f"  {paint(word, result.outcome)}{' ' * (13 - len(word))}{shorten(who, 30)}: "
        plain = 2 + 13 + display_width(shorten(who, 30)) + 2
        rows.append(head + wrap(text, width, " " * 15, " " * plain)[plain:])
    return "\n".join(["Run-level properties", *rows])


def _waiver(one: WaiverEntry) -> str:
    approved = f", approved by {one.approver}" if one.approver else f" ({one.kind})"
    ends = f", until {one.expires}" if one.expires else ""
    return f"{one.status}: {one.matches}: {one.reason}{approved}{ends}"


def _baseline(one: BaselineEntry | None, width: int) -> str:
    if one is None:
        return ""
    counts = f"{one.new:,} new, {one.carried:,} carried over, {len(one.fixed):,} fixed"
    return wrap(f"Baseline of {one.started}: {counts}", width)
