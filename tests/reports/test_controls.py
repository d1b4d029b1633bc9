"""The map of controls, what a run says of each, and the same as OSCAL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any, get_args

import pytest
from oscal_bindings.v1 import OscalParseError, parse_assessment_results

from rlsaudit.check import registry
from rlsaudit.finding import Cell, Finding, Property, PropertyResult
from rlsaudit.report import Report, StandardEntry, chosen

# The modules of reports/ are found by the registry, so that nobody imports them by name.
controls = import_module("rlsaudit.reports._controls")
ASKED = (
    "SOC 2 CC6.1", "SOC 2 CC6.3", "SOC 2 CC6.6", "SOC 2 CC7.1", "SOC 2 CC8.1", "ISO 27001 A.5.15", "ISO 27001 A.8.3",
    "ISO 27001 A.8.12", "NIST 800-53 AC-3", "NIST 800-53 AC-4", "NIST 800-53 AC-6", "NIST 800-53 SC-4", "ASVS 8.4.1",
)  # fmt: skip
CLAIM = re.compile(r"(?<!not-)\b(met|satisfied|compliant|compliance|passed|effective|conforms?)\b", re.IGNORECASE)


def told(report: Report) -> dict[str, str]:
    return {one.control.name: one.conclusion for one in controls.control_results(report)}


def oscal(report: Report) -> dict[str, Any]:
    [form] = chosen(["oscal"])
    text = form.write(report)
    parse_assessment_results(text)
    return json.loads(text)["assessment-results"]


def test_everything_that_a_check_or_a_property_names_is_in_the_map() -> None:
    known = controls.control_map()
    named = {standard for check in registry() for standard in check.standards if not standard.startswith("CVE-")}
    mapped = {name for listed in known.properties.values() for name in listed}
    assert named | mapped == known.controls.keys(), "nothing is missing, and nothing is left that nobody names"
    assert set(ASKED) <= known.controls.keys()
    assert set(known.properties) == set(get_args(Property)) - {""}
    assert re.fullmatch(r"\d{4}\.\d+", known.version)


def test_words_of_the_map() -> None:
    for control in controls.control_map().controls.values():
        assert control.title and control.speaks_to.endswith("."), control.name
        assert not CLAIM.search(control.title + control.speaks_to), control.name


def test_a_clean_run_noted_no_exceptions(clean: Report) -> None:
    assert set(told(clean).values()) == {"no exceptions noted"}
    assert set(ASKED) <= told(clean).keys()


@pytest.mark.parametrize("name", sorted(set(get_args(Property)) - {"", "alive", "detector"}))
def test_a_finding_counts_for_the_controls_of_its_property(name: Property, clean: Report) -> None:
    leak = Finding("PROBE", "probe", "t", "critical", "public.notes", "m", property=name)
    results = told(replace(clean, findings=(leak,)))
    noted = {control for control, conclusion in results.items() if conclusion == "exceptions noted"}
    assert noted == set(controls.control_map().properties[name])
    waived = told(replace(clean, findings=(replace(leak, status="waived"),)))
    assert {control for control, conclusion in waived.items() if conclusion == "exception, waived"} == noted


def test_what_was_not_tested_is_not_told_as_clean(clean: Report) -> None:
    cells = (*clean.cells, Cell("public.gap", "app_user", "INSERT", "not covered"))
    results = told(replace(clean, cells=cells))
    assert results["SOC 2 CC6.1"] == results["CWE-639"] == "partly tested, no exceptions noted"
    assert results["SOC 2 CC7.1"] == "no exceptions noted", "INSERT says nothing of it"
    carryover = PropertyResult("carryover", "app_user", "not covered", 0, "x")
    assert told(replace(clean, properties=(carryover,)))["NIST 800-53 SC-4"] == "partly tested, no exceptions noted"


def test_a_leak_without_a_finding_is_an_exception(clean: Report) -> None:
    cells = (*clean.cells, Cell("public.gap", "app_user", "INSERT", "leak"))
    assert told(replace(clean, cells=cells))["CWE-639"] == "exceptions noted"


def test_nothing_is_concluded_from_a_run_without_verdict_or_a_crashed_check(clean: Report) -> None:
    assert set(told(replace(clean, verdict="not trustworthy", exit_code=3)).values()) == {"no conclusion"}
    crash = Finding("RLS002", "check", "Check crashed", "high", "check RLS002", "x")
    report = replace(clean, findings=(crash,), standards=(StandardEntry("SOC 2 CC6.7", ("RLS002",)),))
    assert told(report)["SOC 2 CC6.7"] == "no conclusion"


@pytest.mark.parametrize("name", ["rich", "clean"])
def test_oscal_is_valid_and_never_says_met(name: str, request: pytest.FixtureRequest) -> None:
    document = oscal(request.getfixturevalue(name))
    assert not [text for text in _texts(document) if CLAIM.search(text)]
    [result] = document["results"]
    titles = [observation["title"] for observation in result["observations"]]
    assert ("SOC 2 CC6.1: exceptions noted" in titles) == (name == "rich")
    assert ("SOC 2 CC6.1: no exceptions noted" in titles) == (name == "clean")
    states = {finding["target"]["status"]["state"] for finding in result.get("findings", ())}
    assert states == ({"not-satisfied"} if name == "rich" else set())


def test_the_models_of_oscal_can_say_no(rich: Report) -> None:
    for change in ({"end": "yesterday"}, {"more": 1}, {"uuid": "1"}, {"observations": []}):
        document = oscal(rich)
        document["results"][0] |= change
        with pytest.raises(OscalParseError):
            parse_assessment_results(json.dumps({"assessment-results": document}))


def test_references_of_oscal_lead_somewhere(rich: Report) -> None:
    document = oscal(rich)
    [result] = document["results"]
    observations = {one["uuid"] for one in result["observations"]}
    risks = {one["uuid"] for one in result["risks"]}
    assert document["import-ap"]["href"] == f"#{document['back-matter']['resources'][0]['uuid']}"
    for one in (*result["risks"], *result["findings"]):
        assert {each["observation-uuid"] for each in one["related-observations"]} <= observations
    for one in result["findings"]:
        assert {each["risk-uuid"] for each in one["related-risks"]} <= risks
    named = [one["uuid"] for key in ("observations", "risks", "findings") for one in result[key]]
    assert len(named) == len(set(named))
    assert [one["status"] for one in result["risks"]].count("deviation-approved") == 1
    reviewed = {
        each["control-id"]
        for one in result["reviewed-controls"]["control-selections"]
        for each in one["include-controls"]
    }
    assert {"cc6.1", "a.8.3", "ac-3", "v8.4.1"} <= reviewed and not any("cwe" in name for name in reviewed)


def test_identifiers_of_oscal_are_those_of_the_run(rich: Report) -> None:
    again, other = oscal(replace(rich)), oscal(replace(rich, statements=1))
    assert again == oscal(rich) and again["uuid"] != other["uuid"]
    assert not {one["uuid"] for one in again["results"][0]["observations"]} & {
        one["uuid"] for one in other["results"][0]["observations"]
    }


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            if key != "state":
                yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value
