"""Which relations stand near each other: by foreign keys, views, partitions.  Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator

from rlsaudit.catalog.relations import COMMANDS
from rlsaudit.catalog.snapshot import fingerprints
from rlsaudit.probe.attacks.learning import Neighbourhood
from rlsaudit.probe.attacks.reach import words_of
from rlsaudit.probe.attacks.sweep import Arena

_WIDEST = 8
"""Relations of one neighbourhood: those that refer to a hub have neighbourhoods of their own, in which it stands."""


def neighbourhoods(
    arena: Arena, role: int, name: str, unproven: Container[tuple[int, str]] = ()
) -> Iterator[Neighbourhood]:
    """One for each relation on which ``role``, called ``name``, may do anything, in the catalog's order."""
    allowed = {r.oid: r for r in arena.relations() if any(arena.visibility.may(role, r, c) for c in COMMANDS)}
    near, reached, marks = _near(arena), _through_doors(arena), fingerprints(arena.catalog)
    for oid, relation in allowed.items():
        beside = (other for other in near[oid] if other in allowed and other != oid)
        yield Neighbourhood(
            name,
            relation.qualified,
            (oid, *dict.fromkeys(beside))[:_WIDEST],
            marks[oid],
            unproven=any((oid, command) in unproven for command in COMMANDS),
            door=oid in reached,
        )


def _near(arena: Arena) -> dict[int, list[int]]:
    """Relation → what it refers to and reads, its views, its partition tree, and what refers to it, in that order."""
    up, across, down = (defaultdict[int, list[int]](list) for _ in range(3))
    for constraint in arena.catalog.constraints:
        if constraint.kind == "foreign key":
            up[constraint.relation].append(constraint.referenced)
            down[constraint.referenced].append(constraint.relation)
    for one in arena.catalog.dependencies:
        if (one.source_kind, one.target_kind) == ("relation", "relation"):
            up[one.source].append(one.target)
            across[one.target].append(one.source)
    for relation in arena.catalog.relations:
        for parent in relation.parents:
            across[relation.oid].append(parent)
            across[parent].append(relation.oid)
    found = defaultdict[int, list[int]](list)
    for way in (up, across, down):
        for oid, others in way.items():
            found[oid] += others
    return found


def _through_doors(arena: Arena) -> frozenset[int]:
    """Views, what they read, and what a function may reach that runs as its owner."""
    catalog = arena.catalog
    views = {relation.oid for relation in catalog.relations if relation.kind in ("view", "materialized view")}
    read = {one.target for one in catalog.dependencies if one.target_kind == "relation" and one.source in views}
    definers = {function.oid: function for function in catalog.functions if function.security_definer}
    read |= {one.target for one in catalog.dependencies if one.target_kind == "relation" and one.source in definers}
    words = frozenset[str]().union(*(words_of(function.source) for function in definers.values()))
    return frozenset(views | read | {r.oid for r in catalog.relations if r.name.lower() in words})
