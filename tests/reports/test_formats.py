"""What holds for every format that a machine reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from rlsaudit.errors import UsageError
from rlsaudit.evidence import dump, parse
from rlsaudit.report import Report, chosen

FORMATS = ("sarif", "markdown", "github", "gitlab", "prometheus", "csv", "oscal")
ZERO_WIDTH = "\u200b"
"""Breaks mentions and links in Markdown."""


def render(name: str, report: Report) -> str:
    [form] = chosen([name])
    return form.write(report)


@pytest.fixture(params=["rich", "clean"])
def report(request: pytest.FixtureRequest) -> Report:
    made: Report = request.getfixturevalue(request.param)
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_golden(name: str, report: Report, golden: Callable[[str, str], None], request: pytest.FixtureRequest) -> None:
    golden(f"{request.node.callspec.params['report']}.{name}", render(name, report))


@pytest.mark.parametrize("name", FORMATS)
def test_rendered_again_from_the_evidence_it_is_the_same(name: str, report: Report) -> None:
    assert render(name, parse(dump(report))) == render(name, report)


@pytest.mark.parametrize("name", FORMATS)
def test_every_character_shows(name: str, rich: Report) -> None:
    text = render(name, rich)
    text.encode()
    assert {c for c in text if not c.isprintable()} <= {"\n", ZERO_WIDTH}
    assert name in ("github", "prometheus") or "⟨U+202E⟩" in text, "the hostile names are in it, spelled out"


@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_a_tenant_stay_in_the_evidence(name: str, rich: Report) -> None:
    """Attacks, scripts, conditions of policies and statements of the context hold values; machines need none of them."""
    canary = "canary-of-a-tenant"
    planted = replace(
        rich,
        findings=tuple(replace(one, attack=canary, replay=canary) for one in rich.findings),
        policies=tuple(replace(one, using=canary, check=canary) for one in rich.policies),
        context=(canary,),
        notes=(canary,),
    )
    assert canary in render("json", planted)
    assert canary not in render(name, planted)


@pytest.mark.parametrize("name", ["sarif", "prometheus", "oscal"])
@pytest.mark.parametrize("started", ["yesterday", "2026-11-21T02:00:07"])
def test_a_time_that_is_none_is_named_in_one_line(name: str, started: str, clean: Report) -> None:
    with pytest.raises(UsageError, match="no time with a zone"):
        render(name, replace(clean, timing=replace(clean.timing, started=started)))


def test_json_formats_are_json(report: Report) -> None:
    for name in ("sarif", "gitlab", "oscal"):
        json.loads(render(name, report))
