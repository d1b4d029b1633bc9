"""Functions that policies rely on, and what functions reach by their calls."""

from __future__ import annotations

from rlsaudit.checks._bodies import reading
from rlsaudit.checks._known import READABLE, named

from rlsaudit.catalog.relations import Policy
from rlsaudit.check import Subject, kept


@kept
def deciders(subject: Subject) -> dict[int, tuple[Policy, ...]]:
    """Functions that policies call, or that such functions call, with the policies."""
    collected: dict[int, dict[int, Policy]] = {}
    for policy in subject.catalog.policies:
        for oid in subject.catalog.mentions("policy", policy.oid, "function"):
            for reached in calls_reached(subject, oid):
                collected.setdefault(reached, {})[policy.oid] = policy
    return {oid: tuple(ones.values()) for oid, ones in collected.items()}


@kept
def _kept_reached(subject: Subject) -> dict[int, frozenset[int]]:
    return {}


def calls_reached(subject: Subject, function: int) -> frozenset[int]:
    """The function and the user functions that its body calls, by recorded dependencies and by name."""
    known = _kept_reached(subject)
    if function not in known:
        seen: set[int] = set()
        waiting = [function]
        while waiting:
            one = subject.catalog.function(waiting.pop())
            if one is None or one.oid in seen:
                continue
            seen.add(one.oid)
            waiting += subject.catalog.mentions("function", one.oid, "function")
            if one.language in READABLE and one.extension is None:
                waiting += [other.oid for name in reading(subject, one).calls for other in named(subject, one, name)]
        known[function] = frozenset(seen)
    return known[function]
