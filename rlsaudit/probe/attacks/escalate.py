"""Escalations, tried: which of the ways that the catalog leaves open really lead to another tenant's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from rlsaudit.probe.attacks.escalations import escalations
from rlsaudit.probe.attacks.outside import outside, sequences
from rlsaudit.probe.attacks.programs import attempt
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak
from rlsaudit.probe.ground.session import Session

_EACH = 40
"""Leaks told of one way; beyond these it is the same again."""


def escalate(arena: Arena, session: Session, role: int, known: Iterable[Leak]) -> Iterator[Leak | None]:
    """One entry for each program tried.  What ``known`` leaks show without any of it is left out."""
    anyway = {
        (leak.function or leak.relation, leak.breaks) for leak in known if leak.role == session.role and not leak.opened
    }
    read = {place for place, broken in anyway if broken in ("read", "closed")}
    found: Counter[str] = Counter()
    tenant = arena.world.tenants[0]
    for persona in arena.tenancy.context.personas[:1]:
        yield from sequences(arena, session, role, persona, tenant)
        for program in (*outside(arena, role, persona, tenant), *escalations(arena, role, persona, tenant)):
            place = program.function or program.relation
            if found[program.way] >= _EACH or (program.command == "SELECT" and place in read):
                continue
            leak = attempt(arena, session, persona, tenant, program)
            if leak is not None and (place, leak.breaks) in anyway:
                leak = None
            found[program.way] += leak is not None
            yield leak
