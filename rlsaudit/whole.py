"""The whole run out of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from rlsaudit.assemble import assemble
from rlsaudit.catalog import snapshot
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.clock import Clock
from rlsaudit.errors import NotTrustworthy
from rlsaudit.opening import Opened, declared_for
from rlsaudit.options import Options, Progress
from rlsaudit.prove.prove import prove
from rlsaudit.scan import Scanned, audited, pieces_of
from rlsaudit.shards import Part, checked, joined
from rlsaudit.tenancy.infer import infer


def merge(parts: Sequence[Part], options: Options, progress: Progress) -> Scanned:
    """The parts' catalog is audited and proven again; it is probed as they did.

    Raises NotTrustworthy when the parts are not those of one whole run, UsageError when their catalog cannot be read.
    """
    clock = Clock()
    catalog = snapshot.parse(parts[0].catalog)
    if any(part.configuration_hash != options.configuration_hash for part in parts):
        raise NotTrustworthy("the parts were made with another configuration than the one that is in force here")
    parts = checked(parts, catalog)
    first = parts[0]
    tenancy = infer(catalog, declared_for(replace(options, preset=first.preset), catalog))
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    places = {name: (file, line) for name, file, line in first.places}
    opened = Opened(catalog, tenancy, notes, None, None if first.live else catalog, None, places=places)
    found, _ = audited(opened, options, progress, clock)
    with clock.timed("prove"):
        proofs = prove(catalog, tenancy, visibility_of(catalog))
    probed = joined(parts)
    pieces = replace(
        pieces_of(opened, replace(options, source=first.source, seed=first.seed), clock, found, proofs, probed),
        scratch_version=first.scratch_version,
        started=min(datetime.fromisoformat(part.started) for part in parts),
        seconds=sum(part.seconds for part in parts) + clock.seconds,
    )
    return Scanned(assemble(pieces), probed.schema, (), probed.interrupted)
