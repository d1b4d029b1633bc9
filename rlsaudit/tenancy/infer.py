"""The whole inference, from a Catalog and what the user declared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rlsaudit.catalog.expression import Cast, Column, Setting, walk
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.collecting import without_collecting
from rlsaudit.errors import UsageError
from rlsaudit.tenancy import words
from rlsaudit.tenancy.attributes import attributes
from rlsaudit.tenancy.classes import classify
from rlsaudit.tenancy.context import infer_context
from rlsaudit.tenancy.keys import Keys, find_keys
from rlsaudit.tenancy.logins import settle, with_logins
from rlsaudit.tenancy.lookalikes import lookalikes
from rlsaudit.tenancy.model import Classified, Context, RelationClass, Seeding, Tenancy
from rlsaudit.tenancy.roles import application_roles
from rlsaudit.tenancy.session_rows import session_rows, with_rows
from rlsaudit.tenancy.sources import Reading, Source, read

_KEY_TYPES = ("uuid", "smallint", "integer", "bigint", "numeric")
_NOBODY = re.compile(r"[-0]*|-1|\W*|none|null|nobody|invalid|unset", re.IGNORECASE)
"""What is set so that no tenant is meant."""
_LISTED = re.compile(r"'((?:[^']|'')*)'")


@dataclass(frozen=True, slots=True)
class DeclaredRelation:
    """``[relations."schema.name"]`` of the configuration."""

    kind: RelationClass
    key: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Declared:
    """What the user said; empty parts are inferred."""

    roles: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    context: Context | None = None
    relations: Mapping[str, DeclaredRelation] = field(default_factory=dict)
    seeding: Seeding = field(default_factory=Seeding)
    services: frozenset[str] = frozenset()
    """Roles of the platform's own services: no client comes as one."""


@without_collecting()
def infer(catalog: Catalog, declared: Declared | None = None) -> Tenancy:
    """Classify every relation and infer key, context and roles.

    Raises UsageError when a declared role, relation or column does not exist.
    """
    declared = declared or Declared()
    visibility = visibility_of(catalog)
    reading = read(catalog)
    keys = find_keys(catalog, reading, declared.keys)
    chosen = application_roles(catalog, visibility, keys.columns, declared.roles, declared.services)
    roles, unmet, notes = chosen.roles, chosen.unmet, (*chosen.counted, *chosen.omitted)
    role_oids = tuple(role.oid for role in roles)
    stored = session_rows(catalog, role_oids, visibility)
    known = _declared(catalog, declared.relations)
    if stored is not None:
        why = f"holds the context of sessions, written by {stored.setter.signature}"
        known.setdefault(stored.relation.oid, Classified(stored.relation.oid, "infrastructure", why))
    classes = classify(catalog, reading, keys, role_oids, visibility, known)
    inferred = infer_context(catalog, reading, keys, role_oids, visibility)
    inferred = with_rows(inferred, stored) if stored is not None else inferred
    inferred = with_logins(catalog, reading, keys, inferred)
    context = _completed(declared.context, inferred) if declared.context else inferred
    key_type = _key_type(catalog, classes, keys)
    key_values = _key_values(catalog, keys)
    if not context.login:  # what names a role has a role's name
        key_values = tuple(dict.fromkeys((*key_values, *lookalikes(catalog, key_type))))
    user_type = _user_type(catalog, reading, keys, classes)
    if context.login:
        # One stands for the logins of all tenants, however many there are, and what is said of the others goes for all.
        settled = settle(catalog, visibility, keys, reading, context.login, (*roles, *unmet))
        roles, unmet, key_values = settled.roles, settled.unmet, key_values or settled.keys
        notes = (*chosen.omitted, *settled.notes)
    return Tenancy(
        relations=classes,
        key_columns=keys.names,
        key_type=key_type,
        user_type=user_type,
        registry=keys.registry,
        principal_columns=_able(catalog, user_type, _principal_columns(catalog, reading, keys, classes)),
        attributes=attributes(catalog, reading, keys),
        key_values=key_values,
        context=context,
        seeding=_seeding(catalog, declared.seeding),
        roles=roles,
        unmet=unmet,
        notes=notes,
    )


