"""Relations and what hangs on them: columns, constraints, indexes, policies, triggers, rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlsaudit.bulk import made_in_bulk
from rlsaudit.catalog.identifiers import qualified

RelationKind = Literal["table", "partitioned table", "view", "materialized view", "foreign table", "sequence"]
Command = Literal["SELECT", "INSERT", "UPDATE", "DELETE"]
PolicyCommand = Literal["ALL", "SELECT", "INSERT", "UPDATE", "DELETE"]
COMMANDS: tuple[Command, ...] = ("SELECT", "INSERT", "UPDATE", "DELETE")


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
class Rule:
    """A rewrite rule other than a view's own ``_RETURN``."""

    oid: int
    name: str
    relation: int
    event: str
    instead: bool
    definition: str


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
