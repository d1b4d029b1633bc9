"""The class of every relation, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Column, Constraint, Relation
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.tenancy import words
from rlsaudit.tenancy.keys import Keys
from rlsaudit.tenancy.model import TENANT_DATA, Classified, Step
from rlsaudit.tenancy.sources import Reading

_BARE = frozenset({"tenant", "org", "organization", "organisation", "customer", "workspace"})
_WRITES = ("INSERT", "UPDATE", "DELETE", "TRUNCATE")


def classify(
    catalog: Catalog,
    reading: Reading,
    keys: Keys,
    roles: tuple[int, ...],
    visibility: Visibility,
    declared: Mapping[int, Classified],
) -> dict[int, Classified]:
    """Every relation of the catalog, in catalog order.  ``declared`` classes come from the configuration."""
    found = dict(declared)
    for relation in catalog.relations:
        if relation.oid not in found and (one := _direct(catalog, relation, reading, keys)):
            found[relation.oid] = one
    _principals(catalog, reading, keys, found)
    _by_foreign_key(catalog, found)
    _by_parent(catalog, found)
    _views(catalog, keys, found)
    for relation in catalog.relations:
        if relation.oid not in found:
            found[relation.oid] = _rest(relation, roles, visibility)
    return {relation.oid: found[relation.oid] for relation in catalog.relations}


def _direct(catalog: Catalog, relation: Relation, reading: Reading, keys: Keys) -> Classified | None:
    key = keys.columns.get(relation.oid) or _same_stem(catalog, relation, keys)
    if key is None or not relation.holds_rows or words.infrastructure(relation.name):
        return None
    column = relation.column(key[0])
    optional = column is not None and not column.not_null
    shared = optional and (relation.oid, key[0]) in reading.null_allowed
    why = key[1] + ("; rows without a key are shared" if shared else "")
    if relation.oid == keys.registry:
        return Classified(relation.oid, "registry", why, key[0])
    membership = relation.oid in reading.consulted and any(
        use.source in keys.user_sources for use in reading.uses_of(relation.oid)
    )
    if membership:
        return Classified(relation.oid, "membership", f"{why}; policies look the user up in it", key[0])
    return Classified(relation.oid, "tenant", why, key[0], shared_rows=shared)


def _same_stem(catalog: Catalog, relation: Relation, keys: Keys) -> tuple[str, str] | None:
    """A column ``tenant`` where the key is ``tenant_id`` and both are of one type."""
    name = keys.names[0] if keys.names else ""
    if not words.tenant_like(name) or not relation.holds_rows or relation.is_partition:
        return None
    stem = words.stem(name)
    spelled = {f"{stem}{end}".replace("_", "") for end in ("", "id", "uuid", "key")}
    holders = (catalog.relation(oid) for oid, (key, _) in keys.columns.items() if key == name)
    types = {_family(column) for holder in holders if (column := holder.column(name))}
    for column in relation.columns:
        if column.name.lower().replace("_", "") in spelled and _family(column) in types:
            return column.name, f"column {column.name}, as {name} elsewhere"
    return None


def _family(column: Column) -> str:
    """The type, alike for those that hold the same values."""
    return {"smallint": "integer", "bigint": "integer", "character varying": "text"}.get(
        column.base_type, column.base_type
    )


def _principals(catalog: Catalog, reading: Reading, keys: Keys, found: dict[int, Classified]) -> None:
    """Users without a tenant key: what memberships refer to, or whose primary key policies hold against the user."""
    columns = {(use.relation, use.column) for use in reading.uses if use.source in keys.user_sources}
    for constraint in catalog.constraints:
        if constraint.kind != "foreign key" or len(constraint.columns) != 1:
            continue
        child, parent = (
            catalog.find_relation(constraint.relation),
            catalog.find_relation(constraint.referenced),
        )
        column = child.column_number(constraint.columns[0]) if child else None
        if child is None or parent is None or column is None or parent.oid in found or not parent.holds_rows:
            continue
        if (child.oid, column.name) in columns or (
            words.user_like(column.name) and words.user_like(parent.name.rstrip("s"))
        ):
            why = f"{child.qualified}.{column.name} refers to it: users without a tenant key of their own"
            found[parent.oid] = Classified(parent.oid, "principal", why)
    for oid, name in sorted(columns):
        relation = catalog.find_relation(oid)
        if relation is None or oid in found or not relation.holds_rows:
            continue
        if _ties(catalog, relation, name, found):
            continue
        why = f"policies hold {name} against the acting user"
        found[oid] = Classified(oid, "principal", why)


def _ties(catalog: Catalog, relation: Relation, column: str, found: Mapping[int, Classified]) -> bool:
    """Whether the relation ties users to something that a tenant owns, as the members of a team do: not users itself."""
    seen = {relation.oid}
    queue = [relation]
    for one in queue:
        for constraint in catalog.constraints_of(one.oid):
            parent = catalog.find_relation(constraint.referenced) if constraint.kind == "foreign key" else None
            if parent is None or parent.oid in seen or _optional(one, constraint):
                continue
            known = found.get(parent.oid)
            if known is not None and known.key is not None and known.kind in TENANT_DATA:
                return not _alone(catalog, relation, column)
            seen.add(parent.oid)
            queue += [parent] if known is None else []
    return False


def _alone(catalog: Catalog, relation: Relation, column: str) -> bool:
    """Whether the column is the primary key by itself."""
    found = relation.column(column)
    return found is not None and any(
        c.kind == "primary key" and c.columns == (found.number,) for c in catalog.constraints_of(relation.oid)
    )


def _by_foreign_key(catalog: Catalog, found: dict[int, Classified]) -> None:
    """Children without a key of their own belong to whom their parent belongs; nearest parents first."""
    waiting = [r for r in catalog.relations if r.oid not in found and r.holds_rows and not r.is_partition]
    while True:
        reached = [(relation, way) for relation in waiting if (way := _step(catalog, relation, found))]
        if not reached:
            return
        for relation, (step, parent) in reached:
            depth = len(parent.path) + 1
            target = catalog.relation(step.relation).qualified
            why = f"via {', '.join(step.columns)} → {target} (FK depth {depth})"
            found[relation.oid] = Classified(relation.oid, "tenant", why, parent.key, (step, *parent.path))
            waiting.remove(relation)


def _step(catalog: Catalog, relation: Relation, found: Mapping[int, Classified]) -> tuple[Step, Classified] | None:
    best: tuple[tuple[bool, bool, int], Step, Classified] | None = None
    for constraint in catalog.constraints_of(relation.oid):
        parent = found.get(constraint.referenced) if constraint.kind == "foreign key" else None
        if parent is None or parent.kind not in TENANT_DATA or constraint.referenced == relation.oid:
            continue
        # A parent with a key tells the tenant better than a user does, and a column that must be filled better than one that need not.
        rank = (parent.kind == "principal", _optional(relation, constraint), len(parent.path))
        if best is None or rank < best[0]:
            best = (rank, _as_step(catalog, constraint), parent)
    return (best[1], best[2]) if best else None


def _optional(relation: Relation, constraint: Constraint) -> bool:
    columns = (relation.column_number(number) for number in constraint.columns)
    return any(column is not None and not column.not_null for column in columns)


def _as_step(catalog: Catalog, constraint: Constraint) -> Step:
    child, parent = catalog.relation(constraint.relation), catalog.relation(constraint.referenced)
    ours = (child.column_number(number) for number in constraint.columns)
    theirs = (parent.column_number(number) for number in constraint.referenced_columns)
    return Step(
        constraint.oid,
        parent.oid,
        tuple(column.name for column in ours if column),
        tuple(column.name for column in theirs if column),
    )


def _by_parent(catalog: Catalog, found: dict[int, Classified]) -> None:
    """Partitions and inheritance children are what their parent is."""
    pending = [relation for relation in catalog.relations if relation.parents and relation.oid not in found]
    for _ in range(len(pending)):
        for relation in pending:
            parent = next((found[oid] for oid in relation.parents if oid in found), None)
            if parent is not None and relation.oid not in found:
                noun = "partition" if relation.is_partition else "inheritance child"
                why = f"{noun} of {catalog.relation(relation.parents[0]).qualified}"
                found[relation.oid] = Classified(
                    relation.oid,
                    parent.kind,
                    why,
                    parent.key,
                    parent.path,
                    parent.shared_rows,
                    parent.declared,
                )


def _views(catalog: Catalog, keys: Keys, found: dict[int, Classified]) -> None:
    """A view or materialized view that reads tenant data shows tenant data."""
    waiting = [r for r in catalog.relations if r.kind in ("view", "materialized view") and r.oid not in found]
    while waiting:
        left = []
        for view in waiting:
            read = [oid for oid in catalog.mentions("relation", view.oid, "relation") if oid in found]
            tenant = next((oid for oid in read if found[oid].kind in TENANT_DATA), None)
            if tenant is None:
                left.append(view)
                continue
            key = next((name for name in keys.names if view.column(name)), None)
            how = " · security_invoker" if view.security_invoker else ""
            why = f"reads {catalog.relation(tenant).qualified}{how}"
            found[view.oid] = Classified(view.oid, "tenant", why, key)
        if len(left) == len(waiting):
            return
        waiting = left  # a view may read another one that comes later


def _rest(relation: Relation, roles: tuple[int, ...], visibility: Visibility) -> Classified:
    if relation.kind == "sequence":
        return Classified(relation.oid, "infrastructure", "sequence: numbers, no rows of tenants")
    if words.infrastructure(relation.name) or relation.extension is not None:
        owner = (
            f"belongs to extension {relation.extension}" if relation.extension else "bookkeeping of a migration tool"
        )
        return Classified(relation.oid, "infrastructure", owner)
    if relation.kind in ("view", "materialized view"):
        return Classified(relation.oid, "global", "reads no tenant data")
    writers = [role for role in roles if any(visibility.may(role, relation, command) for command in _WRITES)]
    if writers:
        why = "no tenant key found, and an application role may write it"
        return Classified(relation.oid, "unclassified", why)
    reads = any(visibility.may(role, relation, "SELECT") for role in roles)
    suspect = next((c.name for c in relation.columns if words.tenant_like(c.name) or c.name.lower() in _BARE), None)
    if reads and suspect is not None:
        why = f"an application role reads it, and column {suspect} looks like a tenant key that nothing confirms"
        return Classified(relation.oid, "unclassified", why)
    why = "no tenant key; application roles may " + ("only read it" if reads else "not touch it")
    return Classified(relation.oid, "global", why)
