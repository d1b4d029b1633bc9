"""The frozen snapshot of a database's catalog: plain values, no connection, no SQL.

Objects refer to each other by OID, as the server does; names are for people.  OID 0 as a grantee or a policy
role is PUBLIC.  Every collection is a tuple or a mapping that nobody mutates after loading.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeVar

from rlsaudit.bulk import made_in_bulk
from rlsaudit.catalog.identifiers import qualified

PUBLIC = 0
T = TypeVar("T")

RelationKind = Literal["table", "partitioned table", "view", "materialized view", "foreign table", "sequence"]
Command = Literal["SELECT", "INSERT", "UPDATE", "DELETE"]
PolicyCommand = Literal["ALL", "SELECT", "INSERT", "UPDATE", "DELETE"]
COMMANDS: tuple[Command, ...] = ("SELECT", "INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True, slots=True)
class Server:
    """The server and the session that took the snapshot."""

    version: str
    version_num: int
    system_identifier: str
    database: str
    session_role: str
    session_superuser: bool
    session_bypassrls: bool
    in_recovery: bool
    clock: str
    """Server time of the snapshot, ISO 8601 with offset."""
    database_owner: int = 0
    """OID of the role that is implicitly a member of pg_database_owner."""
    statistics_guarded: bool = True
    """Whether pg_stats_ext_exprs hides statistics of rows that policies hide, or is closed to PUBLIC."""

    @property
    def major(self) -> int:
        return self.version_num // 10000


@dataclass(frozen=True, slots=True)
class Role:
    oid: int
    name: str
    superuser: bool
    inherit: bool
    createrole: bool
    createdb: bool
    login: bool
    replication: bool
    bypassrls: bool

    @property
    def predefined(self) -> bool:
        """True of the roles that initdb makes, such as pg_read_all_data."""
        return self.name.startswith("pg_")


@dataclass(frozen=True, slots=True)
class Membership:
    """``member`` belongs to ``role``.  Before PostgreSQL 16 ``inherit`` is the member's attribute and ``set`` is true."""

    role: int
    member: int
    admin: bool
    inherit: bool
    set: bool


@dataclass(frozen=True, slots=True)
class Schema:
    oid: int
    name: str
    owner: int


@made_in_bulk
@dataclass(frozen=True, slots=True)
class Column:
    number: int
    name: str
    type: str
    """As ``format_type`` prints it, with modifiers: ``character varying(20)``, ``public.status``."""
    type_oid: int
    base_type: str
    """The type under a domain (any depth); equals ``type`` without modifiers otherwise."""
    category: str
    """``typcategory`` of the base type: S string, N numeric, U user, D date/time, B boolean, E enum, A array …"""
    not_null: bool
    default: str | None
    """Expression text, also of a generated column."""
    identity: Literal["", "always", "by default"] = ""
    generated: Literal["", "stored", "virtual"] = ""
    enum_labels: tuple[str, ...] = ()
    domain_checks: tuple[str, ...] = ()
    """CHECK definitions of its domains, innermost first, over ``VALUE``: ``CHECK ((VALUE > 0))``."""
    default_tree: str | None = None
    """Analysed tree of ``default``; absent for a plain constant and for ``nextval``."""
    sequence: int = 0
    """OID of the sequence that an identity column or a ``nextval`` default draws from."""


@made_in_bulk
@dataclass(frozen=True, slots=True)
class Relation:
    oid: int
    schema: str
    name: str
    kind: RelationKind
    owner: int
    rls_enabled: bool = False
    rls_forced: bool = False
    columns: tuple[Column, ...] = ()
    parents: tuple[int, ...] = ()
    """Partitioned or inherited parents."""
    is_partition: bool = False
    partition_key: str | None = None
    """``LIST (customer_id)`` of a partitioned table."""
    partition_bound: str | None = None
    """``FOR VALUES IN ('a')`` of a partition."""
    persistence: Literal["permanent", "unlogged", "temporary"] = "permanent"
    options: tuple[str, ...] = ()
    """``reloptions`` as stored, e.g. ``security_invoker=true``."""
    definition: str | None = None
    """``pg_get_viewdef`` of a view or materialized view."""
    estimated_rows: float = -1
    extension: str | None = None
    """Name of the extension that owns the relation."""
    foreign_server: int = 0
    """OID of a foreign table's server."""
    query_tree: str | None = None
    """``ev_action::text``: the analysed query of a view or materialized view."""

    @property
    def qualified(self) -> str:
        """``schema.name``, quoted only where SQL needs it."""
        return qualified(self.schema, self.name)

    @property
    def security_invoker(self) -> bool:
        return self._flag("security_invoker")

    @property
    def security_barrier(self) -> bool:
        return self._flag("security_barrier")

    @property
    def holds_rows(self) -> bool:
        """True of relations that can hold rows of their own or through partitions (not views, not sequences)."""
        return self.kind in ("table", "partitioned table", "foreign table")

    def column(self, name: str) -> Column | None:
        for column in self.columns:
            if column.name == name:
                return column
        return None

    def column_number(self, number: int) -> Column | None:
        columns = self.columns
        if 0 < number <= len(columns) and columns[number - 1].number == number:
            return columns[number - 1]  # no column before it was dropped
        for column in columns:
            if column.number == number:
                return column
        return None

    def _flag(self, option: str) -> bool:
        return any(
            o.lower() in (f"{option}=true", f"{option}=on", f"{option}=1", f"{option}=yes") for o in self.options
        )