def _completed(declared: Context, inferred: Context) -> Context:
    """A declared context with the settings that policies read, which must be tried empty too.

    One that goes through functions only cannot be used while nothing is there for them to check.
    """
    direct = any(
        name in statement
        for persona in declared.personas
        for statement in persona.statements
        for name in inferred.settings
    )
    return replace(
        declared, settings=inferred.settings, setters=inferred.setters, direct=None if direct else inferred.direct
    )


def _seeding(catalog: Catalog, seeding: Seeding) -> Seeding:
    if not seeding.values:
        return seeding
    known = {f"{relation.qualified}.{column.name}" for relation in catalog.relations for column in relation.columns}
    for name in seeding.values:
        if name not in known:
            raise UsageError(f"configuration: [seed.values] {name!r}: no such column; write schema.table.column")
    return seeding


def _declared(catalog: Catalog, relations: Mapping[str, DeclaredRelation]) -> dict[int, Classified]:
    by_name = {relation.qualified: relation for relation in catalog.relations}
    found: dict[int, Classified] = {}
    for name, one in relations.items():
        relation = by_name.get(name)
        if relation is None:
            raise UsageError(
                f"configuration: relation {name!r} does not exist in this database; write schema.name as the report does"
            )
        if one.key is not None and relation.column(one.key) is None:
            raise UsageError(f"configuration: relation {name} has no column {one.key!r}")
        why = f"declared {one.kind}" + (f": {one.reason}" if one.reason else "")
        found[relation.oid] = Classified(relation.oid, one.kind, why, one.key, declared=True)
    return found


def _key_type(catalog: Catalog, classes: Mapping[int, Classified], keys: Keys) -> str:
    ordered = sorted(classes.values(), key=lambda c: c.relation != keys.registry)
    for classified in ordered:
        if classified.key and not classified.path and classified.tenant_data:
            column = catalog.relation(classified.relation).column(classified.key)
            if column is not None:
                plain = _plain(column.base_type)
                return _cast_to(catalog, keys) or plain if plain == "text" else plain
    return "text"


def _cast_to(catalog: Catalog, keys: Keys) -> str | None:
    """What policies cast a text key or its setting to: a key that is no such value would make every statement fail."""
    types: Counter[str] = Counter()
    for policy in catalog.policies:
        key = keys.columns.get(policy.relation, ("",))[0]
        for which in ("using", "check"):
            predicate = policy_predicate(catalog, policy, which)
            for part in walk(predicate) if predicate is not None else ():
                if not isinstance(part, Cast) or part.type not in _KEY_TYPES:
                    continue
                inside = part.argument
                named = isinstance(inside, Column) and inside.level == 0 and inside.name == key
                set_ = isinstance(inside, Setting) and Source(inside.name) in keys.tenant_sources
                types.update([part.type] if named or set_ else [])
    return types.most_common(1)[0][0] if types else None


def _plain(base_type: str) -> str:
    bare = base_type.partition("(")[0].strip()
    return "text" if bare in ("character varying", "character", "citext", "name") else bare


def _user_type(catalog: Catalog, reading: Reading, keys: Keys, classes: Mapping[int, Classified]) -> str:
    types: Counter[str] = Counter()
    for use in reading.uses:
        named = use.source in keys.user_sources and use.column and use.direct
        relation = catalog.find_relation(use.relation) if named else None
        column = relation.column(use.column) if relation else None
        if column is not None:
            types[_plain(column.base_type)] += 1
    for oid, classified in classes.items():
        if classified.kind == "principal":
            key = next((c for c in catalog.constraints_of(oid) if c.kind == "primary key"), None)
            column = catalog.relation(oid).column_number(key.columns[0]) if key else None
            if column is not None:
                types[_plain(column.base_type)] += 1
    if types:  # text holds a uuid and a number too, but not the other way about
        return max(types, key=lambda one: (one in _KEY_TYPES, types[one]))
    return _function_user_type(catalog)


def _function_user_type(catalog: Catalog) -> str:
    """A context function says which type the user has, where no column does."""
    for function in catalog.functions:
        for name, kind in zip(function.argument_names, function.argument_types, strict=False):
            if words.user_like(name):
                return kind
    return "text"


