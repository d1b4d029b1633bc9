"""The frozen snapshot of a database's catalog: plain values, no connection, no SQL.

Objects refer to each other by OID, as the server does; names are for people.  OID 0 as a grantee or a policy
role is PUBLIC.  Every collection is a tuple or a mapping that nobody mutates after loading.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from rlsaudit.catalog.cluster import (
    ForeignServer,
    LargeObjects,
    Membership,
    Parameter,
    Publication,
    Role,
    Schema,
    Server,
    Setting,
    UserMapping,
)
from rlsaudit.catalog.grants import PUBLIC, DefaultPrivilege, Grant, GrantTarget, SystemGrant
from rlsaudit.catalog.relations import (
    Constraint,
    Dependency,
    ExtendedStatistics,
    Index,
    Policy,
    Relation,
    Rule,
    Trigger,
)
from rlsaudit.catalog.routines import Collation, EventTrigger, Extension, Function, Symbol

T = TypeVar("T")


@dataclass(frozen=True)
class Catalog:
    """Everything rlsaudit knows of a database, from one snapshot."""

    server: Server
    roles: tuple[Role, ...] = ()
    memberships: tuple[Membership, ...] = ()
    schemas: tuple[Schema, ...] = ()
    relations: tuple[Relation, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    indexes: tuple[Index, ...] = ()
    policies: tuple[Policy, ...] = ()
    functions: tuple[Function, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    event_triggers: tuple[EventTrigger, ...] = ()
    rules: tuple[Rule, ...] = ()
    grants: tuple[Grant, ...] = ()
    default_privileges: tuple[DefaultPrivilege, ...] = ()
    publications: tuple[Publication, ...] = ()
    extensions: tuple[Extension, ...] = ()
    collations: tuple[Collation, ...] = ()
    extended_statistics: tuple[ExtendedStatistics, ...] = ()
    settings: tuple[Setting, ...] = ()
    foreign_servers: tuple[ForeignServer, ...] = ()
    user_mappings: tuple[UserMapping, ...] = ()
    system_grants: tuple[SystemGrant, ...] = ()
    large_objects: tuple[LargeObjects, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    """Of the server's parameters those that matter to isolation; one that may not be seen is absent."""
    dependencies: tuple[Dependency, ...] = ()
    symbol_functions: Mapping[int, Symbol] = field(default_factory=dict)
    symbol_operators: Mapping[int, Symbol] = field(default_factory=dict)
    symbol_types: Mapping[int, Symbol] = field(default_factory=dict)
    population: int = 0
    """Relations in scope as counted by an independent second query; the report reconciles it with ``relations``."""

    def relation(self, oid: int) -> Relation:
        """The relation with this OID.  Raises KeyError when it is out of scope (a system catalog, say)."""
        return self._relations[oid]

    def parameter(self, name: str) -> str | None:
        """The value that new sessions have, or None when it is not known."""
        return next((one.value for one in self.parameters if one.name == name), None)

    def find_relation(self, oid: int) -> Relation | None:
        return self._relations.get(oid)

    def relations_named(self, name: str) -> Mapping[str, tuple[Relation, ...]]:
        """Those of the name, by schema."""
        return self._relations_named.get(name, {})

    def functions_named(self, name: str) -> Mapping[str, tuple[Function, ...]]:
        """User functions of the name, by schema; several differ in their arguments."""
        return self._functions_named.get(name, {})

    def role(self, oid: int) -> Role:
        return self._roles[oid]

    def role_name(self, oid: int) -> str:
        """The role's name, ``PUBLIC`` for 0, and ``role N`` for a role that is gone."""
        if oid == PUBLIC:
            return "PUBLIC"
        role = self._roles.get(oid)
        return role.name if role else f"role {oid}"

    def role_named(self, name: str) -> Role | None:
        return next((role for role in self.roles if role.name == name), None)

    def function(self, oid: int) -> Function | None:
        """The user-defined function with this OID; None for a built-in."""
        return self._functions.get(oid)

    def grants_on(self, target: GrantTarget) -> tuple[Grant, ...]:
        """Those on objects of one kind."""
        return self._grants.get(target, ())

    def policies_of(self, relation: int) -> tuple[Policy, ...]:
        return self._policies.get(relation, ())

    def constraints_of(self, relation: int) -> tuple[Constraint, ...]:
        return self._constraints.get(relation, ())

    def foreign_keys_of(self, relation: int) -> tuple[Constraint, ...]:
        """Foreign keys of the relation."""
        return self._foreign_keys.get(relation, ())

    def references_to(self, relation: int) -> tuple[Constraint, ...]:
        """Foreign keys of any relation that refer to this one."""
        return self._references.get(relation, ())

    def indexes_of(self, relation: int) -> tuple[Index, ...]:
        return self._indexes.get(relation, ())

    def triggers_of(self, relation: int) -> tuple[Trigger, ...]:
        return self._triggers.get(relation, ())

    def children_of(self, relation: int) -> tuple[Relation, ...]:
        """Direct partitions and inheritance children."""
        return self._children.get(relation, ())

    def mentions(self, source_kind: str, source: int, target_kind: str) -> tuple[int, ...]:
        """OIDs that a view, policy, function or trigger mentions, in order."""
        return self._mentions.get((source_kind, source, target_kind), ())

    @cached_property
    def _relations(self) -> dict[int, Relation]:
        return {relation.oid: relation for relation in self.relations}

    @cached_property
    def _roles(self) -> dict[int, Role]:
        return {role.oid: role for role in self.roles}

    @cached_property
    def _relations_named(self) -> dict[str, dict[str, tuple[Relation, ...]]]:
        return _by_name(self.relations)

    @cached_property
    def _functions_named(self) -> dict[str, dict[str, tuple[Function, ...]]]:
        return _by_name(self.functions)

    @cached_property
    def _functions(self) -> dict[int, Function]:
        return {function.oid: function for function in self.functions}

    @cached_property
    def _grants(self) -> dict[GrantTarget, tuple[Grant, ...]]:
        return _group(self.grants, lambda grant: grant.target)

    @cached_property
    def _policies(self) -> dict[int, tuple[Policy, ...]]:
        return _group(self.policies, lambda policy: policy.relation)

    @cached_property
    def _constraints(self) -> dict[int, tuple[Constraint, ...]]:
        return _group(self.constraints, lambda constraint: constraint.relation)

    @cached_property
    def _foreign_keys(self) -> dict[int, tuple[Constraint, ...]]:
        return _group((c for c in self.constraints if c.kind == "foreign key"), lambda constraint: constraint.relation)

    @cached_property
    def _references(self) -> dict[int, tuple[Constraint, ...]]:
        return _group(
            (c for c in self.constraints if c.kind == "foreign key"), lambda constraint: constraint.referenced
        )

    @cached_property
    def _indexes(self) -> dict[int, tuple[Index, ...]]:
        return _group(self.indexes, lambda index: index.relation)

    @cached_property
    def _triggers(self) -> dict[int, tuple[Trigger, ...]]:
        return _group(self.triggers, lambda trigger: trigger.relation)

    @cached_property
    def _children(self) -> dict[int, tuple[Relation, ...]]:
        pairs = [(parent, relation) for relation in self.relations for parent in relation.parents]
        return {key: tuple(r for _, r in rows) for key, rows in _group(pairs, lambda pair: pair[0]).items()}

    @cached_property
    def _mentions(self) -> dict[tuple[str, int, str], tuple[int, ...]]:
        groups = _group(self.dependencies, lambda d: (d.source_kind, d.source, d.target_kind))
        return {key: tuple(sorted({d.target for d in rows})) for key, rows in groups.items()}


K = TypeVar("K")
Named = TypeVar("Named", Relation, Function)


def _by_name(items: Iterable[Named]) -> dict[str, dict[str, tuple[Named, ...]]]:
    names = _group(items, lambda item: item.name)
    return {name: _group(members, lambda item: item.schema) for name, members in names.items()}


def _group(items: Iterable[T], key: Callable[[T], K]) -> dict[K, tuple[T, ...]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return {name: tuple(members) for name, members in groups.items()}
