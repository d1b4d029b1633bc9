"""What the server's refusals teach about one relation, and when to give up on it.  Pure."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.probe.seeding.writer import Refusal, Way

FIRST = 40
"""Attempts at a relation of which no row has been made yet, for the first tenant."""
AGAIN = 6
"""For further tenants, when the first got nothing: the same refusals would come again."""
MORE = 16
"""Attempts at a relation that has taken rows before."""
_UNSOLVED = 12
_SAME = 6
"""How often a unique key over dictated columns may refuse before a second row counts as impossible."""
_FILLED = 100
"""Columns that need no value and get one where a row with all of them does not fit into a page."""
_HOPELESS = frozenset({"57014", "54001", "42P17", "42P01", "42883", "42703", "0A000", "55000"})
"""A trigger that hangs, recurses without end or names what is not there: other values do not help."""


@dataclass
class Lessons:
    """Grows with every refusal."""

    choices: Counter[str] = field(default_factory=Counter)
    """Column → how far down its candidates we are."""
    checks: set[str] = field(default_factory=set)
    """CHECKs that have failed."""
    skipped: set[str] = field(default_factory=set)
    """Columns left to their defaults."""
    banned: set[str] = field(default_factory=set)
    """Columns that may not be given."""
    raised: int = 0
    """Refusals that named no column: a trigger's own, most of all."""
    good: dict[str, str] = field(default_factory=dict)
    """Column → a constant that went through after such refusals."""
    way: Way = "context"
    leaf: int = 0
    """Which partition the next row is meant for."""
    bounded: bool = False
    """A row fitted into no partition: choose values from their bounds."""
    taken: Counter[str] = field(default_factory=Counter)
    """Unique key → how often it refused values that were all dictated."""
    refused: Counter[str] = field(default_factory=Counter)
    """Unique key → how often it refused values that are free."""
    unsolved: int = 0
    """How often no combination of candidates passed the CHECKs."""
    solved: dict[str, list[dict[str, str | None]]] = field(default_factory=dict)
    """Tenant name → combinations that passed, for columns that need not be unique."""
    checked: frozenset[str] = frozenset()
    """The CHECKs that ``solved`` is about."""
    made: int = 0
    failed: int = 0
    """Times that all attempts were used up."""
    hopeless: bool = False

    def attempts(self) -> int:
        if self.hopeless or self.impossible():
            return 1
        return MORE if self.made else FIRST if not self.failed else AGAIN

    def full(self) -> bool:
        """A unique key has no place for another row with the values that are dictated."""
        return bool(self.taken) and max(self.taken.values()) >= _SAME

    def impossible(self) -> bool:
        """CHECKs that no candidates pass: neither more attempts nor other ways of inserting help."""
        return self.unsolved >= _UNSOLVED


def learn(
    lessons: Lessons, catalog: Catalog, relation: Relation, dictated: set[str], refusal: Refusal, attempt: int
) -> None:
    """Change the next proposal by what ``refusal`` says."""
    code = refusal.code
    elsewhere = bool(refusal.table) and refusal.table != relation.name
    column = relation.column(refusal.column) if refusal.column else None
    if code in _HOPELESS:
        lessons.way = "alone" if lessons.way == "context" else "context"
        lessons.hopeless = code in ("57014", "54001") or attempt > 2
    elif code == "54000" and refusal.message.startswith("row is too big"):
        optional = [c.name for c in relation.columns if c.default is not None or not c.not_null]
        lessons.skipped.update(optional[_FILLED:])
    elif code == "428C9" and column:
        lessons.banned.add(column.name)
    elif code == "23514" and refusal.constraint and not elsewhere:
        if refusal.constraint in lessons.checks:
            check = next((c for c in catalog.constraints_of(relation.oid) if c.name == refusal.constraint), None)
            _advance(lessons, [c for c in relation.columns if check is None or c.number in check.columns])
        lessons.checks.add(refusal.constraint)
    elif code == "23514" and refusal.source == "ExecFindPartition":
        lessons.bounded = True
        lessons.leaf += 1
    elif code == "23514" and refusal.datatype:
        _advance(lessons, [c for c in relation.columns if refusal.datatype in c.type])
    elif code in ("23505", "23P01"):
        _unique(lessons, catalog, relation, dictated, refusal, elsewhere)
    elif column is not None and not elsewhere:
        lessons.skipped.discard(column.name)
        _advance(lessons, [column])
    elif code == "23503" and attempt < 8:
        pass  # other parents come up by themselves
    else:
        _anything(lessons, catalog, relation, refusal, attempt)


def _unique(
    lessons: Lessons, catalog: Catalog, relation: Relation, dictated: set[str], refusal: Refusal, elsewhere: bool
) -> None:
    if elsewhere:
        # A trigger's own rows got in each other's way: do without the context that it reads, or with it again.
        lessons.way = "alone" if lessons.way == "context" else "context"
        return
    index = next((i for i in catalog.indexes_of(relation.oid) if i.name == refusal.constraint), None)
    columns = [relation.column_number(number) for number in index.columns] if index else []
    if columns and all(column is not None and column.name in dictated for column in columns):
        lessons.taken[refusal.constraint] += 1
        return
    free = [column for column in columns if column is not None and column.name not in dictated]
    # Serial numbers give most columns a new value anyway; those with few values need the next one.
    few = [column for column in free if column.category in "EB" or column.name in lessons.skipped]
    lessons.refused[refusal.constraint] += 1
    _advance(lessons, few or (free if lessons.refused[refusal.constraint] % 3 == 0 else []))
    lessons.skipped.difference_update(column.name for column in free)


def _anything(lessons: Lessons, catalog: Catalog, relation: Relation, refusal: Refusal, attempt: int) -> None:
    """An error that names no column: change what the message or the triggers name, and now and then the way."""
    lessons.raised += 1
    words = set(re.findall(r"\w+", refusal.message))
    named = [column for column in relation.columns if column.name in words]
    named = named or [column for column in relation.columns if f"type {column.type}" in refusal.message]
    if not named:
        sources = [
            function.source
            for trigger in catalog.triggers_of(relation.oid)
            if "INSERT" in trigger.events and (function := catalog.function(trigger.function)) is not None
        ]
        read = {word.lower() for source in sources for word in re.findall(r"NEW\.\"?(\w+)", source, re.IGNORECASE)}
        named = [column for column in relation.columns if column.name.lower() in read]
    chosen = named or list(relation.columns)
    # One after the other, so that all pairs of candidates come up.
    _advance(lessons, [column for place, column in enumerate(chosen) if attempt % (place + 1) == 0])
    if attempt % 4 == 3:
        ways: tuple[Way, ...] = ("context", "role", "alone")
        lessons.way = ways[(ways.index(lessons.way) + 1) % 3] if lessons.way in ways else "context"
    if attempt % 8 == 5:
        lessons.skipped.update(c.name for c in relation.columns if c.default is not None or not c.not_null)
    elif attempt % 8 == 7:
        lessons.skipped.clear()


def _advance(lessons: Lessons, columns: tuple[Column, ...] | list[Column]) -> None:
    lessons.choices.update(column.name for column in columns)
