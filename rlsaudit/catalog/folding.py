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


def _substring(text: str, start: str, count: str | None = None) -> str | None:
    first = int(start) - 1
    end = len(text) if count is None else first + int(count)
    return None if count is not None and int(count) < 0 else text[max(first, 0) : max(end, 0)]


def _left(text: str, count: str) -> str:
    return text[: int(count)]


def _right(text: str, count: str) -> str:
    number = int(count)
    return "" if number == 0 else text[-number:]


def _split(text: str, by: str, number: str) -> str | None:
    parts = text.split(by) if by else [text]
    index = int(number)
    return None if index < 1 else parts[index - 1] if index <= len(parts) else ""


def _starts(text: str, prefix: str) -> str:
    return "true" if text.startswith(prefix) else "false"


def _place(text: str, part: str) -> str:
    return str(text.find(part) + 1)


TEXT_FUNCTIONS: Mapping[str, Callable[..., str | None]] = {
    "lower": str.lower, "upper": str.upper, "btrim": lambda s: s.strip(" "), "text": str, "varchar": str,
    "length": lambda s: str(len(s)), "char_length": lambda s: str(len(s)), "octet_length": lambda s: str(len(s)),
    "||": str.__add__, "textcat": str.__add__, "left": _left, "right": _right, "substr": _substring,
    "substring": _substring, "split_part": _split, "starts_with": _starts, "position": _place, "strpos": _place,
    "replace": str.replace,
}  # fmt: skip
"""By name; arguments and results are the text forms of constants, None for what is not told."""
