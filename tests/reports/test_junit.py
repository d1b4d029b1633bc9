from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from junitparser import JUnitXml

from rlsaudit.finding import Finding
from rlsaudit.report import Report, chosen

SCHEMA = Path(__file__).parent / "junit-strict.xsd"


def render(report: Report) -> str:
    [form] = chosen(["junit"])
    return form.write(report)


def cases(report: Report) -> dict[tuple[str, str], ET.Element]:
    return {(c.attrib["classname"], c.attrib["name"]): c for c in ET.fromstring(render(report)).iter("testcase")}


@pytest.fixture(params=["rich", "clean"])
def report(request: pytest.FixtureRequest) -> Report:
    made: Report = request.getfixturevalue(request.param)
    return made


def test_golden(report: Report, golden: Callable[[str, str], None], request: pytest.FixtureRequest) -> None:
    golden(f"{request.node.callspec.params['report']}.xml", render(report))


def test_form_is_the_strict_one_of_jenkins(report: Report) -> None:
    xmlschema.XMLSchema(SCHEMA).validate(render(report))


@pytest.mark.parametrize(
    "suite",
    [
        '<testsuite tests="1" failures="0" errors="0"/>',
        '<testsuite name="a" tests="1" failures="0" errors="0" time="1e-05"/>',
        '<testsuite name="a" tests="1" failures="0" errors="0"><testcase name="b" file="c"/></testsuite>',
        '<testsuite name="a" tests="1" failures="0" errors="0"><testcase name="b"><properties/></testcase></testsuite>',
    ],
)
def test_the_schema_can_say_no(suite: str) -> None:
    assert not xmlschema.XMLSchema(SCHEMA).is_valid(f"<testsuites>{suite}</testsuites>")
    good = '<testsuite name="a" tests="1" failures="0" errors="0" time="0.001"><testcase name="b"/></testsuite>'
    assert xmlschema.XMLSchema(SCHEMA).is_valid(f"<testsuites>{good}</testsuites>")


def test_counts_are_those_a_parser_makes(report: Report) -> None:
    text = render(report)
    read = JUnitXml.fromstring(text.encode())
    told = {key: int(ET.fromstring(text).attrib[key]) for key in ("tests", "failures", "errors")}
    read.update_statistics()
    assert told == {"tests": read.tests, "failures": read.failures, "errors": read.errors}


def test_no_two_cases_share_a_name(report: Report) -> None:
    """GitLab drops the second without a word."""
    names = Counter((c.attrib["classname"], c.attrib["name"]) for c in ET.fromstring(render(report)).iter("testcase"))
    assert max(names.values()) == 1


def test_a_leak_tells_all_in_the_element_text(rich: Report) -> None:
    failure = cases(rich)["public.documents", "UPDATE as app_user [write]"].find("failure")
    assert failure is not None and failure.text
    for part in (
        "F-2 critical[PROBE-FORGE]",
        "set account_id of its own document",
        "WITH CHECK (account_id",
        "rlsaudit replay",
        "BEGIN;",
    ):
        assert part in failure.text


def test_states_have_kinds(rich: Report) -> None:
    told = cases(rich)
    kinds = {key: [child.tag for child in case] for key, case in told.items()}
    assert kinds["ops.job_queue", "SELECT as app_user [read]"] == ["error"]
    assert kinds["public.webhook_deliveries", "SELECT as support_agent [read]"] == ["skipped"]
    assert kinds["public.accounts", "INSERT as app_user [forge]"] == ["system-out"]
    assert kinds["public.accounts", "commands without privilege"] == ["system-out"]
    assert kinds["RLS301", "reporting.v_invoice_totals SELECT"] == ["failure"]
    assert kinds["RLS201", "role support_agent"] == ["skipped"]
    assert kinds["RLS104", "policy p on public.projects of public.projects"] == ["system-out"], "info is below medium"
    assert kinds["RLS002", "no finding"] == [], "checks that found nothing are in it"
    assert kinds["isolation contract", "carryover as support_agent [carryover]"] == ["error"]


def test_held_and_proven_read_differently(rich: Report) -> None:
    told = cases(rich)
    assert (told["public.accounts", "INSERT as app_user [forge]"].findtext("system-out") or "").startswith(
        "held, 48 statements"
    )
    assert (told["public.accounts", "SELECT as app_user [read]"].findtext("system-out") or "").startswith(
        "proven, 12 statements"
    )


def test_every_finding_is_somewhere(rich: Report) -> None:
    loose = Finding(
        id="F-9", check="PROVE", source="prove", title="t", severity="high", object="public.gone", message="m"
    )
    text = render(replace(rich, findings=(*rich.findings, loose)))
    for finding in (*rich.findings, loose):
        assert finding.fingerprint in text, finding.id


@pytest.mark.parametrize(("code", "kind"), [(0, []), (1, ["failure"]), (2, ["error"]), (3, ["error"])])
def test_the_file_is_red_exactly_when_the_exit_code_is_not_zero(clean: Report, code: int, kind: list[str]) -> None:
    told = cases(replace(clean, exit_code=code))
    red = [child.tag for case in told.values() for child in case if child.tag in ("failure", "error")]
    assert red == kind


def test_names_do_not_change_with_outcomes(rich: Report) -> None:
    quiet = replace(rich, cells=tuple(replace(c, state="held") if c.state == "leak" else c for c in rich.cells))
    assert {key for key in cases(rich) if "." in key[0]} == {key for key in cases(quiet) if "." in key[0]}


def test_illegal_characters_are_spelled_out(rich: Report) -> None:
    text = render(rich)
    assert all(c.isprintable() or c in "\n\t" for c in text)
    assert "⟨U+0000⟩" in text and "⟨U+D800⟩" in text


@pytest.mark.parametrize("exit_code", [0, 1])
def test_it_is_red_exactly_when_the_run_fails(rich: Report, exit_code: int) -> None:
    """A baseline, an audit or a lax threshold may let leaks and gaps stand that fail nothing."""
    [form] = chosen(["junit"])
    root = ET.fromstring(form.write(replace(rich, exit_code=exit_code, fail_on="critical", findings=())))
    assert bool(int(root.get("failures", "0")) + int(root.get("errors", "0"))) is bool(exit_code)
