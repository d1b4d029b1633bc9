"""What built-in text functions and pattern operators give for constants, as far as that is the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

# Patterns that mean the same to the server and to Python: no escapes, classes by name or look-around.
_PLAIN = re.compile(r"(?:[\w \-@:/]|[.^$+*?|()]|\[\^?[\w \-@:/.]+\]|\{\d+(?:,\d*)?\})*\Z", re.ASCII)


def matched(operator: str, text: str, pattern: str) -> bool | None:
    """``text LIKE pattern`` and its kin by operator name; None when that cannot be told."""
    if not (text.isascii() and pattern.isascii()):
        return None
    negated, name = operator.startswith("!"), operator.removeprefix("!")
    if name in ("~~", "~~*"):
        found = _like(text, pattern, name == "~~*")
    elif name in ("~", "~*"):
        found = _regular(text, pattern, name == "~*")
    elif name == "^@":
        found = text.startswith(pattern)
    else:
        return None
    return None if found is None else found != negated


def _like(text: str, pattern: str, fold: bool) -> bool | None:
    if pattern.endswith("\\"):
        return None
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    translated = (
        re.escape(part[1]) if len(part) == 2 else ".*" if part == "%" else "." if part == "_" else re.escape(part)
        for part in parts
    )
    return re.fullmatch("".join(translated), text, re.DOTALL | (re.IGNORECASE if fold else 0)) is not None


def _regular(text: str, pattern: str, fold: bool) -> bool | None:
    if not _PLAIN.match(pattern):
        return None
    try:
        return re.search(pattern.replace("$", r"\Z"), text, re.DOTALL | (re.IGNORECASE if fold else 0)) is not None
    except re.error:
        return None


def _substring(text: str, start: int, count: int | None = None) -> str | None:
    end = len(text) if count is None else start - 1 + count
    return None if count is not None and count < 0 else text[max(start - 1, 0) : max(end, 0)]


def _left(text: str, count: int) -> str:
    return text[:count]


def _right(text: str, count: int) -> str:
    return "" if count == 0 else text[-count:]


def _split(text: str, by: str, number: int) -> str | None:
    parts = text.split(by) if by else [text]
    return None if number < 1 else parts[number - 1] if number <= len(parts) else ""


def _starts(text: str, prefix: str) -> str:
    return "true" if text.startswith(prefix) else "false"


def _place(text: str, part: str) -> str:
    return str(text.find(part) + 1)


TEXT_FUNCTIONS: Mapping[str, Callable[..., str | None]] = {
    "lower": str.lower, "upper": str.upper, "btrim": lambda s: s.strip(" "), "text": str, "varchar": str,
    "length": lambda s: str(len(s)), "char_length": lambda s: str(len(s)), "octet_length": lambda s: str(len(s)),
    "||": "{}{}".format, "textcat": str.__add__, "left": _left, "right": _right, "substr": _substring,
    "substring": _substring, "split_part": _split, "starts_with": _starts, "position": _place, "strpos": _place,
    "replace": lambda s, a, b: s.replace(a, b) if a else s,
}  # fmt: skip
"""By name; arguments are texts and numbers, or there is a TypeError; results are text forms, None for what is not told."""
