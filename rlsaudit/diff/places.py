"""The line of HEAD that a change is about: one that was added, where there is one.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from rlsaudit.diff.change import Change
from rlsaudit.finding import Finding
from rlsaudit.places import Places
from rlsaudit.places import placed as defined_at
from rlsaudit.probe.attacks.reach import words_of


@dataclass(frozen=True, slots=True)
class Added:
    """A line of HEAD's files that BASE's do not have."""

    file: str
    line: int
    words: frozenset[str]


def added(base: Mapping[str, str], head: Mapping[str, tuple[str, str]]) -> tuple[Added, ...]:
    """``base``: name below the source → text; ``head``: the same → how the file is shown, text."""
    return tuple(one for name, (shown, text) in head.items() for one in _added(base.get(name), shown, text))


def _added(before: str | None, shown: str, text: str) -> Iterator[Added]:
    lines = text.splitlines()
    numbers: Iterable[int] = range(len(lines))
    if before is not None:
        blocks = SequenceMatcher(None, before.splitlines(), lines).get_opcodes() if before != text else []
        numbers = (
            number for tag, _, _, start, end in blocks if tag in ("insert", "replace") for number in range(start, end)
        )
    for number in numbers:
        code = lines[number].partition("--")[0]
        if code.strip():
            yield Added(shown, number + 1, words_of(code))


def placed(change: Change, places: Places, lines: tuple[Added, ...]) -> Change:
    """The change with its file and line: where its object was defined if that was added, else the first added line that
    names it, else where it was defined."""
    fresh = {(one.file, one.line) for one in lines}
    itself, defined = (
        defined_at(Finding("", "check", "", "info", change.object, "", relation=relation), places)
        for relation in ("", change.relation)
    )
    policies = (
        at for one, at in places.items() if one.startswith("policy ") and one.endswith(f" on {change.relation}")
    )
    other = _named(_names(change.object), lines) if change.object != change.relation else None
    ways = ((itself.file, itself.line), other, (defined.file, defined.line), *policies)
    found = next((at for at in ways if at is not None and at in fresh), None)
    found = found or next(filter(None, (_named(_names(one), lines) for one in (change.relation, *change.roles))), None)
    file, line = found or (change.file or defined.file, change.line or defined.line)
    return replace(change, file=file, line=line)


def _named(names: frozenset[str], lines: tuple[Added, ...]) -> tuple[str, int] | None:
    return next(((one.file, one.line) for one in lines if names and names <= one.words), None)


def _names(named: str) -> frozenset[str]:
    """The bare names of ``policy p on public.t``, ``function public.f(integer)``, ``public.t``, ``role r``."""
    kind, _, rest = named.partition(" ")
    parts = (
        rest.split(" on ") if kind == "policy" else [rest if kind in ("role", "function", "table", "view") else named]
    )
    return frozenset(part.partition("(")[0].rpartition(".")[2].strip('"').lower() for part in parts if part)
