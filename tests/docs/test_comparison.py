"""What `make bench` writes into the comparison has its place there, and the cases that it measures are what they say."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("peers")


def test_every_section_is_on_the_page(peers: ModuleType, tmp_path: Path) -> None:
    page = Path(shutil.copy(ROOT / "docs" / "comparison.md", tmp_path))
    before = page.read_text(encoding="utf-8")
    for name in peers.SECTIONS:
        peers.put(page, name, f"new {name}")
    after = page.read_text(encoding="utf-8")
    assert re.findall(r"^new (.*)$", after, re.MULTILINE) == sorted(peers.SECTIONS, key=before.index)
    assert after.partition("## How to read it")[2] == before.partition("## How to read it")[2]
    with pytest.raises(ValueError, match="no section"):
        peers.put(page, "others", "")


def test_cases_name_what_is_in_them(peers: ModuleType) -> None:
    found = list(peers.own_cases.pairs())
    assert len(found) > 40
    for pair in found:
        assert pair.leaky != pair.sound
        assert pair.objects
        assert [name for name in pair.objects if name.split(".")[-1] not in pair.leaky] == []


def test_a_generated_database_is_judged_by_what_was_planted(peers: ModuleType) -> None:
    made = peers.own_cases.generated(tables=30, leaks=10, seed=3)
    assert (len(made.faulty), len(made.sound)) == (10, 21)  # the registry among them
    assert [name for names in made.faulty for name in names if not re.search(rf"\b{name}\b", made.script)] == []
    assert peers.own_cases.generated(tables=30, leaks=10, seed=3) == made
    assert peers.own_cases.generated(tables=30, leaks=10, seed=4) != made
    bad, [one, other, *_] = sorted(made.faulty[0])[0], sorted(made.sound)
    about = [
        peers.Found("high", f"shop.{bad}", f"{bad} beside {one}"),
        peers.Found("medium", f"shop.{one}", ""),
        peers.Found("low", f"shop.{other}", ""),
        peers.Found("high", f"shop.{other}", "", check="RLS601"),
    ]
    assert peers.judged(about[:1], made) == (1, 0)
    assert peers.judged(about, made) == (1, 1)
    assert peers.judged([], made) == (0, 0)
