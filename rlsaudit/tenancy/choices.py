"""Which values a session gives its settings: the ordinary ones, and those that policies know as special."""

from __future__ import annotations

from collections.abc import Mapping

from rlsaudit.tenancy import words
from rlsaudit.tenancy.sources import Reading, Source

Values = Mapping[Source, tuple[str, ...]]
"""Source → SQL expressions to give it: ``:tenant``, ``:user``, or literals, the plainest first."""

PLAIN = "'user'"
OFF = {
    "'on'": "'off'", "'true'": "'false'", "'t'": "'f'", "'1'": "'0'", "'yes'": "'no'", "'y'": "'n'", "'enabled'": "'disabled'",
}  # fmt: skip


def choices(values: Values) -> list[dict[Source, str]]:
    """The plainest first, then one for each special value of a setting, then all that is special at once.

    What leaks as an ordinary user needs no special value.
    """
    plain = chosen(values, None)
    found = [plain]
    for together in _together(values):
        found += [{**plain, **dict.fromkeys(together, option)} for option in values[together[0]]]
    found.append({s: next((option for option in values[s] if option != plain[s]), plain[s]) for s in plain})
    return [one for number, one in enumerate(found) if one not in found[:number]]


def _together(values: Values) -> list[list[Source]]:
    """The same claim in two places (a setting and a document) is one choice: a session does not contradict itself."""
    found: dict[tuple[str, tuple[str, ...]], list[Source]] = {}
    for source, options in sorted(values.items()):
        if len(options) > 1:
            found.setdefault((source.name.rpartition(".")[2], options), []).append(source)
    return list(found.values())


def chosen(values: Values, which: int | None) -> dict[Source, str]:
    """Of each source the option at that place, or (None) the one that an ordinary user has."""
    return {
        source: options[which] if which is not None else PLAIN if PLAIN in options else options[0]
        for source, options in sorted(values.items())
        if len(options) > 1 or options[0].startswith("'")
    }


def switched(source: Source, constants: tuple[str, ...]) -> tuple[str, ...]:
    """Values that switch something on, when that is what the setting is for."""
    if constants:
        return constants if all(constant.lower() in OFF for constant in constants) else ()
    return ("'on'",) if words.switch_like(source.name) else ()


def known_as_columns(reading: Reading) -> frozenset[str]:
    """Settings that some policy holds against a column: they say what a row has, and switch nothing."""
    return frozenset(use.source.setting for use in reading.uses if use.column)
