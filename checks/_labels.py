"""What the rows that meet a condition are held against: the session, a secret, an argument."""

from __future__ import annotations

import re
from collections.abc import Callable

from rlsaudit.checks._terms import STRENGTH, Label, Slot, Term
from rlsaudit.checks._ways import Fact, Way

_SECRET = re.compile(
    r"(?:^|_)(?:\w*token|secret|api_?key|\w*hash(?:ed)?|digest|password|passwd|pin|otp|nonce|code|signature|jti)(?:_|$)"
)
_PERSON = re.compile(r"(?:^|_)(?:e_?mail\w*|user_?name|login|phone\w*|handle)$")


def labels(way: Way, key: Callable[[int, str], bool]) -> dict[Slot, Label]:
    """What the columns and arguments on one way are held against.

    ``key``: whether a column of a source ties its row to another row; (source, "") holds the label of a whole row.
    """
    found: dict[Slot, Label] = {}

    def label(slot: Slot) -> Label | None:
        return min(
            (x for x in (found.get(slot), found.get((slot[0], "")) if slot[0] else None) if x),
            key=STRENGTH.__getitem__,
            default=None,
        )

    def give(slot: Slot, new: Label, bound: frozenset[int] | None, whole: bool) -> bool:
        if bound is not None and slot[0] and slot[0] not in bound:
            return False
        changed = False
        targets = [slot, (slot[0], "")] if slot[0] and whole else [slot]
        for one in targets:
            old = found.get(one)
            if old is None or STRENGTH[new] < STRENGTH[old]:
                found[one] = new
                changed = True
        return changed

    changed = True
    while changed:
        changed = False
        for fact in way:
            if isinstance(fact, Fact):
                for slot in fact.term.held:
                    changed |= give(slot, "session", None, True)
                continue
            for held in (fact.left, fact.right):
                for slot in held.held:
                    changed |= give(slot, "session", None, True)
            for one, other in ((fact.left, fact.right), (fact.right, fact.left)):
                if one.plain:
                    slot = next(iter(one.slots))
                    new, whole = _given(slot, other, label, key)
                    if new is not None:
                        changed |= give(slot, new, fact.bound, whole)
    return found


def _given(
    slot: Slot, other: Term, label: Callable[[Slot], Label | None], key: Callable[[int, str], bool]
) -> tuple[Label | None, bool]:
    """The label that a column or argument gets from what it equals, and whether its whole row does."""
    source, name = slot
    if other.constant:
        return ("constant", key(source, name)) if not other.blank else (None, False)
    if other.session and not other.columns and not other.arguments:
        return "session", key(source, "*")
    if other.arguments and not other.columns:
        known = [label((0, one)) for one in other.arguments]
        if all(one == "session" for one in known):
            return "session", True
        if source and (_SECRET.search(name) or _PERSON.search(name)):
            return ("secret" if _SECRET.search(name) else "person"), True
        return _weakest(known), key(source, name)
    if other.columns and not other.arguments:
        known = [label(inner) if inner[0] != source else None for inner in other.columns]
        return _weakest(known), key(source, name)
    return None, False


def _weakest(known: list[Label | None]) -> Label | None:
    """What all of them have in common; None when one has nothing."""
    found = [one for one in known if one is not None]
    if not found or len(found) < len(known):
        return None
    weakest: Label = max(found, key=STRENGTH.__getitem__)
    return weakest


def gate(way: Way) -> bool:
    """Whether a way asks something of the session that does not depend on a row or an argument."""
    for fact in way:
        if isinstance(fact, Fact):
            term = fact.term
            if term.session and not (term.columns or term.arguments or term.held or fact.presence):
                return True
        elif not (fact.left.columns or fact.right.columns or fact.left.arguments or fact.right.arguments):
            sides = (fact.left, fact.right)
            if any(side.session for side in sides) and not any(side.blank for side in sides):
                return True
    return False
