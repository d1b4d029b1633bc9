"""Commands for GitHub's runner, which shows them beside the changed lines."""

from __future__ import annotations

from collections.abc import Sequence

from ._alerts import CONFIGURATION
from ._text import lines

_SHOWN = 10
"""The runner keeps so many of a level for a step."""


def command(level: str, file: str, line: int, title: str, message: str) -> str:
    return f"::{level} file={_property(file)},line={line},title={_property(title)}::{_data(lines(message))}"


def most(commands: Sequence[str], level: str) -> list[str]:
    """As many of one level as are shown; the last says how many are left out."""
    if len(commands) <= _SHOWN:
        return list(commands)
    left = len(commands) - _SHOWN + 1
    said = f"{left} more of this level are in the report."
    return [*commands[: _SHOWN - 1], command(level, CONFIGURATION, 1, "rlsaudit", said)]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
