"""Waivers and baselines in whole runs: the exit code, and that nothing is hidden."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml

from tests.cli.conftest import Run

WAIVER = """
[[waiver]]
rule = "{rule}"
object = "*"
reason = "all read the board"
approver = "security lead"
approved_on = {approved}
expires = {expires}
accept_risk = {risk}
"""


def _waivers(directory: Path, *rules: str, days: int = 9, risk: bool = True) -> None:
    today = datetime.now(UTC).date()
    text = [
        WAIVER.format(
            rule=rule, approved=today - timedelta(30), expires=today + timedelta(days), risk=str(risk).lower()
        )
        for rule in rules
    ]
    (directory / "rlsaudit-waivers.toml").write_text("".join(text))


def _evidence(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / "rlsaudit-report" / "evidence.json").read_text())
    return document


def _red(directory: Path) -> int:
    report = JUnitXml.fromfile(str(directory / "rlsaudit-report" / "TEST-rlsaudit.xml"))
    return int(report.failures) + int(report.errors)


@pytest.fixture
def scanned(rlsaudit: Run, leaky: Path, tmp_path: Path) -> dict[str, Any]:
    """A run with a leak in it, and the rules of its findings."""
    assert rlsaudit("scan", leaky, "--budget", "1").code == 1
    return _evidence(tmp_path)


@pytest.mark.nightly
def test_a_leak_is_waived_until_the_day_it_ends(rlsaudit, leaky, tmp_path, scanned) -> None:
    rules = {finding["check"] for finding in scanned["findings"]}
    _waivers(tmp_path, *rules)
    ran = rlsaudit("scan", leaky, "--budget", "1")
    evidence = _evidence(tmp_path)
    assert (ran.code, evidence["verdict"], _red(tmp_path)) == (0, "clean", 0), evidence["reasons"]
    assert "waived" in evidence["sentence"]
    assert {finding["status"] for finding in evidence["findings"]} == {"waived"}
    assert {cell["state"] for cell in evidence["cells"]} >= {"waived"}
    assert "leak" not in {cell["state"] for cell in evidence["cells"]}
    assert "in force" in ran.output and "security lead" in ran.output

    _waivers(tmp_path, *rules, days=-1)
    ran = rlsaudit("scan", leaky, "--budget", "1")
    assert ran.code == 1 and "ended on" in " ".join(ran.output.split())
    assert {finding["status"] for finding in _evidence(tmp_path)["findings"]} == {"open"}

    _waivers(tmp_path, *rules, risk=False)
    ran = rlsaudit("scan", leaky, "--budget", "1")
    assert ran.code == 1 and "accept_risk = true" in " ".join(ran.output.split()) + str(_evidence(tmp_path)["notes"])


def test_what_a_baseline_has_does_not_fail_and_what_is_new_does(rlsaudit, leaky, tmp_path, scanned) -> None:
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps(scanned))
    ran = rlsaudit("scan", leaky, "--budget", "1", "--baseline", baseline)
    evidence = _evidence(tmp_path)
    assert (ran.code, evidence["verdict"], _red(tmp_path)) == (0, "exceptions", 0), evidence["reasons"]
    assert {finding["age"] for finding in evidence["findings"]} == {"carried"}
    assert {finding["status"] for finding in evidence["findings"]} == {"open"}, "a baseline is not a waiver"

    text = leaky.read_text()
    leaky.write_text(text + "GRANT TRUNCATE ON notes TO c_app;\n")
    ran = rlsaudit("scan", leaky, "--budget", "1", "--baseline", baseline)
    assert ran.code == 1 and _red(tmp_path)
    assert "TRUNCATE" in {f["command"] for f in _evidence(tmp_path)["findings"] if f["age"] == "new"}

    leaky.write_text(text.replace("CREATE POLICY everyone", "-- CREATE POLICY everyone"))
    ran = rlsaudit("scan", leaky, "--budget", "1", "--baseline", baseline)
    assert (ran.code, _evidence(tmp_path)["verdict"]) == (0, "clean")
    assert _evidence(tmp_path)["baseline"]["fixed"]


def test_findings_name_the_line_that_made_them(scanned, leaky) -> None:
    (line,) = [
        number
        for number, text in enumerate(leaky.read_text().splitlines(), 1)
        if text.startswith("CREATE POLICY everyone")
    ]
    places = {(f["object"], f["file"], f["line"]) for f in scanned["findings"] if f["source"] == "check"}
    assert ("policy everyone on public.notes", leaky.name, line) in places, places
