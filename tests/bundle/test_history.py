"""When a finding was first seen, and what it takes to say that it is gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlsaudit.bundle.history import Episode, episodes
from rlsaudit.finding import Cell, Finding, PropertyResult
from rlsaudit.report import Report
from tests.bundle.conftest import at

CHECK = Finding("RLS001", "check", "A table is without row security", "high", "public.notes", "It is.", id="F-1")
LEAK = Finding(
    "PROBE-READ", "probe", "Rows are read", "critical", "public.notes", "They are.", "read", "public.notes", "SELECT",
    "app_user", id="F-2",
)  # fmt: skip
CARRIED = replace(LEAK, check="PROBE-CARRYOVER", property="carryover", relation="", object="session", command="")


def nights(clean: Report, *findings: tuple[Finding, ...] | Report) -> list[Report]:
    return [
        at(one if isinstance(one, Report) else replace(clean, findings=one), f"2026-11-{day:02}T02:00:00+00:00")
        for day, one in enumerate(findings, start=1)
    ]


def told(found: tuple[Episode, ...]) -> list[tuple[str, str, str, str]]:
    return [(one.state, one.first_seen[8:10], one.last_seen[8:10], one.fixed[8:10]) for one in found]


@pytest.mark.parametrize("finding", [CHECK, LEAK, CARRIED], ids=["check", "leak", "carryover"])
def test_seen_twice_and_then_gone(clean, finding) -> None:
    found = episodes(nights(clean, (), (finding,), (finding,), (), ()))
    assert told(found) == [("fixed", "02", "03", "04")]
    assert (found[0].days, found[0].older) == (2.0, False)


def test_what_the_first_run_shows_may_be_older(clean) -> None:
    assert [one.older for one in episodes(nights(clean, (CHECK,), (LEAK,)))] == [False, True]


def test_what_comes_back_is_a_new_episode(clean) -> None:
    found = episodes(nights(clean, (), (LEAK,), (), (LEAK,)))
    assert told(found) == [("open", "04", "04", ""), ("fixed", "02", "02", "03")]


def test_a_waived_finding_stands(clean) -> None:
    assert told(episodes(nights(clean, (CHECK,), (replace(CHECK, status="waived"),)))) == [("waived", "01", "02", "")]


def test_information_is_no_finding(clean) -> None:
    assert episodes(nights(clean, (replace(CHECK, severity="info"),))) == ()


def untrusted(clean: Report) -> Report:
    return replace(clean, verdict="not trustworthy", exit_code=3)


def audited(clean: Report) -> Report:
    """As rlsaudit audit leaves it: nothing was executed."""
    cells = tuple(replace(cell, state="not covered") for cell in clean.cells)
    made = replace(clean.provenance, command=("rlsaudit", "audit", "db.sql"))
    return replace(clean, cells=cells, properties=(), provenance=made)


def probed(clean: Report) -> Report:
    """As rlsaudit probe leaves it: no check ran."""
    return replace(clean, provenance=replace(clean.provenance, command=("rlsaudit", "probe", "db.sql")))


def elsewhere(clean: Report) -> Report:
    return replace(clean, provenance=replace(clean.provenance, source="other.sql"))


def without_check(clean: Report) -> Report:
    return replace(clean, provenance=replace(clean.provenance, checks=("RLS002",)))


@pytest.mark.parametrize(
    ("finding", "silent"),
    [
        (CHECK, untrusted), (LEAK, untrusted), (CARRIED, untrusted),
        (LEAK, audited), (CARRIED, audited), (CHECK, probed), (CHECK, without_check),
        (CHECK, elsewhere), (LEAK, elsewhere),
    ],
)  # fmt: skip
def test_a_run_that_did_not_look_fixes_nothing(clean, finding, silent) -> None:
    [one] = episodes(nights(clean, (finding,), silent(clean)))
    assert one.state in ("open", "not tested again") and one.fixed == ""
    [one] = episodes(nights(clean, (finding,), silent(clean), ()))
    assert (one.state, one.fixed[8:10]) == ("fixed", "03"), "the next run that looks shows it"


def test_a_relation_that_is_dropped_takes_its_leak_along(clean) -> None:
    gone = replace(
        clean,
        population=tuple(one for one in clean.population if one.relation != "public.notes"),
        cells=tuple(cell for cell in clean.cells if cell.relation != "public.notes"),
    )
    assert told(episodes(nights(clean, (LEAK,), gone))) == [("fixed", "01", "01", "02")]
    unasked = replace(gone, population=clean.population)
    assert told(episodes(nights(clean, (LEAK,), unasked))) == [("not tested again", "01", "01", "")]


def test_a_property_that_leaks_elsewhere_is_not_shown_gone(clean) -> None:
    leaking = replace(clean, properties=(PropertyResult("carryover", "app_user", "leak", 40, "x"),))
    assert told(episodes(nights(clean, (CARRIED,), leaking))) == [("not tested again", "01", "01", "")]


def test_a_cell_of_a_function_counts_as_one(clean) -> None:
    leak = replace(LEAK, object="app.total()", relation="", command="EXECUTE")
    for state, wanted in (("held", "fixed"), ("not covered", "not tested again")):
        cells = (*clean.cells, Cell("app.total()", "app_user", "EXECUTE", state, 4, "x"))  # type: ignore[arg-type]
        assert told(episodes(nights(clean, (leak,), replace(clean, cells=cells))))[0][0] == wanted


def test_the_same_file_checked_out_elsewhere_is_the_same(clean) -> None:
    moved = replace(clean, provenance=replace(clean.provenance, source="/builds/77/db.sql"))
    assert told(episodes(nights(clean, (CHECK,), moved))) == [("fixed", "01", "01", "02")]
