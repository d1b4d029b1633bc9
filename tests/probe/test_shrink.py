"""Shrinking: the result still fails and nothing more can be left out."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from rlsaudit.probe.replay.shrink import minimal


@given(st.integers(0, 40), st.sets(st.integers(0, 39), max_size=6))
def test_finds_exactly_what_is_needed(count, needed) -> None:
    items = list(range(max(count, max(needed, default=-1) + 1)))
    assert set(minimal(items, lambda rest: needed <= set(rest))) == needed


@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_any_predicate_ends_one_minimal(count, random) -> None:
    verdicts: dict[tuple[int, ...], bool] = {}

    def fails(rest) -> bool:
        return verdicts.setdefault(tuple(rest), random.random() < 0.5)

    items = list(range(count))
    assume(fails(items))
    found = minimal(items, fails)
    assert fails(found)
    assert list(found) == sorted(found), "the order is kept"
    for index in range(len(found)):
        assert not fails(found[:index] + found[index + 1 :])


def test_calls_stay_few() -> None:
    calls = 0

    def fails(rest) -> bool:
        nonlocal calls
        calls += 1
        return {3, 70} <= set(rest)

    assert minimal(list(range(120)), fails) == (3, 70)
    assert calls < 90


def test_nothing_needed() -> None:
    assert minimal([1, 2, 3], lambda rest: True) == ()
