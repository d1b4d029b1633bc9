"""Approved exceptions: what they cover, when they end, and what no waiver hides."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from rlsaudit.errors import UsageError
from rlsaudit.finding import Finding
from rlsaudit.waivers import FILENAME, Waiver, apply, load

VIEW = Finding("RLS301", "check", "A view", "critical", "public.v_totals", "shows rows", id="F-1")
LEAK = Finding("PROBE-READ", "probe", "A leak", "critical", "public.notes", "crosses", confirmed=True, id="F-2")
TODAY = date(2026, 11, 21)
ENTRY = """
[[waiver]]
rule = "RLS301"
object = "public.v_*"
reason = "sums only"
approver = "security lead"
approved_on = 2026-11-01
expires = 2026-11-30
"""


def waiver(rule: str = "RLS301", named: str = "public.v_*", expires: date = TODAY, *, risk: bool = False) -> Waiver:
    return Waiver("", rule, named, "sums only", "security lead", date(2026, 11, 1), expires, accept_risk=risk)


def test_one_in_force_marks_what_it_covers_and_nothing_else() -> None:
    findings, (entry,) = apply([VIEW, LEAK], [waiver()], TODAY)
    assert [finding.status for finding in findings] == ["waived", "open"]
    assert "security lead" in findings[0].status_reason and TODAY.isoformat() in findings[0].status_reason
    assert (entry.status, entry.findings) == ("in force", ("F-1",))


def test_a_fingerprint_names_one_finding() -> None:
    by_mark = Waiver(VIEW.fingerprint, "", "", "r", "a", TODAY, TODAY)
    assert [finding.status for finding in apply([VIEW, LEAK], [by_mark], TODAY)[0]] == ["waived", "open"]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (waiver(expires=date(2026, 11, 20)), "expired"),
        (waiver(named="public.w_*"), "stale"),
        (replace(waiver(expires=date(2026, 12, 30)), approved_on=date(2026, 11, 22)), "not yet"),
        (waiver("PROBE-READ", "public.notes"), "refused"),
    ],
)
def test_what_is_not_in_force_hides_nothing(given: Waiver, status: str) -> None:
    findings, (entry,) = apply([VIEW, LEAK], [given], TODAY)
    assert entry.status == status
    assert [finding.status for finding in findings] == ["open", "open"]


def test_an_executed_leak_is_waived_only_by_who_accepts_the_risk() -> None:
    findings, (entry,) = apply([LEAK], [waiver("PROBE-READ", "public.notes", risk=True)], TODAY)
    assert (findings[0].status, entry.status) == ("waived", "in force")


def test_the_file_is_found_in_the_directory_and_read(tmp_path: Path) -> None:
    assert load(None, tmp_path) == ()
    (tmp_path / FILENAME).write_text(ENTRY)
    assert load(None, tmp_path) == (waiver(expires=date(2026, 11, 30)),)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("expires = 2026-11-30", ""), "expires is missing"),
        (("approver =", "aprover ="), "did you mean 'approver'"),
        (("2026-11-30", "2028-01-01"), "at most a year"),
        (("2026-11-30", "2026-10-30"), "not before"),
        (("2026-11-30", "30"), "a day such as"),
        (('rule = "RLS301"', 'fingerprint = "ab"'), "either fingerprint, or rule and object"),
        (('rule = "RLS301"', ""), "either fingerprint, or rule and object"),
        (('reason = "sums only"', "reason = 3"), "reason must be a string"),
        (('reason = "sums only"', 'reason = " "'), "reason is missing"),
        (("[[waiver]]", "[[waivers]]"), "unknown key waivers"),
        (("[[waiver]]", "[[waiver"), "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    file = tmp_path / "w.toml"
    file.write_text(ENTRY.replace(*change) + ("accept_risk = true\n" if "fingerprint" in said else ""))
    with pytest.raises(UsageError, match=said) as caught:
        load(file, tmp_path)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.toml", tmp_path)


@pytest.mark.parametrize(("name", "covered"), [("public.f(integer[])", True), ("public.f(integert)", False)])
def test_brackets_stand_for_themselves(name: str, covered: bool) -> None:
    assert waiver(named="public.f(integer[])").covers(replace(VIEW, object=name)) is covered
