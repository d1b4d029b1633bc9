"""A whole fleet through an executor: every target ends in one entry, and what failed is an entry too."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from rlsaudit import __version__
from rlsaudit.config import FILENAME as CONFIGURATION
from rlsaudit.fleet.result import EVIDENCE, Entry, entry
from rlsaudit.fleet.targets import Target
from rlsaudit.fleet.work import Done, Job, work
from rlsaudit.source.dsn import looks_like_dsn, redact
from rlsaudit.source.files import with_included
from rlsaudit.waivers import FILENAME as WAIVERS

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
        places = () if chained is None else (chained / target.name, set_aside(chained, target.name))
        last = next((place for place in places if (place / EVIDENCE).is_file()), None)
        more = ("--previous", str(last.resolve())) if last is not None else ()
        waiting[executor.submit(work, Job(target, (*options, *more), stands))] = target
    for future in as_completed(waiting):
        target = waiting.pop(future)  # and with it the files of its report, once they are kept
        try:
            done = future.result()
        except Exception as error:  # noqa: BLE001 - whatever an executor raises when it loses its worker
            said = redact(f"the work could not be done: {type(error).__name__}: {error}")
            done = Done(target.name, 3, said, 0.0, 0)
        before = known.get(target.name)
        if done.unchanged and before is not None:
            yield replace(before, stands=True)
            continue
        keep(done)
        yield entry(target, done, asked[target.name])


def _asked(target: Target, options: Sequence[str]) -> str:
    """sha256 over the target without its password, the options, the version, and all files that its run may read.

    Where findings are waived the day counts as well, because waivers expire.
    """
    about = asdict(replace(target, source=redact(target.source)))
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("RLSAUDIT_"))
    digest = hashlib.sha256(json.dumps([about, list(options), __version__, settings]).encode())
    waivers = Path(target.waivers or os.environ.get("RLSAUDIT_WAIVERS") or WAIVERS)
    digest.update(datetime.now(UTC).date().isoformat().encode() if waivers.is_file() else b"")
    beside = [target.config] if target.config else [CONFIGURATION, "pyproject.toml"]
    named = [*(Path(name) for name in beside), waivers]
    if not looks_like_dsn(target.source):
        source = Path(target.source)
        named += with_included(source) if source.is_file() else [source]
    for place in named:
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file():
                digest.update(f"\0{file}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def set_aside(directory: Path, name: str) -> Path:
    """Where a target's last report lies while a later run has none: hidden, so that nobody takes it for a new one."""
    return directory / ".earlier" / name


def finished(directory: Path, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Those whose evidence still lies in ``directory``."""
    return {name: one for name, one in entries.items() if (directory / name / EVIDENCE).is_file()}
