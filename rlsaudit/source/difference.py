"""How a copy of a schema differs from the target: every relation that is not there as it is on the target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function


def relations(target: Catalog, copy: Catalog) -> dict[str, str]:
    """Qualified name → what is not the same in the copy, of relations whose isolation it bears on."""
    copied = {relation.qualified: relation for relation in copy.relations}
    found: dict[str, str] = {}
    for relation in target.relations:
        if relation.extension is not None:
            continue
        other = copied.get(relation.qualified)
        missing = "it could not be made" if other is None else ", ".join(_missing(target, relation, copy, other))
        if missing:
            found[relation.qualified] = missing
    return found


def functions(target: Catalog, copy: Catalog) -> tuple[Function, ...]:
    """Functions of the target's schemas that the copy lacks."""
    there = {function.signature for function in copy.functions}
    return tuple(f for f in target.functions if f.extension is None and f.signature not in there)


def _missing(target: Catalog, relation: Relation, copy: Catalog, other: Relation) -> Iterator[str]:
    if (relation.rls_enabled, relation.rls_forced) != (other.rls_enabled, other.rls_forced):
        yield "row security is not switched as it is there"
    lacking = Counter(_parts(target, relation)) - Counter(_parts(copy, other))
    yield from (f"{part} could not be made" for part in lacking)


def _parts(catalog: Catalog, relation: Relation) -> Iterator[str]:
    """What of a relation decides which statements pass, by names that are the same in a copy."""
    yield from (f"policy {policy.name}" for policy in catalog.policies if policy.relation == relation.oid)
    yield from (f"trigger {trigger.name}" for trigger in catalog.triggers if trigger.relation == relation.oid)
    yield from (f"rule {rule.name}" for rule in catalog.rules if rule.relation == relation.oid)
    yield from (f"column {column.name}" for column in relation.columns)
    yield from (f"default of {column.name}" for column in relation.columns if column.default is not None)
    # An older server keeps no names for NOT NULL, and what a newer one makes up is none of the target's.
    # A partition's foreign keys come from its parent, under names that the server makes up.
    passed = {"not null", "trigger", *(["foreign key"] if relation.is_partition else [])}
    kept = (c for c in catalog.constraints if c.relation == relation.oid and c.kind not in passed)
    yield from (f"constraint {constraint.name}" for constraint in kept)
