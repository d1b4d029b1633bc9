from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import pytest

from rlsaudit.finding import Cell
from rlsaudit.report import Report, WaiverEntry

summary: Callable[..., str] = importlib.import_module("rlsaudit.reports.terminal").summary
text_tools: ModuleType = importlib.import_module("rlsaudit.reports._text")


@pytest.fixture(params=["rich", "clean"])
def report(request: pytest.FixtureRequest) -> Report:
    made: Report = request.getfixturevalue(request.param)
    return made


def test_golden(report: Report, golden: Callable[[str, str], None], request: pytest.FixtureRequest) -> None:
    golden(
        f"{request.node.callspec.params['report']}.txt",
        summary(report, paths=("rlsaudit-report/report.html",)),
    )


@pytest.mark.parametrize("width", [72, 80, 120, 200])
def test_no_line_is_wider_than_asked(report: Report, width: int) -> None:
    for line in summary(report, width).split("\n"):
        assert text_tools.display_width(line) <= width, line


def test_a_terminal_obeys_nothing_in_it(rich: Report) -> None:
    bad = "\x1b]0;owned\x07\u202e\n"
    findings = tuple(replace(f, object=bad, check=bad, role=bad, command=bad, fix=bad) for f in rich.findings)
    hostile = replace(
        rich,
        findings=(*rich.findings, *findings),
        sentence=bad,
        reasons=(bad,),
        waivers=(WaiverEntry("waiver", "stale", bad, bad, bad, bad, bad, bad),),
    )
    text = summary(hostile, paths=(f"out{bad}/report.html",))
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "⟨U+202E⟩" in text or "⟨U+001B⟩" in text


def test_colour_adds_nothing_but_colour(report: Report) -> None:
    coloured = summary(report, color=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == summary(report)


def test_leaks_have_the_shape_of_a_linter(rich: Report) -> None:
    text = summary(rich)
    assert "critical[PROBE-READ] reporting.v_invoice_totals: SELECT as app_user\n" in text
    assert "  fix: ALTER VIEW reporting.v_invoice_totals SET (security_invoker = true);\n" in text
    assert "replay (not confirmed): rlsaudit replay replay/F-3.sql" in text


def test_worst_rows_come_first_and_the_rest_is_counted(large: Report) -> None:
    bad = Cell("z.last", "app", "DELETE", "not covered", 0, "cannot be seeded")
    text = summary(replace(large, cells=(*large.cells, bad)))
    assert text.index("z.last") < text.index("s00.table_00000")
    assert "more rows, all held or proven" in text and len(text.split("\n")) < 60
    assert "1 cell, z.last: cannot be seeded" in text


def test_untrustworthy_and_unreconciled_runs_say_so(clean: Report) -> None:
    text = summary(
        replace(
            clean,
            verdict="not trustworthy",
            exit_code=3,
            population_counted=3,
            reasons=("No leak was planted.",),
        )
    )
    assert text.startswith("NOT TRUSTWORTHY  ") and "but 3 counted" in text
    assert "Exit code 3\n  - No leak was planted." in text


def test_a_run_without_results_says_so(clean: Report) -> None:
    text = summary(replace(clean, cells=(), properties=()))
    assert "No cell was tested." in text and "No result was recorded." in text


@pytest.mark.parametrize(
    ("name", "limit", "short"),
    [
        ("public.invoices", 20, "public.invoices"),
        ("abcdefghij", 5, "ab…ij"),
        ("日本語テーブル", 7, "日…ブル"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
    ],
)
def test_long_names_lose_their_middle(name: str, limit: int, short: str) -> None:
    assert text_tools.shorten(name, limit) == short
    assert text_tools.display_width(short) <= max(limit, 0)


def test_schema_of_minds_quotes() -> None:
    assert text_tools.schema_of("public.t") == ("public", "t")
    assert text_tools.schema_of('"a.""b".c') == ('"a.""b"', "c")
    assert text_tools.schema_of("alone") == ("", "alone")
