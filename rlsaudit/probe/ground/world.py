"""The seeded world: the tenants, their rows, what marks them, and whose row is whose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from rlsaudit.probe.ground.disguise import disguises

Row = Mapping[str, str | None]
"""Column name → the server's text for the value."""

SHARED = ""
"""Owner label of rows whose tenant key is NULL."""

_TOKEN = re.compile(r"[0-9A-Za-z_-]{5,}")


@dataclass(frozen=True, slots=True)
class Tenant:
    """``key`` is the tenant key and ``user`` the principal that acts for the tenant, both as text."""

    name: str
    key: str
    user: str
    fellows: tuple[str, ...] = ()
    """Other principals of the same tenant."""


@dataclass(frozen=True)
class World:
    """Ground truth of one seeded database."""

    tenants: tuple[Tenant, ...]
    rows: Mapping[tuple[int, str], tuple[Row, ...]]
    """(relation OID, owner label) → rows as they stand in the database."""
    spare: Mapping[tuple[int, str], tuple[Row, ...]]
    """Valid rows that were tried and rolled back, for INSERT."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """Text that occurs in the rows of exactly one owner → that owner's label."""
    homes: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Mark → relations whose rows contain it."""
    baseline: Mapping[tuple[int, str], tuple[str, str]] = field(default_factory=dict)
    """(relation OID, owner label) → row count and hash."""
    common: Mapping[int, tuple[Row, ...]] = field(default_factory=dict)
    """Relation OID → rows of relations that hold no tenant data."""
    made: Mapping[int, tuple[Row, ...]] = field(default_factory=dict)
    """The same for all that stands there, what triggers and rules made with it, where there was nothing before."""
    brought: frozenset[int] = frozenset()
    """Those of ``common`` whose rows came with the schema."""
    stood: Mapping[int, tuple[Row, ...]] = field(default_factory=dict)
    """Relation OID → rows of relations with tenant data that came with the schema."""
    common_spare: Mapping[int, tuple[Row, ...]] = field(default_factory=dict)
    """The same for valid rows that were rolled back."""
    strays: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Relation OID → marks of rows that belong to no tenant and were not meant for all."""
    failures: Mapping[int, str] = field(default_factory=dict)
    """Relations that could not be seeded → the server's last error and what would help."""

    def of(self, relation: int, owner: str) -> tuple[Row, ...]:
        return self.rows.get((relation, owner), ())

    def holding(self, mark: str) -> int:
        """OID of the relation in whose rows the mark stands; 0 when there is none."""
        places = (
            oid for (oid, _), rows in self.rows.items() for row in rows if any(v and mark in v for v in row.values())
        )
        return next(places, 0)

    def plain(self, mark: str) -> str:
        """The text that was seeded, of one that came out transformed."""
        return mark if mark in self.marks else self.disguised.get(mark, mark)

    @cached_property
    def disguised(self) -> Mapping[str, str]:
        """What the server's functions make of marks → the mark: upper, lower, reversed, hashed, encoded."""
        stored = {value for rows in self.rows.values() for row in rows for value in row.values() if value is not None}
        taken = {word for value in stored for word in (value, *tokens(value))}
        return disguises(self.marks, taken)

    def others(self, tenant: Tenant) -> tuple[Tenant, ...]:
        return tuple(other for other in self.tenants if other is not tenant)


def tokens(text: str) -> Iterable[str]:
    """Words of a text that are distinctive enough to be a mark: five characters or more, with a digit."""
    return (token for token in _TOKEN.findall(text) if any(c.isdigit() for c in token))


def marks(owned: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Text → owner, for every text (whole values and their words) that only one owner has.

    ``owned`` yields (owner label, value).  A value that a second owner shares marks nobody.
    """
    owner_of: dict[str, str | None] = {}
    for owner, value in owned:
        if value is None:
            continue
        for text in {value, *tokens(value)} if len(value) >= 5 else ():
            if any(c.isdigit() for c in text):
                owner_of[text] = owner if owner_of.get(text, owner) == owner else None
    return {text: owner for text, owner in owner_of.items() if owner is not None}


def homes(known: Mapping[str, str], rows: Mapping[tuple[int, str], Iterable[Row]]) -> dict[str, frozenset[int]]:
    """Where each of the ``known`` marks stands."""
    found: dict[str, set[int]] = {}
    for (relation, _), stored in rows.items():
        for value in (value for row in stored for value in row.values() if value is not None):
            for text in (value, *tokens(value)):
                if text in known:
                    found.setdefault(text, set()).add(relation)
    return {text: frozenset(relations) for text, relations in found.items()}
