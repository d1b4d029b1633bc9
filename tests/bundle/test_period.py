"""The report on a period: what ran and what did not, and never more than the runs can say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from rlsaudit.bundle import period
from rlsaudit.bundle.gather import Asked, assemble, gather
from rlsaudit.bundle.period import Period
from rlsaudit.bundle.verify import Trust
from rlsaudit.report import PopulationEntry, WaiverEntry
from tests.bundle.test_history import CHECK, LEAK

TODAY = date(2026, 11, 21)
HOSTILE = 'public."</td><script>alert(1)</script>{{7*7}}\u202e\x1b[2J\x00"'


def made(
    *runs: Path, first: str = "2026-11-01", last: str = "2026-11-04", every: int = 1, today: date = TODAY
) -> Period:
    asked = Asked(date.fromisoformat(first), date.fromisoformat(last), every, today)
    return assemble([gather(run, Trust()) for run in runs], asked, Trust())


def test_four_nights_without_anything(nights) -> None:
    told = made(*nights)
    assert (told.verdict, told.exceptions, told.gaps, told.failures) == ("no exceptions noted", (), (), ())
    assert (len(told.runs), told.links, told.median_days) == (4, 4, None)


def test_days_without_a_run_are_gaps(nights, write) -> None:
    told = made(*nights, first="2026-10-30", last="2026-11-07")
    assert [(gap.first, gap.last, gap.days) for gap in told.gaps] == [
        ("2026-10-30", "2026-10-31", 2), ("2026-11-05", "2026-11-07", 3),
    ]  # fmt: skip
    assert told.verdict == "exceptions noted" and "5 day(s) without a run" in told.exceptions[0]
    assert made(*nights, first="2026-10-25", last="2026-11-07", every=7).gaps == (
        period.Gap("2026-10-25", "2026-10-31", 7),
    )


def test_days_that_are_not_over_are_no_gap(nights) -> None:
    told = made(*nights, last="2026-12-31", today=date(2026, 11, 6))
    assert [(gap.first, gap.last) for gap in told.gaps] == [("2026-11-05", "2026-11-05")]
    assert any("was not over" in note for note in told.notes)


def test_no_run_in_the_period_is_no_good_news(nights) -> None:
    told = made(*nights, first="2026-10-01", last="2026-10-02")
    assert told.verdict == "exceptions noted" and "No run started" in told.exceptions[0]
    assert "this report says nothing about it" in period.page(told)


def test_a_deleted_night_is_a_gap_and_a_broken_chain(nights) -> None:
    shutil.rmtree(nights[1])
    told = made(nights[0], *nights[2:])
    assert [gap.first for gap in told.gaps] == ["2026-11-02"]
    [failure] = told.failures
    assert "2026-11-02T02:00:00+00:00 that it follows is missing" in failure.text
    assert [run.failures for run in told.runs] == [0, 1, 0]
    assert failure.text in period.page(told) and "is missing" in period.summary(told, 80)


def test_a_changed_file_is_told(nights) -> None:
    (nights[2] / "TEST-rlsaudit.xml").write_text("<testsuites/>")
    told = made(*nights)
    assert [run.failures for run in told.runs] == [0, 0, 1, 0] and told.verdict == "exceptions noted"


def test_a_run_without_evidence_is_not_read_as_clean(nights) -> None:
    (nights[3] / "evidence.json").write_text("{}")
    told = made(*nights)
    assert any("have no evidence.json" in one for one in told.exceptions)


def test_findings_and_the_time_to_fix(write, clean) -> None:
    bad = replace(clean, verdict="exceptions", exit_code=1)
    shown = [(), (LEAK,), (CHECK, LEAK), (CHECK,), ()]
    runs: list[Path] = []
    for day, findings in enumerate(shown, start=1):
        report = replace(bad if findings else clean, findings=findings)
        runs.append(write(f"n{day}", f"2026-11-0{day}T02:00:00+00:00", runs[-1] if runs else None, report))
    told = made(*runs, last="2026-11-05")
    assert [(one.check, one.state, one.days) for one in told.findings] == [
        ("PROBE-READ", "fixed", 2.0), ("RLS001", "fixed", 2.0),
    ]  # fmt: skip
    assert (told.fixed, told.median_days, told.worst_days) == (2, 2.0, 2.0)
    assert told.exceptions == ("3 of 5 run(s) noted exceptions.",)
    early = made(*runs, last="2026-11-03")
    assert [one.state for one in early.findings] == ["open", "open"], "what later runs show does not belong to it"
    assert any("2 finding(s) were not shown to be fixed" in one for one in early.exceptions)
    late = made(*runs, first="2026-11-05", last="2026-11-05")
    assert [one.first_seen[8:10] for one in late.findings] == ["03"], "runs before the period tell since when"


def test_waivers_of_the_period(write, clean) -> None:
    waiver = WaiverEntry(
        "waiver", "in force", "RLS001 on public.notes", "spring", "lead", "2026-10-01", "2026-11-01", "SEC-1",
        findings=("F-1",),
    )  # fmt: skip
    one = write(
        "a", "2026-11-01T02:00:00+00:00", None,
        replace(clean, findings=(replace(CHECK, status="waived"),), waivers=(waiver,)),
    )  # fmt: skip
    ended = replace(waiver, status="expired")
    two = write(
        "b", "2026-11-02T02:00:00+00:00", one,
        replace(clean, verdict="exceptions", exit_code=1, findings=(CHECK,), waivers=(ended,)),
    )  # fmt: skip
    told = made(one, two, last="2026-11-02")
    [span] = told.waivers
    assert (span.waiver.status, span.first_seen[8:10], span.last_seen[8:10], span.ended) == (
        "expired",
        "01",
        "02",
        True,
    )
    assert any("1 waiver(s) did not hold" in one for one in told.exceptions)
    renewed = replace(waiver, expires="2026-12-31", approved_on="2026-11-02")
    three = write(
        "c", "2026-11-03T02:00:00+00:00", two,
        replace(clean, findings=(replace(CHECK, status="waived"),), waivers=(renewed,)),
    )  # fmt: skip
    assert [one.waiver.expires for one in made(one, two, three).waivers] == ["2026-11-01", "2026-12-31"]


def test_population_over_time(write, clean) -> None:
    more = (*clean.population, PopulationEntry("public.extra", "table", "tenant", "x", "o", "isolated"))
    one = write("a", "2026-11-01T02:00:00+00:00")
    two = write("b", "2026-11-02T02:00:00+00:00", one, replace(clean, population=more, population_counted=3))
    told = made(one, two, last="2026-11-02").population
    assert [(p.relations, p.added, p.removed) for p in told] == [(2, (), ()), (3, ("public.extra",), ())]


@pytest.fixture
def hostile(write, clean) -> Period:
    """Everything that can hold a name holds a hostile one."""
    leak = replace(LEAK, title=HOSTILE, object=HOSTILE)
    waiver = WaiverEntry("waiver", "expired", HOSTILE, HOSTILE, HOSTILE, "2026-10-01", "2026-10-02", HOSTILE)
    entry = PopulationEntry(HOSTILE, "table", "tenant", "x", "o", "isolated")
    report = replace(
        clean, verdict="exceptions", exit_code=1, sentence=HOSTILE, findings=(leak,), waivers=(waiver,),
        population=(*clean.population, entry), population_counted=3,
        provenance=replace(clean.provenance, source=HOSTILE.replace("/", "|"), command=("rlsaudit", HOSTILE)),
    )  # fmt: skip
    one = write("<b>a", "2026-11-01T02:00:00+00:00")
    two = write("<b>b", "2026-11-02T02:00:00+00:00", one, report)
    (two / "<i>\u202e").write_text("x")
    return made(one, two)


def test_hostile_names_stay_text(hostile) -> None:
    page = period.page(hostile)
    assert "<script" not in page and "<i>" not in page and "<b>a" not in page
    assert "{{7*7}}" in page and "⟨U+202E⟩" in page and "⟨U+0000⟩" in page
    assert all(c.isprintable() or c in "\n\t" for c in page)
    assert all(c.isprintable() or c == "\n" for c in period.summary(hostile, 80) + period.document(hostile))


def test_the_page_asks_for_nothing_and_runs_nothing(hostile) -> None:
    page = period.page(hostile)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    [style] = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy and policy[1].startswith("default-src 'none'; style-src 'sha256-" + digest + "';")
    assert not re.search(r'https?://|\sstyle="|\son\w+="|\ssrc="', page)
    anchors, ids = re.findall(r'href="#([^"]+)"', page), re.findall(r'\sid="([^"]+)"', page)
    assert set(anchors) <= set(ids) and len(ids) == len(set(ids))


def test_it_never_says_that_a_control_is_met(hostile, nights) -> None:
    for told in (hostile, made(*nights)):
        for text in (period.page(told), period.document(told), period.summary(told, 80)):
            assert not re.search(r"\b(met|satisfied|compliant|passed|effective)\b", text, re.IGNORECASE)
            assert "exceptions noted" in text.lower()


def test_the_summary_fits(hostile) -> None:
    for width in (72, 80, 120):
        assert max(map(len, period.summary(hostile, width).splitlines())) <= width


def test_the_calendar_has_every_day_with_its_worst_verdict(write, clean) -> None:
    one = write("a", "2026-11-01T02:00:00+00:00", report=replace(clean, verdict="not trustworthy", exit_code=3))
    two = write("b", "2026-11-01T03:00:00+00:00", one)
    days = re.findall(
        r'class="sw s-(\w+)" role="img" aria-label="(\S+): ([^"]+)"', period.page(made(one, two, last="2026-11-30"))
    )
    assert len(days) == 30
    assert days[:2] == [("gap", "2026-11-01", "not trustworthy"), ("none", "2026-11-02", "no run")]


def test_the_command(rlsaudit, nights, tmp_path) -> None:
    command = ("evidence", nights[0].parent, "--from", "2026-11-01", "--output-dir", tmp_path / "period", "--to")
    said = rlsaudit(*command, "2026-11-04")
    assert said.code == 0 and said.lines[0].startswith("NO EXCEPTIONS NOTED")
    told = json.loads((tmp_path / "period" / "period.json").read_text())
    assert (told["schema_version"], told["verdict"], len(told["runs"])) == ("1.0", "no exceptions noted", 4)
    assert (tmp_path / "period" / "period.html").stat().st_mode & 0o777 == 0o600
    assert rlsaudit(*command, "2026-11-05").code == 1


@pytest.mark.parametrize(
    "options",
    [
        ("--from", "yesterday", "--to", "2026-11-04"), ("--from", "2026-11-04", "--to", "2026-11-01"),
        ("--from", "2026-11-01", "--to", "2026-11-04", "--every", "0d"), ("--from", "2026-11-01"),
    ],
)  # fmt: skip
def test_usage(rlsaudit, nights, options) -> None:
    assert rlsaudit("evidence", *nights, *options).code == 2


def test_nothing_is_written_into_a_run(rlsaudit, nights) -> None:
    said = rlsaudit("evidence", *nights, "--from", "2026-11-01", "--to", "2026-11-04", "--output-dir", nights[0])
    assert said.code == 2 and rlsaudit("verify", *nights).code == 0
