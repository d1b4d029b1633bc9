"""The chain of runs: each manifest names the hash of the one before, so a night cannot go, move or be replaced unseen.

What the last runs of a chain were can only be told from outside: a chain that is cut off at its end is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from rlsaudit.bundle.manifest import Run
from rlsaudit.bundle.verify import Part, started

_NEVER = datetime.min.replace(tzinfo=UTC)


def ordered(runs: Iterable[Run]) -> list[Run]:
    """The runs by their start; those of one second as they follow each other."""
    listed = list(runs)
    by_hash = {run.sha256: run for run in listed}

    def depth(run: Run) -> int:
        seen = {run.sha256}
        while run.manifest.previous and (before := by_hash.get(run.manifest.previous.sha256)):
            if before.sha256 in seen:
                break
            seen.add(before.sha256)
            run = before
        return len(seen)

    return sorted(listed, key=lambda run: (started(run.manifest) or _NEVER, depth(run)))


def links(runs: Iterable[Run]) -> Iterator[Part]:
    """How each run, by its start, is linked to the one before."""
    listed = ordered(runs)
    for at, run in enumerate(listed):
        yield _link(run, listed[at - 1] if at else None, listed)


def _link(run: Run, before: Run | None, listed: Sequence[Run]) -> Part:
    place, previous = str(run.directory), run.manifest.previous
    if before is None:
        return _first(run, listed)
    if previous is None:
        return Part("FAIL", place, f"the chain begins anew: it follows no run, although {_name(before)} was before it")
    if previous.sha256 == before.sha256:
        return Part("ok", place, f"follows {_name(before)}")
    if run.sha256 == before.sha256:
        return Part("FAIL", place, f"the same run as {before.directory}")
    for other in listed:
        if other.sha256 == previous.sha256:
            return Part("FAIL", place, f"out of order: it follows {_name(other)}, not {_name(before)}")
    for other in listed:
        if other.manifest.started == previous.started and other is not run:
            return Part(
                "FAIL", place, f"{other.directory} was replaced or changed: it is not the run that this one follows"
            )
    return Part("FAIL", place, f"the run of {previous.started} that it follows is missing")


def _first(run: Run, listed: Sequence[Run]) -> Part:
    place, previous = str(run.directory), run.manifest.previous
    if previous is None:
        return Part("ok", place, "the first of its chain")
    for other in listed:
        if other.sha256 == previous.sha256:
            return Part("FAIL", place, f"out of order: it follows {_name(other)}, which started later")
    return Part("note", place, f"follows a run of {previous.started} that was not given, so not checked before here")


def _name(run: Run) -> str:
    return f"{run.directory} ({run.manifest.started})"
