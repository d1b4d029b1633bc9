"""Rows of a proof's witness, put into the seeded world: a row of the actor's and one of another tenant's are given its values.

The solver's own keys stand for seeded ones: what it gives the settings is what a tenant's session has in them, and its
rows are rows that stand there already, so that keys, references and whatever else a row needs are in order.  No row
changes its tenant, none is made to refer to another tenant's, except to its user, and none is shared with the actor by
naming its tenant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rlsaudit.catalog.relations import Relation
from rlsaudit.doubt import Doubt
from rlsaudit.probe.attacks.relation import Target
from rlsaudit.probe.attacks.setups import Setup, moves, update
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.ownership import primary_key
from rlsaudit.probe.ground.world import SHARED, Row, Tenant
from rlsaudit.probe.seeding.plan import column_pairs, foreign_keys

Settings = Mapping[str, str | None]
_INVENTED = "value "
"""So begins a text of which the solver only knows that it is one."""


class Unattainable(Exception):
    """Why rows cannot stand as the witness has them."""


class _SameTenant(Unattainable):
    """The row that was to be another tenant's is the acting one's."""


def setups(arena: Arena, on: Target, doubt: Doubt, settings: Settings, actor: Tenant, other: Tenant) -> Iterator[Setup]:
    """Ways in which the witness may stand, ``settings`` being those of the actor's session.

    Raises Unattainable when there is none.
    """
    labels = [label for label, _, _ in doubt.rows if label in ("row 1", "row 2")]
    refused = Unattainable("its rows are of no tenant")
    found = False
    for foreign in labels:
        own = next((label for label in labels if label != foreign), "")
        for alike in (False, True):
            try:
                yield _Cast(arena, on, doubt, settings, actor, other, alike=alike).setup(own, foreign)
                found = True
            except _SameTenant:
                continue
            except Unattainable as reason:
                refused = reason
    if not found:
        raise refused


class _Cast:
    """Who plays the witness: seeded rows for its rows, seeded values for its keys."""

    def __init__(
        self, arena: Arena, on: Target, doubt: Doubt, settings: Settings, actor: Tenant, other: Tenant, *, alike: bool
    ) -> None:  # fmt: skip
        self.arena, self.on, self.actor, self.other, self.alike = arena, on, actor, other, alike
        named = {relation.qualified: relation for relation in arena.catalog.relations}
        self.columns = {label: dict(columns) for label, _, columns in doubt.rows}
        self.relations = {label: named.get(relation) for label, relation, _ in doubt.rows}
        self.names: dict[tuple[object, str], str] = {}
        self.rows: dict[str, Row] = {}
        self.given: list[tuple[str, str]] = []
        self.both = False
        self.seen = _Rows(arena)
        self.loose: dict[str, str] = {}
        for setting, value in doubt.settings:
            self._setting(setting, value, settings.get(setting))

    def _setting(self, setting: str, value: str | None, actual: str | None) -> None:
        """A tenant's or a user's name stands for the actor's; anything else is a value that the session must be given."""
        if value is None or not actual:
            return
        if actual in (self.actor.key, self.actor.user):
            self.names["tenant" if actual == self.actor.key else "user", _plain(value)] = actual
            self.loose[_plain(value)] = actual
        elif value != actual and not value.startswith(_INVENTED):
            self.given.append((setting, value))

    def setup(self, own: str, foreign: str) -> Setup:
        """Raises Unattainable."""
        key = self._key(foreign)
        if self.names.setdefault(("tenant", key), self.other.key) != self.other.key:
            raise _SameTenant
        if own and (mine := self._key(own, required=False)):
            self.names.setdefault(("tenant", mine), self.actor.key)
        self._anchor(foreign, self.other)
        for label in (own, "row before"):
            if label in self.columns:
                self._anchor(label, self.actor)
        for label, relation in sorted(self.relations.items()):
            if label not in self.rows and label.startswith("witness") and relation is not None:
                self._match(label, relation)
        made = self._values(foreign, self.on.relation, self.rows[foreign], new=True)
        played = self.rows.get(own)
        moved = moves(self.arena, self.on, played, self.rows[foreign], made) if played is not None else ()
        return Setup(tuple(self._changes()), made, tuple(moved), tuple(self.given), self.both)

    def _key(self, label: str, *, required: bool = True) -> str:
        path = self.arena.tenancy.of(self.on.relation.oid).path
        column = self.arena.tenancy.of(self.on.relation.oid).key or ""
        hops = [one for one in sorted(self.columns) if one.startswith(f"{label} parent")]
        holder = hops[-1] if path and hops else label
        value = self.columns.get(holder, {}).get(column)
        if value is None and required:
            raise Unattainable("its row is of no tenant")
        return _plain(value or "")

    def _anchor(self, label: str, tenant: Tenant) -> None:
        """A row under test, and the rows that its foreign keys lead to."""
        relation, found = self.on.relation, self.arena.world.of(self.on.relation.oid, tenant.key)
        if not found:
            raise Unattainable("no row of it could be seeded")
        row: Row | None = found[0]
        self._play(label, relation, found[0])
        for number, step in enumerate(self.arena.tenancy.of(relation.oid).path, 1):
            pairs = list(zip(step.columns, step.referenced_columns, strict=True))
            row = self.seen.where(step.relation, {there: row.get(here) for here, there in pairs}) if row else None
            parent = f"{label} parent {number}"
            if row is not None and parent in self.columns:
                self._play(parent, self.arena.catalog.relation(step.relation), row)

    def _play(self, label: str, relation: Relation, row: Row) -> None:
        self.rows[label], self.relations[label] = row, relation
        for column, value in self.columns[label].items():
            domain, stands = self.seen.domain(relation, column), row.get(column)
            if domain is not None and value is not None and stands is not None:
                self.names.setdefault((domain, _plain(value)), stands)

    def _match(self, label: str, relation: Relation) -> None:
        """Of the rows that stand there the one that most of the keys fit, another tenant's before the actor's; whose
        user's it is can be changed."""
        wanted = {}
        for column, value in self.columns[label].items():
            domain = self.seen.domain(relation, column)
            if domain not in (None, "user") and value is not None and (domain, _plain(value)) in self.names:
                wanted[column] = self.names[domain, _plain(value)]
        key = self.seen.tenant_key(relation)
        rows = [
            (sum(row.get(c) == v for c, v in wanted.items()), owner == self.other.key, row)
            for owner, row in self.seen.all(relation.oid)
            if key not in wanted or row.get(key) == wanted[key]
        ]
        if not rows:
            raise Unattainable(f"{relation.qualified} has no row that could be looked up")
        self._play(label, relation, max(rows, key=lambda one: one[:2])[2])

    def _changes(self) -> Iterator[str]:
        for label, row in self.rows.items():
            relation = self.relations[label] or self.on.relation
            values = self._values(label, relation, row)
            if values:
                yield update(self.arena, relation, row, values)

    def _values(self, label: str, relation: Relation, row: Row, *, new: bool = False) -> dict[str, str | None]:
        """What columns of the row are set to; of a new row also values that stand there already."""
        found: dict[str, str | None] = {}
        owner = self.seen.owner(relation, row)
        for column, given in self.columns[label].items():
            known, value = relation.column(column), given
            if known is None or known.generated or column == self.seen.tenant_key(relation):
                continue
            domain = self.seen.domain(relation, column)
            called = self.loose.get(_plain(value or "")) if self.alike else None
            if domain == (relation.oid, column):
                if label.startswith("row") or called is None:
                    continue  # what identifies a row stays, but for a member's name
                value = called
            elif isinstance(domain, tuple) and label.startswith("row"):
                value = row.get(column)  # rows under test keep their parents
            elif domain is not None:
                value = self.names.get((domain, _plain(value or "")), row.get(column))
                if domain != "user":  # a user may have rows in several tenants
                    self.seen.require(relation, column, value, owner)
            elif called is not None:
                value = called
            if new or value != row.get(column):
                found[column] = value
        if owner != self.actor.key and self.actor.key in (v for c, v in found.items() if v != row.get(c)):
            raise Unattainable("it takes a row that names the acting tenant, and so may be shared with it")
        self.both = self.both or (owner == self.other.key and self.actor.user in found.values())
        return found


