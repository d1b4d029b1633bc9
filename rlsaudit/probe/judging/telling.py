"""Which leaks become findings: one for each door and broken property, however many commands and partitions show it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rlsaudit.catalog.model import Catalog
from rlsaudit.probe.ground.leak import Leak

_ORDER = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "EXECUTE")


@dataclass(frozen=True, slots=True)
class Told:
    """A leak to report, with the commands, the sibling partitions and the roles that show the same."""

    leak: Leak
    commands: tuple[str, ...]
    siblings: tuple[int, ...]
    roles: tuple[str, ...]


def worth_telling(catalog: Catalog, leaks: Iterable[Leak]) -> tuple[Told, ...]:
    """Group leaks by door, over all roles; carryover is the context's and so one finding.

    A relation that leaks under a valid context leaks without one too: that is not told twice.
    """
    leaks = tuple(leaks)
    with_context = {
        (leak.role, leak.relation, leak.command) for leak in leaks if leak.breaks not in ("closed", "carryover")
    }
    groups: dict[tuple[object, ...], list[Leak]] = {}
    for leak in leaks:
        if leak.breaks == "closed" and (leak.role, leak.relation, leak.command) in with_context:
            continue
        groups.setdefault(_door(catalog, leak), []).append(leak)
    return tuple(_told(group) for group in groups.values())


def _door(catalog: Catalog, leak: Leak) -> tuple[object, ...]:
    if leak.breaks == "carryover":
        return (leak.breaks,)
    if leak.opened:
        return ("opened", re.sub(r"='[^']*'", "", leak.opened))  # whatever the value
    if leak.constraint:
        return (leak.breaks, leak.relation, leak.constraint)
    if leak.command == "TRUNCATE":
        return (leak.command, leak.owner == "")  # no policy is asked: it is the privilege, wherever it was given
    relation = catalog.find_relation(leak.relation)
    place = (
        relation.parents[0] if relation is not None and relation.is_partition and relation.parents else leak.relation
    )
    direct = relation is not None and relation.is_partition
    return (
        leak.breaks,
        leak.own or leak.function or place,
        direct,
        leak.owner == "",
    )


def _plainness(leak: Leak) -> tuple[int, int, bool, int]:
    return (
        len(leak.visits),
        len(leak.visits[-1].statements),
        leak.channel == "error",
        _ORDER.index(leak.command),
    )


def _told(group: list[Leak]) -> Told:
    first = min(group, key=_plainness)
    commands = sorted({leak.command for leak in group}, key=_ORDER.index)
    siblings = tuple(sorted({leak.relation for leak in group} - {first.relation}))
    roles = tuple(sorted({leak.role for leak in group}))
    return Told(first, tuple(commands), siblings, roles)
