"""Markdown as GitHub renders it, the population as a spreadsheet reads it, figures as Prometheus does."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from cmarkgfm import github_flavored_markdown_to_html
from cmarkgfm.cmark import Options
from prometheus_client.parser import text_string_to_metric_families

from rlsaudit.finding import Finding
from rlsaudit.report import PopulationEntry, Report, WaiverEntry, chosen

PLAIN = set("h2 h3 h4 p br ul li em strong code pre table thead tbody tr th td".split())
NASTY = (
    "a|b", "`tick` ``two``", "@octocat", "[x](https://evil.example)", "https://evil.example", "www.evil.example", "#12 GH-12",
    "**bold** _it_ ~~gone~~", "ends with \\", "ends with `", "<img src=x onerror=alert(1)>", "![x](//evil.example/p.png)",
    "me@evil.example", "/close", "\n# heading\n- item\n```", "<!-- comment", "&lt;b&gt; &copy;", "$x^2$", "~~~\n</details>",
)  # fmt: skip


def render(name: str, report: Report) -> str:
    [form] = chosen([name])
    return form.write(report)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.prose: list[str] = []
        self.code: list[str] = []
        self.rows: list[int] = []
        self.feed(github_flavored_markdown_to_html(text, options=Options.CMARK_OPT_UNSAFE))

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.open += [tag] if tag != "img" else []
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_comment(self, data: str) -> None:
        self.tags.add("comment")

    def handle_data(self, data: str) -> None:
        (self.code if "code" in self.open else self.prose).append(data)


def hostile(rich: Report, text: str) -> Report:
    """The rich report with ``text`` wherever a name or a sentence of the user's stands."""
    return replace(
        rich,
        sentence=text, reasons=(text,), limits=(text,),
        findings=tuple(
            replace(one, title=text, object=text, role=text, message=text, fix=text, file=text, line=1) for one in rich.findings
        ),
        cells=tuple(replace(one, relation=text) if one.relation == "public.documents" else one for one in rich.cells),
        waivers=tuple(replace(one, matches=text, reason=text, approver=text, ticket=text) for one in rich.waivers),
        baseline=replace(rich.baseline, fixed=(("low", text, text),)) if rich.baseline else None,
    )  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_markdown_of_a_hostile_name_is_text(text: str, rich: Report) -> None:
    page = Page(render("markdown", hostile(rich, text)))
    assert page.tags <= PLAIN
    assert not re.search(r"(@\w|#\d|GH-\d|://|www\.)", "".join(page.prose), re.IGNORECASE), (
        "a host would make a link of it"
    )
    assert set(page.rows) == {5, 7, 6}, "findings, coverage and waivers keep their columns"
    assert seen(page, text) == seen(Page(render("markdown", hostile(rich, "zqzq"))), "zqzq"), "and it reads as it is"


def seen(page: Page, text: str) -> int:
    """How often a reader sees the text, spaces and newlines aside."""
    shown = re.sub(r"[\s\u200b]|⟨U\+000A⟩", "", "".join(page.prose + page.code))
    return shown.count(re.sub(r"\s", "", text))


def test_the_renderer_is_one_that_sees_markup() -> None:
    page = Page("| a |\n|---|\n| x | y |\n\n<img src=x> [x](//y) www.evil.example")
    assert {"img", "a"} <= page.tags


def test_no_line_of_prose_begins_with_a_command(rich: Report) -> None:
    lines = render("markdown", hostile(rich, "/close")).splitlines()
    inside, bare = False, []
    for line in lines:
        inside ^= line.startswith("```")
        if not inside and line.startswith("/") and "\u200b" not in line[:2]:
            bare.append(line)
    assert not bare


def test_markdown_says_what_matters(rich: Report) -> None:
    text = render("markdown", rich)
    parts = (
        "3 of 23 relations", "### Leaks (4)", "WITH CHECK (account_id = app.current_account());", "**LEAK**", "not covered",
        "3 new, 1 carried, 2 fixed", "SEC\\-412", "**expired**", "Timing is not measured", "rlsaudit replay replay/F-2.sql",
    )  # fmt: skip
    for part in parts:
        assert part in text, part
    assert "BEGIN;" not in text


def test_carried_and_placed_findings_say_so(rich: Report) -> None:
    findings = tuple(replace(one, age="carried", file="db/1.sql", line=4) for one in rich.findings)
    text = render("markdown", replace(rich, findings=findings))
    assert "critical · carried" in text and "high (carried)" in text and text.count("`db/1.sql:4`") == 7


def many(clean: Report, number: int) -> Report:
    def one(n: int) -> Finding:
        return Finding(
            id=f"F-{n}", check="PROBE-READ" if n % 2 else "RLS001", source="probe" if n % 2 else "check", title="t" * 50,
            severity="critical", object=f"public.table_{n}", relation=f"public.table_{n}", message="ü" * 300, fix="x " * 400,
        )  # fmt: skip

    waivers = tuple(WaiverEntry("waiver", "stale", f"RLS001 on public.t{n}", "r" * 100) for n in range(number))
    return replace(
        clean, findings=tuple(map(one, range(number))), waivers=waivers, reasons=("why " * 50,) * number, limits=("l" * 100,) * number
    )  # fmt: skip


