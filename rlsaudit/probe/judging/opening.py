"""Settings that open what policies close: one finding for the setting, and cells judged by ordinary sessions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from rlsaudit.probe.attacks.sweep import Arena, CellKey
from rlsaudit.probe.ground.leak import Leak, Tried
from rlsaudit.tenancy.model import Persona


def openers(arena: Arena, tried: Mapping[CellKey, Tried], role: str) -> tuple[Persona, ...]:
    """Personas that cross where another reaches its own rows and crosses not: what they set is what opens."""
    candidates = {persona.name: persona for persona in arena.tenancy.context.personas if persona.opening}
    found: dict[str, Persona] = {}
    for (_, tested, _), trial in tried.items():
        crossing = {leak.persona for leak in trial.leaks}
        if tested == role and trial.alive_as - crossing:
            found.update({name: candidates[name] for name in crossing & candidates.keys()})
    return tuple(found.values())


def told_apart(leaks: Iterable[Leak], opening: Iterable[Persona]) -> list[Leak]:
    """The leaks, with those that only a setting opens marked by it; of several ways to one place those that set least."""
    names = {persona.name for persona in opening}
    ordinary = [leak for leak in leaks if leak.persona not in names]
    anyway = {leak.place for leak in ordinary}
    opened = [
        replace(leak, opened=leak.persona) for leak in leaks if leak.persona in names and leak.place not in anyway
    ]
    ways: dict[tuple[object, ...], list[set[str]]] = defaultdict(list)
    for leak in opened:
        ways[_way(leak)].append({*leak.opened.split(", ")})
    least = [leak for leak in opened if not any(less < {*leak.opened.split(", ")} for less in ways[_way(leak)])]
    return [*ordinary, *least]


def _way(leak: Leak) -> tuple[object, ...]:
    return leak.relation, leak.command, leak.breaks


def without(arena: Arena, opening: Iterable[Persona]) -> Arena:
    """The same arena for ordinary sessions."""
    gone = set(opening)
    context = arena.tenancy.context
    kept = tuple(persona for persona in context.personas if persona not in gone)
    return replace(arena, tenancy=replace(arena.tenancy, context=replace(context, personas=kept))) if gone else arena
