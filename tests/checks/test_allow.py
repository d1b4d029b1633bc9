"""The allow-list: what it covers, what it says, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlsaudit.allow import Allowed, apply, require_known
from rlsaudit.config import load
from rlsaudit.errors import UsageError
from rlsaudit.finding import Finding
from rlsaudit.report import WaiverEntry

VIEW = Finding("RLS301", "check", "A view", "critical", "public.v_totals", "shows rows", id="F-1")
LEAK = Finding("RLS301", "probe", "A view", "critical", "public.v_totals", "shows rows")


def test_a_finding_is_marked_with_the_reason() -> None:
    findings, entries = apply([VIEW], (Allowed("RLS301", "public.v_*", "sums only"),))
    assert [(f.status, f.status_reason) for f in findings] == [("waived", "sums only")]
    assert entries == (WaiverEntry("allow-list", "in force", "RLS301 on public.v_*", "sums only", findings=("F-1",)),)
    assert findings[0].fingerprint == VIEW.fingerprint


@pytest.mark.parametrize("entry", [Allowed("RLS302", "*", "x"), Allowed("RLS301", "public.w*", "x")])
def test_an_entry_that_covers_nothing_is_said(entry: Allowed) -> None:
    findings, entries = apply([VIEW], (entry,))
    assert [f.status for f in findings] == ["open"]
    assert [(one.status, one.findings) for one in entries] == [("stale", ())]


def test_an_executed_leak_is_never_allowed() -> None:
    assert [f.status for f in apply([LEAK], (Allowed("RLS301", "*", "x"),))[0]] == ["open"]


def test_an_unknown_check_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean RLS301"):
        require_known([Allowed("RLS3O1", "*", "x")], ["RLS301", "RLS001"])


def test_the_configuration_gives_entries_and_wants_reasons(tmp_path: Path) -> None:
    file = tmp_path / "rlsaudit.toml"
    file.write_text('[[allow]]\ncheck = "rls301"\nreason = "sums only"\n')
    assert load(file, tmp_path).allowed == (Allowed("RLS301", "*", "sums only"),)
    file.write_text('[[allow]]\ncheck = "RLS301"\nreason = " "\n')
    with pytest.raises(UsageError, match="reason that an auditor can read"):
        load(file, tmp_path)
    file.write_text('[[allow]]\ncheck = "RLS301"\nobjekt = "x"\nreason = "y"\n')
    with pytest.raises(UsageError, match="did you mean 'object'"):
        load(file, tmp_path)