@made_in_bulk
@dataclass(frozen=True, slots=True)
class Constraint:
    oid: int
    name: str
    relation: int
    kind: Literal["primary key", "unique", "foreign key", "check", "exclusion", "not null", "trigger"]
    columns: tuple[int, ...]
    definition: str
    """``pg_get_constraintdef``."""
    expression: str | None = None
    """Expression text of a CHECK."""
    referenced: int = 0
    referenced_columns: tuple[int, ...] = ()
    on_update: str = ""
    """``NO ACTION``, ``RESTRICT``, ``CASCADE``, ``SET NULL``, ``SET DEFAULT``; empty for other kinds."""
    on_delete: str = ""
    deferrable: bool = False
    validated: bool = True
    enforced: bool = True
    tree: str | None = None
    """Analysed tree of a CHECK."""


@made_in_bulk
@dataclass(frozen=True, slots=True)
class Index:
    oid: int
    name: str
    relation: int
    columns: tuple[int, ...]
    """Key columns only (``indnkeyatts``); 0 stands for an expression."""
    unique: bool
    primary: bool
    valid: bool
    nulls_not_distinct: bool
    predicate: str | None
    definition: str
    method: str = "btree"
    expressions_tree: str | None = None
    """Analysed trees of the expressions among its columns, in their order."""
    predicate_tree: str | None = None
    """Analysed tree of ``predicate``."""


@made_in_bulk
@dataclass(frozen=True, slots=True)
class Policy:
    oid: int
    name: str
    relation: int
    command: PolicyCommand
    permissive: bool
    roles: tuple[int, ...]
    """OIDs of the roles it is for; ``(0,)`` is PUBLIC."""
    using: str | None
    check: str | None
    using_tree: str | None
    """``polqual::text``, the analysed expression tree (pg_node_tree)."""
    check_tree: str | None


@dataclass(frozen=True, slots=True)
class Function:
    oid: int
    schema: str
    name: str
    kind: Literal["function", "procedure", "aggregate", "window"]
    owner: int
    language: str
    security_definer: bool
    leakproof: bool
    strict: bool
    volatility: Literal["immutable", "stable", "volatile"]
    argument_names: tuple[str, ...]
    argument_types: tuple[str, ...]
    """Input arguments only, as ``format_type`` prints them."""
    returns: str
    returns_set: bool
    settings: tuple[str, ...]
    """``proconfig``: ``search_path=pg_catalog, pg_temp``."""
    source: str
    """``prosrc``, or the body of a ``BEGIN ATOMIC`` function as the server prints it."""
    body_tree: str | None
    """``prosqlbody::text`` of a ``BEGIN ATOMIC`` function."""
    extension: str | None = None
    return_type: int = 0
    """OID of the result type."""

    @property
    def qualified(self) -> str:
        return qualified(self.schema, self.name)

    @property
    def signature(self) -> str:
        """``schema.name(argument types)``, as GRANT and ALTER FUNCTION want it."""
        return f"{self.qualified}({', '.join(self.argument_types)})"


@dataclass(frozen=True, slots=True)
class Trigger:
    oid: int
    name: str
    relation: int
    function: int
    timing: Literal["BEFORE", "AFTER", "INSTEAD OF"]
    events: tuple[str, ...]
    """Some of ``INSERT``, ``UPDATE``, ``DELETE``, ``TRUNCATE``."""
    row_level: bool
    enabled: Literal["origin", "disabled", "replica", "always"]
    columns: tuple[int, ...]
    """``UPDATE OF`` columns; empty means any."""
    definition: str


