"""``summary.md``: the run for a job summary or the comment on a pull request.

GitHub refuses a comment of more than 65,536 characters and drops a job summary of more than 1 MiB without a word, so
each part has room for so much and says how much it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rlsaudit.finding import Cell, Finding
from rlsaudit.report import Report, WaiverEntry, format_

from ._markdown import block, code, prose, row
from ._text import STATES, by_severity, command_order, count, shorten, tally

_GLYPHS = {"clean": "✅", "exceptions": "❌", "not trustworthy": "⚠️"}
_ROOM = {
    "reasons": 4_000,
    "leaks": 24_000,
    "findings": 12_000,
    "fixed": 4_000,
    "rows": 12_000,
    "waivers": 4_000,
    "limits": 3_000,
}
"""Bytes for each part; with the headings less than 65,536."""


@format_("markdown", filename="summary.md", description="Markdown, for job summaries and pull-request comments")
def markdown(report: Report) -> str:
    standing = [finding for finding in report.findings if finding.status == "open"]
    leaks = [finding for finding in standing if finding.source == "probe"]
    others = [finding for finding in standing if finding.source != "probe"]
    parts = [
        f"## {_GLYPHS[report.verdict]} rlsaudit: {prose(shorten(report.sentence, 300))}",
        _fitting([f"- {prose(reason)}" for reason in report.reasons], "reasons"),
        _figures(report),
        _part(f"Leaks ({len(leaks)})", map(_leak, by_severity(leaks)), "leaks"),
        _part(
            f"Other findings ({len(others)})", map(_finding, by_severity(others)), "findings",
            head=("severity", "check", "object", "what", "place"),
        ),
        _baseline(report),
        _coverage(report),
        _part(
            f"Waivers ({len(report.waivers)})", map(_waiver, report.waivers), "waivers",
            head=("status", "for", "reason", "approved by", "until", "ticket"),
        ),
        _part("Limits", (f"- {prose(limit)}" for limit in report.limits), "limits"),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _part(title: str, rows: Iterable[str], noun: str, head: Sequence[str] = ()) -> str:
    """A heading and as many rows as there is room for; nothing when there are none."""
    listed = list(rows)
    if not listed:
        return ""
    table = [row(*head), row(*("---" for _ in head))] if head else []
    return "\n".join([f"### {title}", "", *table, _fitting(listed, noun)])


def _fitting(rows: Sequence[str], noun: str) -> str:
    kept, room = [], _ROOM[noun]
    for one in rows:
        size = len(one.encode()) + 1
        if size <= room:
            kept.append(one)
            room -= size
    if left := len(rows) - len(kept):
        kept.append(f"\n*{left:,} of {len(rows):,} {noun} left out here; the report and evidence.json have them all.*")
    return "\n".join(kept)


def _figures(report: Report) -> str:
    cells = " · ".join(f"{state} {number:,}" for state, number in tally(report.cells).items() if number)
    tried = f"{count(report.statements, 'statement')}, {count(report.tenants, 'tenant')}"
    run = report.provenance
    return (
        f"**Cells** {cells or 'none'}  \n**Relations** {len(report.population):,}  \n**Tried** {tried}, "
        f"PostgreSQL {prose(run.server_version)}, rlsaudit {prose(run.tool_version)}, exit code {report.exit_code}"
    )


def _where(finding: Finding) -> str:
    as_role = f" as {code(finding.role)}" if finding.role else ""
    return f"{code(finding.object)}{f' {prose(finding.command)}' if finding.command else ''}{as_role}"


def _leak(finding: Finding) -> str:
    age = f" · {finding.age}" if finding.age else ""
    lines = [
        f"#### {prose(finding.severity)}{age} · {prose(finding.title)}",
        "",
        _where(finding),
        "",
        prose(finding.message),
    ]
    if finding.file:
        lines += ["", f"Defined at {code(f'{finding.file}:{finding.line}')}"]
    if finding.fix:
        lines += ["", "Fix:", "", block(finding.fix)]
    if finding.replay:
        lines += ["", f"Replay: {code(f'rlsaudit replay replay/{finding.id}.sql')}"]
    return "\n".join([*lines, ""])


def _finding(finding: Finding) -> str:
    age = f" ({finding.age})" if finding.age else ""
    place = code(f"{finding.file}:{finding.line}", cell=True) if finding.file else ""
    return row(
        f"{finding.severity}{age}", prose(finding.check), code(finding.object, cell=True), prose(finding.title), place
    )


def _baseline(report: Report) -> str:
    if report.baseline is None:
        return ""
    one = report.baseline
    title = f"Against the baseline: {one.new} new, {one.carried} carried, {len(one.fixed)} fixed"
    fixed = [f"- fixed: {prose(severity)}, {prose(what)}, {code(place)}" for severity, what, place in one.fixed]
    since = f"Baseline of {prose(one.started)}: what is carried still stands open."
    return "\n".join([f"### {title}", "", since, "", _fitting(fixed, "fixed")]).rstrip()


def _coverage(report: Report) -> str:
    """A row for each relation and role with something to test, those in the worst state first."""
    tested = [cell for cell in report.cells if cell.state != "no privilege"]
    commands = command_order(cell.command for cell in tested)
    groups = [list(group) for _, group in groupby(tested, key=lambda cell: (cell.relation, cell.role))]
    groups.sort(key=lambda cells: min(STATES.index(cell.state) for cell in cells))
    rows = [
        row(
            code(cells[0].relation, cell=True), code(cells[0].role, cell=True),
            *(_state({cell.command: cell for cell in cells}.get(command)) for command in commands),
        )
        for cells in groups
    ]  # fmt: skip
    return _part("Coverage", rows, "rows", head=("relation", "role", *map(prose, commands)))


def _state(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    word = "**LEAK**" if cell.state == "leak" else f"held {cell.trials}" if cell.state == "held" else cell.state
    return f"{word} ({cell.age})" if cell.age else word


def _waiver(waiver: WaiverEntry) -> str:
    status = waiver.status if waiver.status == "in force" else f"**{waiver.status}**"
    facts = (waiver.reason, waiver.approver, waiver.expires or "no end", waiver.ticket)
    return row(status, code(waiver.matches, cell=True), *map(prose, facts))
