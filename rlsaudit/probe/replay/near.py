"""Which of the seeded rows a leak can hang on, as far as the catalog says."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from rlsaudit.probe.ground.leak import Leak
from rlsaudit.probe.replay.script import SeedRow, Stage


def near(stage: Stage, leak: Leak, rows: Iterable[SeedRow]) -> tuple[SeedRow, ...]:
    """Rows of the relations that the leak is about, of those that views among them read, and of those that policies on
    these ask; beside an interference those that foreign keys tie to it: as a rule all that it takes, and few of a large schema's."""
    relations = _relations(stage, leak)
    return tuple(one for one in rows if one.relation.oid in relations)


def _relations(stage: Stage, leak: Leak) -> set[int]:
    catalog = stage.catalog
    found, waiting = set[int](), {leak.relation, leak.changed}
    if leak.world:  # what a foreign key tells
        waiting.update(one.referenced for one in catalog.constraints_of(leak.relation) if one.kind == "foreign key")
        waiting.update(one.relation for one in catalog.references_to(leak.relation))
    while waiting:
        found |= waiting
        policies = [policy.oid for oid in waiting for policy in catalog.policies_of(oid)]
        more = [
            *(catalog.mentions("relation", oid, "relation") for oid in waiting),
            *(catalog.mentions("policy", oid, "relation") for oid in policies),
            *(one.parents for oid in waiting if (one := catalog.find_relation(oid)) is not None),
            *(tuple(one.oid for one in catalog.children_of(oid)) for oid in waiting),
        ]
        waiting = set(chain.from_iterable(more)) - found
    return found