@dataclass(frozen=True, slots=True)
class EventTrigger:
    name: str
    event: str
    """``ddl_command_start``, ``ddl_command_end``, ``sql_drop``, ``table_rewrite``, ``login``."""
    tags: tuple[str, ...]
    """Command tags that it fires for; empty means any."""
    function: int
    enabled: Literal["origin", "disabled", "replica", "always"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rewrite rule other than a view's own ``_RETURN``."""

    oid: int
    name: str
    relation: int
    event: str
    instead: bool
    definition: str


GrantTarget = Literal["relation", "column", "schema", "function", "database", "type", "parameter", "large object"]


@made_in_bulk
@dataclass(frozen=True, slots=True)
class Grant:
    """One privilege of one grantee, defaults (an absent ACL) made explicit."""

    target: GrantTarget
    object: int
    column: int
    """Column number of a column grant, else 0."""
    grantee: int
    privilege: str
    grantable: bool
    parameter: str = ""
    """Parameter name when ``target`` is ``parameter``."""


@dataclass(frozen=True, slots=True)
class DefaultPrivilege:
    """ALTER DEFAULT PRIVILEGES: objects that ``creator`` makes in ``schema`` (0: any) will be open to ``grantee``."""

    creator: int
    schema: int
    object_type: Literal["relation", "sequence", "function", "type", "schema", "large object"]
    grantee: int
    privilege: str


@dataclass(frozen=True, slots=True)
class Publication:
    name: str
    all_tables: bool
    relations: tuple[int, ...]
    """Published relations, with those of published schemas and of FOR ALL TABLES resolved."""
    filtered: tuple[int, ...]
    """Those of ``relations`` that carry a row filter."""
    filter_trees: tuple[str, ...] = ()
    """Analysed row filters, in the order of ``filtered``."""


@dataclass(frozen=True, slots=True)
class ForeignServer:
    oid: int
    name: str
    wrapper: str
    owner: int
    options: tuple[str, ...] = ()
    """``name=value``; values of secrets are not recorded."""


@dataclass(frozen=True, slots=True)
class UserMapping:
    """As whom ``role`` (0: PUBLIC) reaches the other end of ``server``."""

    server: int
    role: int
    user: str | None = None
    """Option ``user``; None when it is not set or may not be seen."""
    visible: bool = True
    """Whether the session that took the snapshot may see the options."""


@dataclass(frozen=True, slots=True)
class SystemGrant:
    """A privilege on an object of pg_catalog that initdb did not give."""

    target: Literal["relation", "column", "function"]
    name: str
    """``pg_catalog.pg_statistic``; with the argument types for a function."""
    grantee: int
    privilege: str


@dataclass(frozen=True, slots=True)
class LargeObjects:
    """Large objects of one owner."""

    owner: int
    count: int


@dataclass(frozen=True, slots=True)
class Parameter:
    """The value that a new session of the role that took the snapshot has (``pg_settings.reset_val``)."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ExtendedStatistics:
    """An object of CREATE STATISTICS."""

    schema: str
    name: str
    relation: int
    expressions: bool
    """Whether it is about expressions, rather than about columns alone."""

    @property
    def qualified(self) -> str:
        return qualified(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Extension:
    name: str
    version: str
    schema: str
    trusted: bool | None = None
    """Whether who is no superuser may install it: it gives nobody access to what they could not reach; None: unknown."""


@dataclass(frozen=True, slots=True)
class Setting:
    """ALTER ROLE/DATABASE … SET (``pg_db_role_setting``); role 0 is all roles, database empty is all databases."""

    role: int
    database: str
    name: str
    value: str


@made_in_bulk
@dataclass(frozen=True, slots=True)
class Dependency:
    """A relation, policy or function that an object mentions (``pg_depend``).

    Sources: views and materialized views (through their rule), policies, triggers' WHEN, defaults, BEGIN ATOMIC
    bodies, rules other than a view's own.  Left out: what the object is attached to (a policy's own table, a
    trigger's function).
    """

    source_kind: Literal["relation", "policy", "function", "trigger", "rule"]
    source: int
    target_kind: Literal["relation", "function"]
    target: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function, operator or type that an expression tree names, resolved: enough to interpret it."""

    oid: int
    schema: str
    name: str
    function: int = 0
    """Of an operator: its implementing function's OID."""
    btree_equality: bool = False
    """Of an operator: strategy 3 member of a default btree family (true equality)."""
    volatility: Literal["", "immutable", "stable", "volatile"] = ""
    strict: bool = False
    """Of a function: NULL for any NULL argument."""
    cost: float = 1
    """Of a function: what the planner takes one call for."""


@dataclass(frozen=True, slots=True)
class Collation:
    """A collation that initdb did not make."""

    oid: int
    schema: str
    name: str
    deterministic: bool


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
