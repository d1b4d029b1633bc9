"""A whole fleet through an executor: every target ends in one entry, and what failed is an entry too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from dataclasses import asdict, replace
from pathlib import Path

from rlsaudit import __version__
from rlsaudit.fleet.result import EVIDENCE, Entry, entry
from rlsaudit.fleet.targets import Target
from rlsaudit.fleet.work import Done, Job, work
from rlsaudit.source.dsn import looks_like_dsn

Keep = Callable[[Done], None]
"""Takes the files of a target as soon as it is finished."""


def run(
    targets: Sequence[Target], options: Sequence[str], executor: Executor, known: Mapping[str, Entry], keep: Keep,
    chained: Path | None = None,
) -> Iterator[Entry]:  # fmt: skip
    """Test every target; yields each one's entry when it is finished, in no order.

    ``known`` are entries of an earlier run to go on from: what was finished and asked the same way stands, where the
    catalog is the same.  ``chained`` is a directory that the work can reach, where earlier reports lie to which the new
    ones' manifests are chained.  A target whose work the executor could not do is an entry without a verdict.
    """
    asked = {target.name: _asked(target, options) for target in targets}
    waiting: dict[Future[Done], Target] = {}
    for target in targets:
        before = known.get(target.name)
        same = before is not None and before.outcome != "no verdict" and before.asked == asked[target.name]
        if before is not None and same and not looks_like_dsn(target.source):
            yield replace(before, stands=True)  # the files are part of what was asked
            continue
        stands = before.catalog if before is not None and same else ""
        last = chained / target.name if chained is not None else None
        more = ("--previous", str(last.resolve())) if last is not None and (last / EVIDENCE).is_file() else ()
        waiting[executor.submit(work, Job(target, (*options, *more), stands))] = target
    for future in as_completed(waiting):
        target = waiting[future]
        try:
            done = future.result()
        except Exception as error:  # noqa: BLE001 - whatever an executor raises when it loses its worker
            done = Done(target.name, 3, f"the work could not be done: {type(error).__name__}: {error}", 0.0, 0)
        before = known.get(target.name)
        if done.unchanged and before is not None:
            yield replace(before, stands=True)
            continue
        keep(done)
        yield entry(target, done, asked[target.name])


def _asked(target: Target, options: Sequence[str]) -> str:
    """sha256 over the target, the options, the version, and the files that they name."""
    digest = hashlib.sha256(json.dumps([asdict(target), list(options), __version__]).encode())
    named = [target.config, target.waivers, *([] if looks_like_dsn(target.source) else [target.source])]
    for place in (Path(name) for name in named if name):
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file():
                digest.update(f"\0{file}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def finished(directory: Path, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Those whose evidence still lies in ``directory``."""
    return {name: one for name, one in entries.items() if (directory / name / EVIDENCE).is_file()}
