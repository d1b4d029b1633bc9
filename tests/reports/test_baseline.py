"""Against an earlier run: new, carried over, fixed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlsaudit import __version__
from rlsaudit.baseline import Baseline, compare, load
from rlsaudit.errors import UsageError
from rlsaudit.evidence import dump
from rlsaudit.finding import Cell, Finding
from rlsaudit.report import Report

OLD = Finding("RLS202", "check", "No FORCE", "high", "role owner", "on public.a", id="F-1")
LEAK = Finding("PROBE-READ", "probe", "A leak", "critical", "public.notes", "crosses", id="F-2")


def before(report: Report, *findings: Finding) -> Baseline:
    provenance = replace(report.provenance, tool_version=__version__)
    return Baseline("b.json", "00", replace(report, findings=findings, provenance=provenance))


def test_new_carried_and_fixed(clean: Report) -> None:
    findings, entry = compare([LEAK], before(clean, OLD, LEAK), probed=True)
    assert [finding.age for finding in findings] == ["carried"]
    assert entry is not None and (entry.new, entry.carried) == (0, 1)
    assert entry.fixed == (("high", "No FORCE", "role owner"),)
    findings, entry = compare([LEAK, OLD], before(clean, OLD), probed=True)
    assert [finding.age for finding in findings] == ["new", "carried"]
    assert entry is not None and (entry.new, entry.carried, entry.fixed) == (1, 1, ())


@pytest.mark.parametrize(
    "now",
    [
        replace(OLD, severity="critical"),
        replace(OLD, message="on public.a and public.b"),
        replace(LEAK, confirmed=True),
    ],
)
def test_what_has_got_worse_is_new(clean: Report, now: Finding) -> None:
    (aged,), _ = compare([now], before(clean, OLD, LEAK), probed=True)
    assert aged.age == "new"


def test_what_was_waived_then_and_is_not_now_is_new(clean: Report) -> None:
    (aged,), _ = compare([OLD], before(clean, replace(OLD, status="waived")), probed=True)
    assert aged.age == "new"


def test_without_a_baseline_nothing_has_an_age() -> None:
    assert compare([OLD], None, probed=True) == ((OLD,), None)


def test_the_file_is_read_with_its_hash(clean: Report, tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_text(dump(clean))
    found = load(file)
    assert found is not None and found.report == clean and len(found.sha256) == 64


def test_a_run_without_a_verdict_is_no_baseline(clean: Report, tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_text(dump(replace(clean, verdict="not trustworthy", exit_code=3)))
    with pytest.raises(UsageError, match="gave no verdict"):
        load(file)
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.json")


def test_a_run_that_executed_nothing_shows_no_leak_fixed(clean: Report) -> None:
    _, entry = compare([OLD], before(clean, OLD, LEAK), probed=False)
    assert entry is not None and entry.fixed == ()


def test_a_leak_by_another_role_or_command_is_new(clean: Report) -> None:
    told = replace(LEAK, command="UPDATE", role="app")
    for wider in (replace(told, roles=("app", "reader")), replace(told, commands=("UPDATE", "DELETE"))):
        (aged,), entry = compare([wider], before(clean, told), probed=True)
        assert aged.age == "new"
        assert entry is not None and entry.fixed == (), "it has grown, not gone"


def test_an_audit_knows_of_no_gaps(clean: Report) -> None:
    gap = Cell("public.notes", "app", "SELECT", "not covered")
    tested = replace(before(clean).report, cells=(gap,))
    assert Baseline("b", "0", tested).gaps == {("public.notes", "app", "SELECT")}
    assert Baseline("b", "0", replace(tested, statements=0)).gaps == frozenset()
