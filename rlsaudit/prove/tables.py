"""What is known of the rows of a relation, beside the columns: keys, references, and which of them a role sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, renumbered, subquery_relations
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.relations import Column, Policy, Relation
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.tenancy.model import ApplicationRole, Classified, Tenancy

NOTHING: Expression = e.Constant("false", "boolean")


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key that is checked at once: ``columns`` of a row are those ``referenced`` of a row of ``relation``."""

    columns: tuple[e.Column, ...]
    relation: int
    referenced: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One relation as one role reads it."""

    uniques: tuple[tuple[e.Column, ...], ...]
    """Columns of its unique keys, by number."""
    references: tuple[Reference, ...]
    visible: Expression | None
    """Which rows the policies show the role; None for all."""
    rows: bool
    """Whether it holds rows, so that one can be put there."""
    key: e.Column | None
    """Its tenant key, when it has one of its own."""
    users: tuple[e.Column, ...]
    """Columns that hold the acting user."""


@dataclass(frozen=True, slots=True)
class Hop:
    """From columns of one row to another row: the one of ``relation`` whose unique key they are."""

    columns: tuple[e.Column, ...]
    relation: int
    unique: tuple[e.Column, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """Where a row's tenant is: in its own ``column``, or in that of the row at the end of the hops."""

    hops: tuple[Hop, ...]
    column: e.Column

    @property
    def name(self) -> str:
        return self.column.name

    @property
    def number(self) -> int:
        """The column's number, 0 when it is another row's."""
        return 0 if self.hops else self.column.number


Tables: TypeAlias = tuple[tuple[int, Table], ...]
Members: TypeAlias = tuple[tuple[int, tuple[tuple[e.Column, e.Column], ...]], ...]


@dataclass(frozen=True, slots=True)
class World:
    """The relations that a question is about."""

    relation: int = 0
    """The one that the rows under test are of."""
    tables: Tables = ()
    members: Members = ()
    """Relation → pairs of a tenant key and a column that policies hold against the acting user."""
    needed: frozenset[int] = frozenset()
    """Relations that cannot be empty when there are rows under test."""
    own: tuple[e.Column, ...] = ()
    """Columns that make a row under test the acting user's own, in a relation of members."""
    names: tuple[str, ...] = ()
    """Of the tables, in their order."""

    def name(self, relation: int) -> str:
        return next((name for (oid, _), name in zip(self.tables, self.names, strict=True) if oid == relation), "")


NO_WORLD = World()


def column_of(column: Column) -> e.Column:
    """A catalog column as one of the row under test."""
    return e.Column(column.name, column.number, 0, column.base_type, column.not_null, 1)


def key_of(catalog: Catalog, classified: Classified) -> Key | None:
    """The tenant key of a relation's rows; a key that foreign keys carry along is taken from the row itself."""
    path = classified.path
    relation = catalog.find_relation(path[-1].relation if path else classified.relation)
    column = relation.column(classified.key) if relation is not None and classified.key else None
    while column is not None and path and column.name in path[-1].referenced_columns:
        local = path[-1].columns[path[-1].referenced_columns.index(column.name)]
        path = path[:-1]
        relation = catalog.find_relation(path[-1].relation if path else classified.relation)
        column = relation.column(local) if relation is not None else None
    if column is None:
        return None
    hops: list[Hop] = []
    here = catalog.find_relation(classified.relation)
    for step in path:
        there = catalog.find_relation(step.relation)
        if here is None or there is None:
            return None
        pairs = _by_number(here, there, step.columns, step.referenced_columns)
        if pairs is None:
            return None
        hops.append(Hop(pairs[0], step.relation, pairs[1]))
        here = there
    return Key(tuple(hops), column_of(column))


def _by_number(
    here: Relation, there: Relation, columns: Iterable[str], referenced: Iterable[str]
) -> tuple[tuple[e.Column, ...], tuple[e.Column, ...]] | None:
    found = [(there.column(theirs), here.column(ours)) for ours, theirs in zip(columns, referenced, strict=True)]
    known = [(column_of(a), column_of(b)) for a, b in found if a is not None and b is not None]
    if len(known) != len(found):
        return None
    return tuple(ours for _, ours in known), tuple(theirs for theirs, _ in known)