def _principal_columns(
    catalog: Catalog, reading: Reading, keys: Keys, classes: Mapping[int, Classified]
) -> dict[int, tuple[str, ...]]:
    found: dict[int, set[str]] = {}
    for use in reading.uses:
        # ``org_id IN (SELECT my_orgs())`` reads the user, but what the column holds is a tenant.
        if use.source in keys.user_sources and use.column and keys.columns.get(use.relation, ("",))[0] != use.column:
            found.setdefault(use.relation, set()).add(use.column)
    for oid, classified in classes.items():
        if classified.kind == "principal":
            for constraint in catalog.constraints_of(oid):
                if constraint.kind == "primary key" and len(constraint.columns) == 1:
                    column = catalog.relation(oid).column_number(constraint.columns[0])
                    found.setdefault(oid, set()).update({column.name} if column else set())
    if not found and any(words.user_like(source.name) for source in keys.user_sources):
        _named_users(catalog, found)
    _looked_up_users(reading, found)
    _referenced_users(catalog, found)
    return {oid: tuple(sorted(columns)) for oid, columns in found.items()}


def _able(catalog: Catalog, user_type: str, found: Mapping[int, tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
    """Without the columns that cannot hold a user: a session's token is a uuid, its user_id a number."""
    numbers = _KEY_TYPES[1:]

    def able(oid: int, name: str) -> bool:
        column = catalog.relation(oid).column(name)
        kind = _plain(column.base_type) if column is not None else ""
        return kind not in _KEY_TYPES or kind == user_type or (kind in numbers and user_type in numbers)

    kept = {oid: tuple(name for name in names if able(oid, name)) for oid, names in found.items()}
    return {oid: names for oid, names in kept.items() if names}


def _looked_up_users(reading: Reading, found: dict[int, set[str]]) -> None:
    """``user_id = (SELECT user_id FROM sessions …)``: what a principal column is looked up in holds the same users."""
    for lookup in reading.lookups:
        if lookup.column in found.get(lookup.relation, ()):
            found.setdefault(lookup.through, set()).add(lookup.through_column)


def _named_users(catalog: Catalog, found: dict[int, set[str]]) -> None:
    """Where functions hide what they compare, a relation called users holds the users."""
    for relation in catalog.relations:
        if relation.holds_rows and words.user_like(relation.name.removesuffix("s")):
            for constraint in catalog.constraints_of(relation.oid):
                column = relation.column_number(constraint.columns[0]) if constraint.kind == "primary key" else None
                if column is not None and len(constraint.columns) == 1:
                    found.setdefault(relation.oid, set()).add(column.name)


def _referenced_users(catalog: Catalog, found: dict[int, set[str]]) -> None:
    """What a principal column refers to holds the same users."""
    changed = True
    while changed:
        changed = False
        for constraint in catalog.constraints:
            child = catalog.find_relation(constraint.relation)
            parent = catalog.find_relation(constraint.referenced) if constraint.kind == "foreign key" else None
            if child is None or parent is None:
                continue
            for here, there in zip(constraint.columns, constraint.referenced_columns, strict=True):
                ours, theirs = child.column_number(here), parent.column_number(there)
                known = found.get(parent.oid, set())
                if ours and theirs and ours.name in found.get(child.oid, set()) and theirs.name not in known:
                    found.setdefault(parent.oid, set()).add(theirs.name)
                    changed = True


def _key_values(catalog: Catalog, keys: Keys) -> tuple[str, ...]:
    """Values of list partitions by the tenant key: only tenants with a partition can have rows.  And what functions, roles
    and databases set the context to: whose rows that shows only rows of that tenant can tell."""
    values: list[str] = []
    stored = [setting.partition("=")[::2] for f in catalog.functions for setting in f.settings]
    for name, value in (*stored, *((s.name, s.value) for s in catalog.settings)):
        if Source(name.lower()) in keys.tenant_sources and not _NOBODY.fullmatch(value):
            values.append(value)
    for relation in catalog.relations:
        for oid in relation.parents if relation.is_partition else ():
            parent, key = catalog.find_relation(oid), keys.columns.get(oid)
            if (
                parent
                and key
                and parent.partition_key
                and parent.partition_key.startswith("LIST")
                and key[0] in parent.partition_key
            ):
                values += [v.replace("''", "'") for v in _LISTED.findall(relation.partition_bound or "")]
    return tuple(dict.fromkeys(values))
