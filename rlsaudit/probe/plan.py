"""What to seed, in which order, and which values a foreign key or the tenant key dictates.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rlsaudit.catalog.model import Catalog, Constraint, Relation
from rlsaudit.tenancy.model import Tenancy

# Case twins, shared prefixes, LIKE wildcards and equal remainders: keys that a sloppy comparison confuses.
_INTEGER_KEYS = ("1", "11", "17", "101")
_UUID_KEYS = (
    "a0000000-0000-4000-8000-00000000000a",
    "a0000000-0000-4000-8000-00000000000b",
    "b0000000-0000-4000-8000-00000000000a",
    "a0000000-0000-4000-9000-00000000000a",
)
_TEXT_FAMILIES = (
    ("ten_1", "ten_11", "TEN_1", "tenx1"),
    ("acme", "ACME", "acmex", "acm"),
    ("acme1", "acme11", "acme2", "acme12"),
    ("acme", "acmex", "globex", "acm"),
    ("1", "11", "101", "1001"),
    _UUID_KEYS,
)
TENANTS = 3
_BOUND = re.compile(r"'((?:[^']|'')*)'|([\w.+-]+)(?=[,)])")


def key_families(tenancy: Tenancy) -> tuple[tuple[str, ...], ...]:
    """Sets of tenant keys to try, adversarial ones first; the first whose registry rows the server accepts is used."""
    named = tenancy.key_values
    families: tuple[tuple[str, ...], ...]
    match tenancy.key_type:
        case "uuid":
            families = (_UUID_KEYS,)
        case "smallint" | "integer" | "bigint" | "numeric":
            families = (_INTEGER_KEYS,)
        case _:
            families = _TEXT_FAMILIES
    if named:
        filled = [tuple(dict.fromkeys((*named, *family))) for family in families]
        families = (*filled, *families)
    return tuple(family[: TENANTS + (tenancy.key_type != "uuid")] for family in families)


def user_values(tenancy: Tenancy, count: int) -> tuple[str, ...]:
    """One principal per tenant, of the principal's type."""
    match tenancy.user_type:
        case "uuid":
            return tuple(f"{0xE0 + n:02x}000000-0000-4000-8000-00000000000{n}" for n in range(count))
        case "smallint":
            return tuple(str(9001 + n) for n in range(count))
        case "integer" | "bigint" | "numeric":
            return tuple(str(90_000_001 + n) for n in range(count))
        case _:
            return tuple(f"user{n}x{n}90" for n in range(count))


def seedable(catalog: Catalog, tenancy: Tenancy) -> tuple[Relation, ...]:
    """Relations that need rows, parents first: tenant data, and whatever it references.

    A cycle of foreign keys is cut where the referencing columns may be NULL, or else anywhere.
    """
    wanted = [r for oid in tenancy.tenant_data() if _fillable(r := catalog.relation(oid))]
    queue = list(wanted)
    while queue:
        for constraint in foreign_keys(catalog, queue.pop()):
            parent = catalog.find_relation(constraint.referenced)
            if parent is not None and _fillable(parent) and parent not in wanted:
                wanted.append(parent)
                queue.append(parent)
    return tuple(_parents_first(catalog, wanted))


def _fillable(relation: Relation) -> bool:
    return relation.kind in ("table", "partitioned table") and not relation.is_partition and relation.extension is None


def _parents_first(catalog: Catalog, wanted: list[Relation]) -> Iterable[Relation]:
    pending = {relation.oid: relation for relation in sorted(wanted, key=lambda r: r.qualified)}
    while pending:
        chosen = min(pending.values(), key=lambda r: (*_blocked(catalog, r, pending), r.qualified))
        del pending[chosen.oid]
        yield chosen


def _blocked(catalog: Catalog, relation: Relation, pending: dict[int, Relation]) -> tuple[int, int]:
    """(unmet parents that a NOT NULL column needs, unmet parents at all)."""
    unmet = [c for c in foreign_keys(catalog, relation) if c.referenced in pending and c.referenced != relation.oid]
    return sum(not nullable(relation, c) for c in unmet), len(unmet)


def leaves(catalog: Catalog, root: Relation) -> Iterator[tuple[Relation, dict[str, str]]]:
    """(leaf partition, partition key column → a value inside its bounds); no values for hash and default partitions."""
    for child in catalog.children_of(root.oid):
        found = _inside(root, child)
        if child.kind == "partitioned table":
            yield from ((leaf, {**found, **deeper}) for leaf, deeper in leaves(catalog, child))
        else:
            yield child, found


def _inside(parent: Relation, child: Relation) -> dict[str, str]:
    """The first listed value, or the inclusive lower bound of a range (``FOR VALUES FROM ('a') TO ('b')``)."""
    strategy, _, listed = (parent.partition_key or "").partition(" (")
    columns = [name.strip().strip('"') for name in listed.removesuffix(")").split(",")]
    bound = (child.partition_bound or "").removeprefix("FOR VALUES ")
    if strategy == "LIST" and bound.startswith("IN "):
        values = _BOUND.findall(bound)[:1]
    elif strategy == "RANGE" and bound.startswith("FROM "):
        values = _BOUND.findall(bound.partition(" TO ")[0])
    else:
        return {}
    return {
        column: (quoted or bare).replace("''", "'")
        for column, (quoted, bare) in zip(columns, values, strict=False)
        if bare not in ("MINVALUE", "MAXVALUE", "NULL") and parent.column(column) is not None
    }


def foreign_keys(catalog: Catalog, relation: Relation) -> tuple[Constraint, ...]:
    return tuple(c for c in catalog.constraints_of(relation.oid) if c.kind == "foreign key")


def nullable(relation: Relation, constraint: Constraint) -> bool:
    """True when a NULL in one of the columns releases the foreign key."""
    columns = (relation.column_number(number) for number in constraint.columns)
    return any(column is not None and not column.not_null for column in columns)


def column_pairs(catalog: Catalog, constraint: Constraint) -> tuple[tuple[str, str], ...]:
    """(referencing column, referenced column) names of a foreign key."""
    child, parent = catalog.relation(constraint.relation), catalog.relation(constraint.referenced)
    pairs = []
    for here, there in zip(constraint.columns, constraint.referenced_columns, strict=True):
        ours, theirs = child.column_number(here), parent.column_number(there)
        if ours is not None and theirs is not None:
            pairs.append((ours.name, theirs.name))
    return tuple(pairs)
