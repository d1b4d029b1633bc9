"""What random workloads learnt, from one night to the next: a small JSON file beside their hard examples."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rlsaudit.errors import UsageError
from rlsaudit.options import Progress
from rlsaudit.output import write_all
from rlsaudit.probe.attacks.learning import Key, Learning, Visits

_FORMAT = "rlsaudit-nights"
_VERSION = 1
EVERY = 300.0
"""Seconds between two savings in the course of a night."""
_LARGEST = 64 * 1024 * 1024
"""Bytes; no file of ours is so large."""
_MOST = 1e12


class _Foreign(Exception):
    """Not a file that ``save`` wrote for this source."""


def filename(source: str) -> str:
    """One file for each source, so that a fleet may share a directory."""
    return f"learnt-{hashlib.sha256(source.encode()).hexdigest()[:16]}.json"


def load(directory: Path | None, source: str) -> tuple[Learning, tuple[str, ...]]:
    """What earlier nights learnt of ``source``, and a note when there is a file that says nothing of it."""
    if directory is None:
        return Learning(), ()
    path = directory / filename(source)
    try:
        return Learning(_read(path, source)), ()
    except FileNotFoundError:
        return Learning(), ()
    except (OSError, ValueError, RecursionError, _Foreign) as error:
        said = " ".join(str(error).split())
        return Learning(), (f"{path}: what earlier nights learnt is not used, and is written anew: {said}.",)


def save(directory: Path, source: str, learning: Learning, relations: Iterable[str]) -> tuple[str, ...]:
    """Write it, with what another run may have learnt meanwhile; ``relations`` are those that there are still.

    Gives a note when it could not be written: a night's result is worth more than that.
    """
    found, standing = {}, frozenset(relations)
    try:
        found = _read(directory / filename(source), source)
    except (OSError, ValueError, RecursionError, _Foreign):
        found = {}  # told when it was loaded
    found |= learning.learnt()
    places = [
        {"role": role, "relation": relation, "fingerprint": one.fingerprint, "rounds": one.rounds}
        | {"programs": one.programs, "seconds": round(one.seconds, 3), "fresh": round(one.fresh, 3)}
        | {"outcomes": sorted(one.outcomes)}
        for (role, relation), one in sorted(found.items())
        if relation in standing
    ]
    document = {"format": _FORMAT, "version": _VERSION, "source": source, "places": places}
    try:
        write_all(directory, {filename(source): json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"})
    except UsageError as error:
        return (f"What random workloads learnt is lost to the next night: {error}",)
    return ()


@dataclass
class Keeper:
    """Saves what a night learns every few minutes, so that a machine that goes down in the middle loses little of it.

    Without a directory nothing is kept.
    """

    directory: Path | None
    source: str
    learning: Learning
    relations: frozenset[str]
    clock: Callable[[], float] = time.monotonic
    _saved: float = field(init=False)

    def __post_init__(self) -> None:
        self._saved = self.clock()

    def through(self, progress: Progress) -> Progress:
        """The same progress, and time to save."""

        def told(what: str, done: int, of: int) -> None:
            progress(what, done, of)
            if self.clock() - self._saved >= EVERY:
                self.save()

        return told

    def save(self) -> tuple[str, ...]:
        """Save now; gives a note when that cannot be."""
        self._saved = self.clock()
        if self.directory is None or not self.learning.told:
            return ()
        return save(self.directory, self.source, self.learning, self.relations)


def _read(path: Path, source: str) -> dict[Key, Visits]:
    if path.stat().st_size > _LARGEST:
        raise _Foreign("it is no file of rlsaudit's")
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise _Foreign("it is no file of rlsaudit's")
    if document.get("version") != _VERSION or document.get("source") != source:
        raise _Foreign("it is of another version or another source")
    places = document.get("places")
    if not isinstance(places, list):
        raise _Foreign("it is damaged")
    return dict(map(_place, places))


def _place(given: object) -> tuple[Key, Visits]:
    if not isinstance(given, dict):
        raise _Foreign("it is damaged")
    role, relation, fingerprint = (_text(given.get(name)) for name in ("role", "relation", "fingerprint"))
    rounds, programs, seconds, fresh = (_number(given.get(name)) for name in ("rounds", "programs", "seconds", "fresh"))
    outcomes = given.get("outcomes")
    if not isinstance(outcomes, list):
        raise _Foreign("it is damaged")
    return (role, relation), Visits(int(rounds), int(programs), seconds, fresh, fingerprint, set(map(_text, outcomes)))


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise _Foreign("it is damaged")
    return given


def _number(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < _MOST:
        raise _Foreign("it is damaged")
    return float(given)
