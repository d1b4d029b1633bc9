"""The line of SQL behind a finding."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlsaudit.finding import Finding
from rlsaudit.places import placed, within

PLACES = {
    "table public.t": ("/repo/db/1.sql", 3),
    "policy own on public.t": ("/repo/db/2.sql", 7),
    "function public.f(integer)": ("../1.sql", 9),
    "role app": ("-", 1),
}


@pytest.mark.parametrize(
    ("named", "relation", "place"),
    [
        ("public.t", "", ("db/1.sql", 3)),
        ("policy own on public.t", "public.t", ("db/2.sql", 7)),
        ("policy gone on public.t", "public.t", ("db/1.sql", 3)),
        ("public.f(integer)", "", ("../1.sql", 9)),
        ("role app", "", ("-", 1)),
        ("setting app.tenant", "", ("", 0)),
    ],
)
def test_the_object_first_then_the_relation(named: str, relation: str, place: tuple[str, int]) -> None:
    found = placed(
        Finding("RLS001", "check", "t", "high", named, "m", relation=relation), within(PLACES, Path("/repo"))
    )
    assert (found.file, found.line) == place