@dataclass(frozen=True)
class _Rows:
    """The seeded rows, and what their columns stand for."""

    arena: Arena

    def all(self, relation: int) -> Iterator[tuple[str, Row]]:
        world = self.arena.world
        for (oid, owner), rows in world.rows.items():
            yield from ((owner, row) for row in rows if oid == relation)
        yield from ((SHARED, row) for row in world.common.get(relation, ()))

    def where(self, relation: int, values: Row) -> Row | None:
        return next((row for _, row in self.all(relation) if all(row.get(c) == v for c, v in values.items())), None)

    def owner(self, relation: Relation, row: Row) -> str:
        return next((owner for owner, one in self.all(relation.oid) if one is row), SHARED)

    def tenant_key(self, relation: Relation) -> str | None:
        classified = self.arena.tenancy.of(relation.oid)
        return classified.key if classified.tenant_data and not classified.path else None

    def domain(self, relation: Relation, column: str) -> object | None:
        """What a column identifies: equal domains hold the same values.  None where a value is just a value."""
        here, at = relation, column
        for _ in range(8):
            if at == self.tenant_key(here):
                return "tenant"
            if at in self.arena.tenancy.principal_columns.get(here.oid, ()):
                return "user"
            pairs = [
                (constraint.referenced, there)
                for constraint in foreign_keys(self.arena.catalog, here)
                for ours, there in column_pairs(self.arena.catalog, constraint)
                if ours == at and constraint.referenced != here.oid
            ]
            if not pairs:
                break
            here, at = self.arena.catalog.relation(pairs[0][0]), pairs[0][1]
        identifies = at in primary_key(self.arena.catalog, here) or (here, at) != (relation, column)
        kind = self.arena.tenancy.of(here.oid).kind
        return ("user" if kind == "principal" else (here.oid, at)) if identifies else None

    def require(self, relation: Relation, column: str, value: str | None, owner: str) -> None:
        """Raises Unattainable for a reference from one tenant's row to another's."""
        for constraint in foreign_keys(self.arena.catalog, relation):
            for here, there in column_pairs(self.arena.catalog, constraint):
                referred = self.where(constraint.referenced, {there: value}) if here == column else None
                parent = self.arena.catalog.relation(constraint.referenced)
                kind = self.arena.tenancy.of(parent.oid).kind
                if referred is not None and kind == "tenant" and self.owner(parent, referred) not in (owner, SHARED):
                    raise Unattainable(f"it takes a row of {relation.qualified} that refers to another tenant's row")


def _plain(value: str) -> str:
    """Of the forms in which a text reads as the same number or uuid the one in which the server prints it."""
    return value.strip(" {}")
