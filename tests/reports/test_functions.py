"""Functions have cells too: they stand apart from the matrix of relations, and none is lost."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

from rlsaudit.finding import Finding
from rlsaudit.report import Report, formats, terminal_summary

LEAK = Finding(
    check="PROBE-READ", source="probe", title="A tenant can read another tenant's rows", severity="critical",
    object="app.search(text)", message="Calling app.search(text) returned it.", property="read",
    relation="public.invoices", command="EXECUTE", role="app_user", confirmed=True, replay="-- script", id="F-1",
)  # fmt: skip


@pytest.fixture
def with_functions(clean: Report, sample: ModuleType) -> Report:
    return replace(
        clean, verdict="exceptions", exit_code=1, cells=(*clean.cells, *sample.function_cells()), findings=(LEAK,)
    )


def test_terminal_lists_functions_the_worst_first(with_functions: Report, clean: Report) -> None:
    text = terminal_summary(with_functions, 100, False, ())
    coverage, _, functions = text.partition("\nFunctions\n")
    assert "EXECUTE" not in coverage.partition("\nCoverage\n")[2]
    rows = functions.split("\n\n")[0].splitlines()
    assert [row.split()[-1] for row in rows[1:3]] == ["LEAK", "cov."]
    assert len(rows) == 1 + 4
    assert "Functions\n" not in terminal_summary(clean, 100, False, ())


def test_page_has_a_table_of_functions_and_four_columns_for_relations(with_functions: Report, clean: Report) -> None:
    page = formats()["html"].write(with_functions)
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert "EXECUTE" not in data["commands"]
    table = page.partition('aria-label="Functions that may touch tenant data, and own statements"')[2].partition(
        "</table>"
    )[0]
    assert table.count("<tr>") == 1 + 4
    assert table.index("app.search(text)") < table.index("app.account_total(bigint)")
    assert '<a href="#F-1">F-1</a>' in table
    assert "<b>" not in table
    assert "Functions that may" not in formats()["html"].write(clean)


def test_junit_has_a_suite_for_each_function_and_the_leak_in_it(with_functions: Report) -> None:
    suites = ET.fromstring(formats()["junit"].write(with_functions))
    found = {suite.get("name"): suite for suite in suites if suite.get("name", "").startswith("app.")}
    case = found["app.search(text)"].find("testcase")
    assert case is not None
    failure = case.find("failure")
    assert failure is not None
    assert "F-1 critical[PROBE-READ]" in (failure.text or "")
    assert found["app.close_account(uuid, text)"].get("errors") == "1"
