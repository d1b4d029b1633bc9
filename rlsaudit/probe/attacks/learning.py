"""Where random workloads have learnt least, over all nights: what is known of each neighbourhood, and which comes next.

A neighbourhood is a relation as one role meets it, with what stands near it.  Each is visited once by risk: what no
night has visited, what is not proven, what changed, what is reached through doors.  From then on time goes where
rounds still give new outcomes, and is shared evenly where none does.  Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Key = tuple[str, str]
"""(role, relation)"""

_UNPROVEN, _CHANGED, _DOOR = 3.0, 2.0, 1.5
"""How much more time goes there than to what is proven, known and closed."""
_SHORTEST = 0.05
"""Seconds; a round that takes less is not worth more."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """A relation as one role meets it."""

    role: str
    relation: str
    members: tuple[int, ...]
    """OIDs of the relation itself and of what stands near it."""
    fingerprint: str = ""
    """Of the relation's definition and of what is attached to it."""
    unproven: bool = False
    door: bool = False
    """A view or a definer's function reaches it."""

    @property
    def key(self) -> Key:
        return self.role, self.relation


@dataclass(slots=True)
class Visits:
    """What is known of one neighbourhood."""

    rounds: int = 0
    programs: int = 0
    seconds: float = 0.0
    fresh: float = 0.0
    """New outcomes in a round, the last rounds counting most."""
    fingerprint: str = ""
    """Of the definition that all this is about."""
    outcomes: set[str] = field(default_factory=set)
    """Outcomes of statements on the relation itself: command, and SQLSTATE or how many rows."""


class Learning:
    """What is known of neighbourhoods, and which is visited next."""

    def __init__(self, earlier: Mapping[Key, Visits] | None = None) -> None:
        """``earlier``: what was known when the night began."""
        self.known: dict[Key, Visits] = dict(earlier or {})
        self._earlier = frozenset(self.known)
        self._tonight: Counter[Key] = Counter()
        self._near: dict[Key, Neighbourhood] = {}
        self._changed: set[Key] = set()
        self._programs = 0

    def offer(self, near: Iterable[Neighbourhood]) -> None:
        """Neighbourhoods that may be visited this night; what was known of an older definition is forgotten."""
        for one in near:
            self._near[one.key] = one
            if one.key in self.known and self.known[one.key].fingerprint != one.fingerprint:
                self._changed.add(one.key)
                self.known[one.key] = Visits(fingerprint=one.fingerprint)

    def next(self, role: str) -> Neighbourhood | None:
        """Where to go as ``role``; None when nothing was offered."""
        offered = (one for one in self._near.values() if one.role == role)
        return min(offered, key=self._order, default=None)

    def rounds(self, one: Neighbourhood) -> int:
        """Rounds there, in all nights."""
        return self._visits(one.key).rounds

    def note(self, key: Key, outcome: str) -> bool:
        """Whether the outcome of a statement on that relation is new."""
        known = self._visits(key).outcomes
        if outcome in known:
            return False
        known.add(outcome)
        return True

    def visited(self, one: Neighbourhood, programs: int, seconds: float, fresh: int) -> None:
        """One round has been there: its programs, the time they took, and the new outcomes that they gave."""
        visits = self._visits(one.key)
        visits.fresh = (visits.fresh + fresh) / 2 if visits.rounds else fresh
        visits.rounds += 1
        visits.programs += programs
        visits.seconds += seconds
        self._tonight[one.key] += 1
        self._programs += programs

    def learnt(self) -> dict[Key, Visits]:
        """What is known now of the neighbourhoods that were offered; nothing when none was visited."""
        return {key: one for key, one in self.known.items() if key in self._near} if self._tonight else {}

    @property
    def told(self) -> str:
        """What the night did, in one sentence; empty when nothing was visited."""
        if not self._tonight:
            return ""
        roles = {role for role, _ in self._near}
        least = sorted(self._near, key=lambda key: (self._visits(key).rounds, *key))[:_NAMED]
        named = ", ".join(f"{key[1]}{f' as {key[0]}' * (len(roles) > 1)} ({self._visits(key).rounds})" for key in least)
        before = len(self._earlier & self._near.keys())
        return (
            f"Random workloads: {self._programs:,} programs in {self._tonight.total():,} rounds over {len(self._tonight):,} of "
            f"{len(self._near):,} neighbourhoods of tables{f'; {before:,} were known from earlier nights' * bool(before)}; "
            f"fewest rounds so far: {named}."
        )

    def _visits(self, key: Key) -> Visits:
        if key not in self.known:
            near = self._near.get(key)
            self.known[key] = Visits(fingerprint=near.fingerprint if near else "")
        return self.known[key]

    def _order(self, one: Neighbourhood) -> tuple[int, float]:
        """Smallest first.  ``min`` takes the first of equals: the order in which they were offered."""
        visits, tonight = self.known.get(one.key), self._tonight[one.key]
        changed = one.key in self._changed
        weight = (_UNPROVEN if one.unproven else 1) * (_CHANGED if changed else 1) * (_DOOR if one.door else 1)
        if visits is None or not (visits.rounds or changed):
            return 0, -weight
        waiting = (one.unproven, changed, one.door)
        if not tonight and any(waiting):
            return 1 + waiting.index(True), 0.0
        pace = max(visits.seconds / visits.rounds, _SHORTEST)
        return 4, -weight * (visits.fresh + 1 / (1 + visits.rounds)) / pace
