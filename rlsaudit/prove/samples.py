"""What built-in functions and operators give for a few texts and numbers, so that a violation can be shown by example.

In general nothing is known of them but that they give the same for the same operands.  What is told of the samples is
what the server gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice, product

from rlsaudit.catalog.folding import TEXT_FUNCTIONS, matched

MOST = 150
"""Combinations of operands that are tried for one function."""

TEXTS = ("", "a", "A", "a1", "1", "11")
UUIDS = (1, 17)
NUMBERS = (1, 2, 3, 11)

Sample = int | str

_ARITHMETIC: Mapping[str, Callable[[int, int], int]] = {
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
    "%": int.__mod__,
    "mod": int.__mod__,
}
"""Of numbers that are not negative."""


def texts(constants: list[str]) -> tuple[str, ...]:
    """Texts to try beside the constants of a question: for a pattern, what it matches."""
    found = dict.fromkeys(TEXTS)
    for text in [one for one in constants if one.isascii() and 0 < len(one) < 50][:6]:
        found |= dict.fromkeys((text, text.replace("%", ""), text.replace("%", "a").replace("_", "a"), text + "a"))
    return tuple(found)


def outcomes(name: str, operands: list[tuple[Sample, ...]]) -> Iterator[tuple[tuple[Sample, ...], Sample | bool]]:
    """Combinations of the operands, with what the function or operator gives for them."""
    for chosen in islice(product(*operands), MOST):
        result = _given(name, chosen)
        if result is not None:
            yield chosen, result


def _given(name: str, operands: tuple[Sample, ...]) -> Sample | bool | None:
    """What the server gives, None when that is not known for sure."""
    match operands:
        case (int(one), int(other)) if name in _ARITHMETIC:
            return _ARITHMETIC[name](one, other) if one >= 0 and other > 0 else None
        case (str(text), str(pattern)) if (found := matched(name, text, pattern)) is not None:
            return found
        case (str(), *_) if name in TEXT_FUNCTIONS and all(str(one).isascii() for one in operands):
            try:
                return TEXT_FUNCTIONS[name](*operands)
            except (TypeError, ValueError):
                return None
    return None
