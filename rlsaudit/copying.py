"""Where the scratch copy of a live database is made: in a server of our own, or on the target's cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.errors import NotTrustworthy
from rlsaudit.source.clone import WAYS_OUT, clone, clone_on_target
from rlsaudit.source.on_target import TargetScratch
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.infer import Declared, infer
from rlsaudit.tenancy.model import Tenancy
from rlsaudit.untested import Untested, untested

Server = ScratchServer | TargetScratch


@dataclass(frozen=True)
class Copied:
    """A copy of a live schema in a scratch database, and what of the target it does not have."""

    server: Server
    catalog: Catalog
    tenancy: Tenancy
    notes: tuple[str, ...]
    gaps: Untested


@contextmanager
def copied(
    source: str,
    pg_bin: Path | None,
    database: str,
    catalog: Catalog,
    tenancy: Tenancy,
    declared: Declared,
    *,
    on_target: bool,
) -> Iterator[Copied]:
    """Copy what ``source`` opens, of which ``catalog`` and ``tenancy`` tell, into ``database``; the server runs while
    the block does.  Raises NotTrustworthy: there is no copy, or nothing of it could be tested.
    """
    with TargetScratch(source, pg_bin) if on_target else ScratchServer(pg_bin) as server:
        if isinstance(server, TargetScratch):
            if tenancy.context.login:
                raise NotTrustworthy(
                    "each tenant logs in as a role of its own, and no such roles can be made on the target's cluster; leave "
                    "out --scratch-on-target"
                )
            notes = clone_on_target(source, catalog, server, database)
        else:
            notes = clone(source, catalog, server, database)
        with server.connect(database) as connection:
            there = load_catalog(connection)
        gaps = untested(catalog, there)
        _require_something(catalog, tenancy, there, notes)
        # Roles that the target's inference found are the ones to test, whatever the copy alone would suggest.
        known = {relation.qualified for relation in there.relations}
        kept = {name: one for name, one in declared.relations.items() if name in known or name not in gaps.relations}
        said = replace(declared, roles=tuple(role.name for role in tenancy.roles), relations=kept)
        yield Copied(server, there, infer(there, said), notes, gaps)


def _require_something(catalog: Catalog, tenancy: Tenancy, there: Catalog, notes: tuple[str, ...]) -> None:
    wanted = {catalog.relation(oid).qualified for oid in tenancy.tenant_data()}
    if wanted and wanted.isdisjoint(relation.qualified for relation in there.relations):
        why = next((note for note in notes if WAYS_OUT in note), f"nothing of it could be restored; {WAYS_OUT}")
        raise NotTrustworthy(f"no tenant relation could be made in the scratch copy: {why}")
