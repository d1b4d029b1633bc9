"""Lengths of time as people write them."""

from __future__ import annotations

import pytest

from rlsaudit.duration import seconds
from rlsaudit.errors import UsageError


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("30", 30), ("30s", 30), ("5m", 300), ("2h", 7200), ("1h30m", 5400), (" 0.5M ", 30), ("0", 0), (7, 7), (1.5, 1.5)],
)
def test_length(given, wanted) -> None:
    assert seconds(given) == wanted


@pytest.mark.parametrize("given", ["", "much", "-5", "5x", "m", "5m 3", float("inf"), float("nan"), -1])
def test_what_is_none_is_refused_by_name(given) -> None:
    with pytest.raises(UsageError, match="30s, 5m or 2h"):
        seconds(given)
