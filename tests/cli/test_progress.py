"""The line that a terminal shows while a run goes on."""

from __future__ import annotations

from rlsaudit.cli.common import _line
from rlsaudit.doing import Doing


def test_particulars_stand_beside_the_bar(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    said = _line(Doing("attacking as app", "public.docs", 5000, 1), 5, 20, 2.5)
    assert said == "[████············] attacking as app 6/20 · public.docs · 2,000 statements/s · 1 leak so far …"


def test_plain_text_and_narrow_terminals(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert _line("seeding tenants", 0, 1, 1.0) == "seeding tenants …"
    assert len(_line(Doing("attacking as app", "public." + "x" * 60, 5000, 12), 5, 20, 2.5)) <= 40
