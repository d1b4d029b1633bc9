"""Leaks that go around a relation's policies: through a view, a function or a partition.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.finding import Finding


def open_doors(catalog: Catalog, findings: Iterable[Finding]) -> Mapping[tuple[str, str], str]:
    """Relation and role → the leak that reaches the relation's rows by another name, such as ``F-3 (public.totals)``."""
    named = {relation.qualified: relation for relation in catalog.relations}
    doors: dict[tuple[str, str], str] = {}
    for finding in findings:
        if finding.source == "probe" and finding.status == "open" and finding.property in ("read", "write", "forge"):
            for relation in _behind(catalog, finding, named):
                for role in (finding.role, *finding.roles):
                    doors.setdefault((relation.qualified, role), f"{finding.id} ({finding.object})")
    return doors


def _behind(catalog: Catalog, finding: Finding, named: Mapping[str, Relation]) -> Iterator[Relation]:
    """Relations whose rows the leak reached, but for the one that was named in its statement."""
    waiting = [named[name] for name in (finding.object, *finding.also) if name in named]
    if not waiting and (stake := named.get(finding.relation)) is not None:
        yield stake
    seen = {one.oid for one in waiting}
    while waiting:
        one = waiting.pop()
        for oid in (*catalog.mentions("relation", one.oid, "relation"), *one.parents):
            behind = catalog.find_relation(oid)
            if behind is not None and oid not in seen:
                seen.add(oid)
                waiting.append(behind)
                yield behind
