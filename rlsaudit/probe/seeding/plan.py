"""What to seed, in which order, and which values a foreign key or the tenant key dictates.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Constraint, Relation
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.tenancy.model import Tenancy

# Case twins, shared prefixes, LIKE wildcards and equal remainders: keys that a sloppy comparison confuses.
_INTEGER_KEYS = ("1", "11", "17", "101")
# Equal as double precision, and the second like the first of all to any remainder by 2, 8, 10, 16, 100 or 256.
_BIGINT_KEYS = ("1", "11", "9007199254745601", "9007199254745600")
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


def key_families(tenancy: Tenancy) -> tuple[tuple[str, ...], ...]:
    """Sets of tenant keys to try, adversarial ones first; the first whose registry rows the server accepts is used."""
    named = tenancy.key_values
    families: tuple[tuple[str, ...], ...]
    match tenancy.key_type:
        case "uuid":
            families = (_UUID_KEYS,)
        case "bigint" | "numeric":
            families = (_BIGINT_KEYS, _INTEGER_KEYS)
        case "smallint" | "integer":
            families = (_INTEGER_KEYS,)
        case _:
            families = _TEXT_FAMILIES
    if named:
        filled = [tuple(dict.fromkeys((*named, *family))) for family in families]
        # Login roles were made for the first family; there are no others to fall back upon.
        families = tuple(filled[:1]) if tenancy.context.login else (*filled, *families)
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


def seedable(catalog: Catalog, tenancy: Tenancy, more: tuple[Relation, ...] = ()) -> tuple[Relation, ...]:
    """Relations that need rows, parents first: tenant data, ``more``, and whatever they reference.

    A cycle of foreign keys is cut where the referencing columns may be NULL, or else anywhere.
    """
    wanted = [r for oid in tenancy.tenant_data() if _fillable(r := catalog.relation(oid))]
    wanted += [relation for relation in more if relation not in wanted]
    queue = list(wanted)
    while queue:
        for constraint in foreign_keys(catalog, queue.pop()):
            parent = catalog.find_relation(constraint.referenced)
            if parent is not None and _fillable(parent) and parent not in wanted:
                wanted.append(parent)
                queue.append(parent)
    return tuple(_parents_first(catalog, wanted))


def readable(catalog: Catalog, tenancy: Tenancy, visibility: Visibility) -> tuple[Relation, ...]:
    """Relations without tenant data that an application role may read: empty ones would prove nothing."""
    return tuple(
        relation
        for relation in catalog.relations
        if _fillable(relation)
        and tenancy.of(relation.oid).kind in ("global", "infrastructure")
        and any(visibility.may(role.oid, relation, "SELECT") for role in tenancy.roles)
    )


def groups(catalog: Catalog, order: tuple[Relation, ...]) -> Iterator[tuple[Relation, ...]]:
    """``order`` in steps: one relation, or all of a cycle of foreign keys that no NULL can open."""
    place = {relation.oid: number for number, relation in enumerate(order)}
    needs = {
        relation.oid: {
            c.referenced for c in foreign_keys(catalog, relation) if c.referenced in place and not nullable(relation, c)
        }
        for relation in order
    }
    reached = {oid: _reached(oid, needs) for oid in needs}
    done: set[int] = set()
    for relation in order:
        if relation.oid not in done:
            cycle = [one for one in order if one.oid in reached[relation.oid] and relation.oid in reached[one.oid]]
            group = tuple(cycle) if len(cycle) > 1 else (relation,)
            done |= {one.oid for one in group}
            yield group


def _reached(start: int, needs: Mapping[int, set[int]]) -> set[int]:
    found: set[int] = set()
    queue = [start]
    while queue:
        for oid in needs[queue.pop()] - found:
            found.add(oid)
            queue.append(oid)
    return found


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


def leaves(catalog: Catalog, root: Relation) -> Iterator[Relation]:
    """The partitions that hold rows, at any depth."""
    for child in catalog.children_of(root.oid):
        if child.kind == "partitioned table":
            yield from leaves(catalog, child)
        elif child.is_partition:
            yield child


def foreign_keys(catalog: Catalog, relation: Relation) -> tuple[Constraint, ...]:
    return catalog.foreign_keys_of(relation.oid)


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
