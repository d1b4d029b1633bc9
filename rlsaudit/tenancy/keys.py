"""Which values name the tenant and which the user, and which column of each relation is the tenant key."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.tenancy import words
from rlsaudit.tenancy.role_constants import constants
from rlsaudit.tenancy.sources import ROLE, Reading, Source


@dataclass(frozen=True)
class Keys:
    """``columns``: relation OID → (tenant key column, why)."""

    columns: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    tenant_sources: frozenset[Source] = frozenset()
    user_sources: frozenset[Source] = frozenset()
    registry: int | None = None


def find_keys(catalog: Catalog, reading: Reading, declared: tuple[str, ...] = ()) -> Keys:
    """Infer from comparisons in policies, then from foreign keys, then from names; ``declared`` names come first."""
    constant, _ = constants(catalog, reading)
    primary = declared[:1] or tuple(filter(None, (constant or _primary_name(catalog, reading),)))
    if not primary:
        return Keys()
    name = primary[0]
    tenant_sources = frozenset(
        use.source
        for use in reading.uses
        if use.column == name and (use.source.setting == ROLE or _tenant_source(use.source, name))
    ) or frozenset(s for s in reading.sources if words.tenant_like(s.name))
    user_sources = frozenset(s for s in reading.sources - tenant_sources if _user_source(s, reading))
    if not declared and not words.tenant_like(name):
        # Another column of the same name that some policy holds against the user is not a second tenant key.
        tenant_sources -= user_sources
    columns: dict[int, tuple[str, str]] = {}
    for relation in catalog.relations:
        if found := _key_of(relation, reading, (*declared, name), tenant_sources, declared=bool(declared)):
            columns[relation.oid] = found
    registry = _registry(catalog, columns, name)
    if registry is not None:
        _through_registry(catalog, columns, registry)
    # A token of a session's row, say: the row names the tenant, and whoever brings the token acts for it.
    tokens = frozenset(source for source in tenant_sources if _names_a_row(source, reading, columns))
    tenant_sources, user_sources = tenant_sources - tokens, user_sources | tokens
    if not tenant_sources and not user_sources:
        user_sources = frozenset(source for source in reading.sources if _names_a_row(source, reading, columns))
    names = Counter(column for column, _ in columns.values())
    return Keys(columns, tuple(n for n, _ in names.most_common()), tenant_sources, user_sources, registry)


def _primary_name(catalog: Catalog, reading: Reading) -> str | None:
    """The column name that most relations are kept apart by."""
    compared: dict[str, set[int]] = defaultdict(set)
    by_role = role_alone(reading)
    for use in reading.uses:
        if use.column and (by_role or use.source.setting != ROLE):
            compared[use.column].add(use.relation)
    parents = _foreign_key_columns(catalog)
    for lookup in reading.lookups:
        # A child that looks its parent up says nothing of the key; a look-up in a membership does, on both sides.
        if (lookup.relation, lookup.column, lookup.through) not in parents:
            compared[lookup.column].add(lookup.relation)
            compared[lookup.through_column].add(lookup.through)
    referring = Counter(column for child, column, _ in parents if _alone(catalog, child, column))
    present: dict[str, set[int]] = defaultdict(set)
    for relation in catalog.relations:
        for column in relation.columns if relation.holds_rows else ():
            if words.tenant_like(column.name):
                present[column.name].add(relation.oid)
    scores = {
        name: 3 * len(compared[name])
        + len(present[name])
        + (6 + 2 * referring[name] if words.tenant_like(name) else 0)
        - (7 if words.user_like(name) else 0)
        for name in compared.keys() | present.keys()
        if name in compared or (len(present[name]) > 1 and not by_role)
    }
    # The name ``id`` is compared in a registry's own policy; the column that refers to it is the better name.
    candidates = [n for n in scores if n != "id"] or list(scores)
    return max(candidates, key=lambda n: (scores[n], n), default=None)


def role_alone(reading: Reading) -> bool:
    """Whether policies hold columns against the role of the session, and against nothing else that it brings."""
    held = {use.source.setting == ROLE for use in reading.uses if use.column}
    return held == {True}


def _foreign_key_columns(catalog: Catalog) -> set[tuple[int, str, int]]:
    """(child, column, parent) of every foreign key."""
    found = set()
    for constraint in catalog.constraints:
        child = catalog.find_relation(constraint.relation) if constraint.kind == "foreign key" else None
        for number in constraint.columns if child else ():
            column = child.column_number(number) if child else None
            if child is not None and column is not None:
                found.add((child.oid, column.name, constraint.referenced))
    return found


def _alone(catalog: Catalog, relation: int, column: str) -> bool:
    """True when the column is a foreign key by itself."""
    child = catalog.relation(relation)
    found = child.column(column)
    return found is not None and any(
        constraint.kind == "foreign key" and constraint.columns == (found.number,)
        for constraint in catalog.constraints_of(relation)
    )


def _tenant_source(source: Source, key: str) -> bool:
    """Whether a source held against the key may name the tenant: ``org_id IN (SELECT my_orgs())`` reads the user."""
    if words.role_like(source.name):
        return False
    return not words.user_like(source.name) or words.tenant_like(source.name) or words.user_like(key)


def _user_source(source: Source, reading: Reading) -> bool:
    if words.user_like(source.name):
        return True
    columns = {use.column for use in reading.uses if use.source == source and use.column}
    return bool(columns) and all(words.user_like(column) for column in columns)


def _names_a_row(source: Source, reading: Reading, columns: Mapping[int, tuple[str, str]]) -> bool:
    """Whether a source is held against a column that is no tenant key, of a relation that policies look the tenant up in."""
    held = [use for use in reading.uses if use.source == source and use.column and use.direct]
    keyed = any(columns.get(use.relation, ("",))[0] == use.column for use in held)
    return not keyed and any(use.relation != use.policy_relation for use in held)


def _key_of(
    relation: Relation, reading: Reading, names: tuple[str, ...], sources: frozenset[Source], *, declared: bool
) -> tuple[str, str] | None:
    # Every relation has an ``id``; it is the key of those alone whose policies compare it.
    telling = [name for name in names if declared or name != "id"]
    for name in telling:
        if relation.column(name) is not None and relation.kind != "sequence":
            return name, f"column {name}"
    for use in reading.uses_of(relation.oid):
        other_user = words.user_like(use.column) and not (use.source.setting == ROLE and words.user_like(names[-1]))
        if use.source in sources and use.column and not other_user:
            return use.column, f"policies hold {use.column} against {use.source}"
    # The same name in another spelling: customerId beside customer_id.
    folded = {name.replace("_", "").lower() for name in telling}
    for column in relation.columns if relation.holds_rows else ():
        if column.name.replace("_", "").lower() in folded:
            return column.name, f"column {column.name}, another spelling of {names[0]}"
    return None


def _registry(catalog: Catalog, columns: Mapping[int, tuple[str, str]], name: str) -> int | None:
    """The relation with one row per tenant: what key columns refer to, or whose primary key is the key itself."""
    referenced = Counter(
        constraint.referenced
        for constraint in catalog.constraints
        if constraint.kind == "foreign key"
        and len(constraint.columns) == 1
        and constraint.referenced != constraint.relation
        and (key := columns.get(constraint.relation))
        and (column := catalog.relation(constraint.relation).column_number(constraint.columns[0]))
        and column.name == key[0]
        and catalog.find_relation(constraint.referenced) is not None
    )
    if referenced:
        return referenced.most_common(1)[0][0]
    stem = words.stem(name)
    for relation in catalog.relations:
        if not relation.holds_rows:
            continue
        single = _single_key(catalog, relation)
        key = columns.get(relation.oid)
        if single and key and key[0] == single:
            return relation.oid
        if (
            single
            and stem
            and relation.name.lower() in (stem, f"{stem}s", f"{stem}es", f"{stem.removesuffix('y')}ies")
            and not key
        ):
            return relation.oid
    return None


def _single_key(catalog: Catalog, relation: Relation) -> str | None:
    for constraint in catalog.constraints_of(relation.oid):
        if constraint.kind == "primary key" and len(constraint.columns) == 1:
            column = relation.column_number(constraint.columns[0])
            return column.name if column else None
    return None


def _through_registry(catalog: Catalog, columns: dict[int, tuple[str, str]], registry: int) -> None:
    """A foreign key to the registry makes its column the tenant key, whatever it is called."""
    root = catalog.relation(registry)
    referenced_column = _single_key(catalog, root)
    for constraint in catalog.constraints:
        if constraint.kind != "foreign key" or constraint.referenced != registry:
            continue
        child = catalog.find_relation(constraint.relation)
        column = child.column_number(constraint.columns[0]) if child and len(constraint.columns) == 1 else None
        target = root.column_number(constraint.referenced_columns[0])
        if child is not None and column is not None and child.oid != registry:
            columns.setdefault(child.oid, (column.name, f"column {column.name} → {root.qualified}"))
        if (
            target is not None
            and child is not None
            and columns.get(child.oid, ("",))[0] == (column.name if column else None)
        ):
            referenced_column = target.name
    if referenced_column is not None:
        columns[registry] = (referenced_column, f"tenant registry: {referenced_column} is the tenant key")