def test_markdown_fits_a_comment_and_counts_what_it_leaves_out(large: Report) -> None:
    """GitHub drops a summary over 1 MiB without a word, and refuses a comment over 65,536 characters."""
    text = render("markdown", many(large, 3000))
    assert 40_000 < len(text.encode()) < 65_536
    for noun, head, total in (("leaks", "####", 1500), ("rows", "| `s", 20_000), ("waivers", "| **stale**", 3000)):
        left = re.search(rf"\*([\d,]+) of {total:,} {noun} left out here", text)
        assert left, noun
        shown = sum(line.startswith(head) for line in text.splitlines())
        assert shown and int(left[1].replace(",", "")) + shown == total


def test_one_endless_fix_costs_only_itself(rich: Report) -> None:
    first, *others = rich.findings
    text = render("markdown", replace(rich, findings=(replace(first, fix="x" * 2_000_000), *others)))
    assert len(text.encode()) < 65_536 and "*1 of 4 leaks left out here" in text and "documents_upd" in text


def table(report: Report) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render("csv", report)), strict=True))


def test_the_population_has_a_row_for_every_relation(rich: Report) -> None:
    rows = table(rich)
    assert len(rows) == len(rich.population)
    row = next(row for row in rows if row["relation"] == "public.documents")
    assert (row["class"], row["why"], row["owner"], row["outcome"]) == (
        "tenant",
        "column account_id",
        "owner_app",
        "leak",
    )
    assert (row["app_user SELECT"], row["app_user INSERT"], row["app_user UPDATE"]) == ("proven", "held 48", "leak")
    assert row["support_agent SELECT"] == "no privilege"
    gap = next(row for row in rows if row["relation"] == "ops.job_queue")
    assert gap["not covered because"] == "no tenant key found, so no row can be told to be foreign"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", '"=', " =", "＝", "＋", "－", "＠", "\t=", "\r="])
def test_no_cell_of_the_spreadsheet_calculates(start: str, clean: Report) -> None:
    name = f"{start}cmd|' /C calc'!A1"
    entry = PopulationEntry(name, "table", "tenant", name, name, "isolated")
    cells = tuple(replace(cell, relation=name, role=name) for cell in clean.cells)
    rows = list(csv.reader(io.StringIO(render("csv", replace(clean, population=(entry,), cells=cells)))))
    assert len(rows) == 2
    for value in (*rows[0], *rows[1]):
        assert value.lstrip("\"' ")[:1] not in set("=+-@＝＋－＠") or value.startswith("'"), value
    assert rows[1][0].replace("⟨U+0009⟩", "\t").replace("⟨U+000D⟩", "\r").lstrip("'") == name.lstrip("'")


def samples(report: Report) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    told: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(render("prometheus", report)):
        assert family.documentation and family.type == "gauge"
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in told
            told[key] = sample.value
    return told


def test_figures(rich: Report) -> None:
    told = samples(rich)
    assert told["rlsaudit_exit_code", ()] == 1
    assert told["rlsaudit_run_timestamp_seconds", ()] == datetime(2026, 11, 21, 2, 0, 7, tzinfo=UTC).timestamp()
    assert told["rlsaudit_run_duration_seconds", ()] == 24.13
    assert told["rlsaudit_findings", (("severity", "critical"), ("status", "open"))] == 4
    assert told["rlsaudit_findings", (("severity", "high"), ("status", "waived"))] == 1
    assert told["rlsaudit_cells", (("state", "leak"),)] == 4
    assert sum(value for (name, _), value in told.items() if name == "rlsaudit_cells") == len(rich.cells)
    assert sum(value for (name, _), value in told.items() if name == "rlsaudit_relations") == len(rich.population)
    assert sum(value for (name, _), value in told.items() if name == "rlsaudit_findings") == len(rich.findings)
    end = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert told["rlsaudit_waiver_expiry_timestamp_seconds", (("waiver", "RLS201 on role support_agent"),)] == end


def test_series_are_there_when_there_is_nothing(rich: Report, clean: Report) -> None:
    def names(report: Report) -> set[object]:
        return {key for key in samples(report) if "waiver" not in key[0] and "build" not in key[0]}

    assert names(rich) == names(clean)


def test_carried_findings_are_a_series_of_their_own(rich: Report) -> None:
    findings = tuple(replace(one, age="carried") for one in rich.findings)
    told = samples(replace(rich, findings=findings))
    assert told["rlsaudit_findings", (("severity", "critical"), ("status", "carried"))] == 4
    assert told["rlsaudit_findings", (("severity", "critical"), ("status", "open"))] == 0


@pytest.mark.parametrize("name", ['quote"', "back\\slash", "line\nbreak", '"} 9\nrlsaudit_exit_code 0', "{}=,"])
def test_labels_hold_any_name(name: str, clean: Report) -> None:
    waivers = (WaiverEntry("waiver", "in force", name, "r", expires="2026-12-01"),) * 2
    told = samples(replace(clean, waivers=waivers, exit_code=1))
    wanted = (("waiver", name.replace("\n", "⟨U+000A⟩")),)
    assert ("rlsaudit_waiver_expiry_timestamp_seconds", wanted) in told
    assert told["rlsaudit_exit_code", ()] == 1