@dataclass(frozen=True)
class Reader:
    """Makes the Table of each relation as one role reads it."""

    catalog: Catalog
    tenancy: Tenancy
    visibility: Visibility
    role: ApplicationRole

    def world(self, key: Key, relation: Relation, predicates: Iterable[Expression]) -> World:
        """The relations that a question is about; none when it is about columns of the row alone."""
        tables = self._tables(key, relation.oid, predicates)
        personal = self.tenancy.of(relation.oid).kind in ("membership", "principal")
        own = self.table(relation.oid) if personal else None
        found = [(oid, table, self.catalog.relation(oid).qualified) for oid, table in tables]
        return World(
            relation=relation.oid if tables else 0,
            tables=tables,
            members=tuple(
                (oid, tuple((table.key, user) for user in table.users))
                for oid, table, _ in found
                if table.key is not None and table.users
            ),
            needed=frozenset({relation.oid, *(hop.relation for hop in key.hops)}) if tables else frozenset(),
            own=own.users if own is not None else (),
            names=tuple(name for _, _, name in found),
        )

    def _tables(self, key: Key, relation: int, predicates: Iterable[Expression]) -> Tables:
        waiting = {oid for predicate in predicates for oid in subquery_relations(predicate)}
        waiting |= {hop.relation for hop in key.hops}
        if not waiting:
            return ()
        waiting.add(relation)
        found: dict[int, Table] = {}
        while waiting:
            oid = waiting.pop()
            table = self.table(oid)
            if oid in found or table is None:
                continue
            found[oid] = table
            if table.visible is not None:
                waiting |= subquery_relations(table.visible)
        return tuple(sorted(found.items()))

    def table(self, oid: int) -> Table | None:
        relation, classified = self.catalog.find_relation(oid), self.tenancy.relations.get(oid)
        if relation is None:
            return None
        key = relation.column(classified.key) if classified and classified.key and not classified.path else None
        users = [relation.column(name) for name in self.tenancy.principal_columns.get(oid, ())]
        return Table(
            uniques=tuple(self._uniques(relation)),
            references=tuple(self._references(relation)),
            visible=self._visible(relation),
            rows=relation.holds_rows,
            key=column_of(key) if key is not None else None,
            users=tuple(column_of(user) for user in users if user is not None and user != key),
        )

    def _uniques(self, relation: Relation) -> Iterator[tuple[e.Column, ...]]:
        if any(not child.is_partition for child in self.catalog.children_of(relation.oid)):
            return  # a read of it shows the children's rows too
        for constraint in self.catalog.constraints_of(relation.oid):
            if constraint.kind in ("primary key", "unique") and not constraint.deferrable:
                columns = [relation.column_number(number) for number in sorted(constraint.columns)]
                if all(column is not None for column in columns):
                    yield tuple(column_of(column) for column in columns if column is not None)

    def _references(self, relation: Relation) -> Iterator[Reference]:
        for constraint in self.catalog.constraints_of(relation.oid):
            checked = constraint.validated and constraint.enforced and not constraint.deferrable
            if constraint.kind == "foreign key" and checked and len(constraint.columns) > 1:
                columns = [relation.column_number(number) for number in constraint.columns]
                if all(column is not None for column in columns):
                    ours = tuple(column_of(column) for column in columns if column is not None)
                    yield Reference(ours, constraint.referenced, constraint.referenced_columns)

    def _visible(self, relation: Relation) -> Expression | None:
        if self.visibility.exempt(self.role.oid, relation) is not None:
            return None
        policies = self.visibility.policies(self.role.oid, relation, "SELECT")
        return combined(self.catalog, policies, "old") or NOTHING


def combined(catalog: Catalog, policies: Iterable[Policy], side: str) -> Expression | None:
    """The condition that the server applies: permissive policies ORed, restrictive ones ANDed; None admits no
    row.

    ``side`` is ``old`` or ``new``: new rows are held against WITH CHECK, or USING where there is none.  A policy
    without either bounds nothing.
    """
    permissive: list[Expression] = []
    restrictive: list[Expression] = []
    for policy in policies:
        predicate = policy_predicate(catalog, policy, "check") if side == "new" else None
        if predicate is None:
            predicate = policy_predicate(catalog, policy, "using")
        if predicate is not None:
            (permissive if policy.permissive else restrictive).append(predicate)
    if not permissive:
        return None
    allowed = permissive[0] if len(permissive) == 1 else e.Or(tuple(permissive))
    return e.And((allowed, *restrictive)) if restrictive else allowed


def anonymous_key(key: Key, numbers: Mapping[int, int]) -> Key:
    return replace(key, hops=tuple(replace(hop, relation=numbers[hop.relation]) for hop in key.hops))


def anonymous(world: World, numbers: Mapping[int, int], names: tuple[str, ...]) -> World:
    """The world with its relations numbered anew; ``numbers`` keeps their order."""
    return replace(
        world,
        relation=numbers.get(world.relation, 0),
        tables=tuple((numbers[oid], _anonymous(table, numbers)) for oid, table in world.tables),
        members=tuple((numbers[oid], pairs) for oid, pairs in world.members),
        needed=frozenset(numbers[oid] for oid in world.needed),
        names=names,
    )


def _anonymous(table: Table, numbers: Mapping[int, int]) -> Table:
    kept = [one for one in table.references if one.relation in numbers]
    return replace(
        table,
        references=tuple(replace(one, relation=numbers[one.relation]) for one in kept),
        visible=None if table.visible is None else renumbered(table.visible, numbers),
    )
