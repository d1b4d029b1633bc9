"""Programs of several statements under one tenant's context, judged like a single attack by taint and digest.

The statements before the last prepare the way; whatever the last one shows or changes is the leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlsaudit.finding import Severity
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground import oracle
from rlsaudit.probe.ground.digest import DIGEST
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.session import Session, Transcript
from rlsaudit.probe.ground.statement_text import acting
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.tenancy.model import Persona


@dataclass(frozen=True, slots=True)
class Program:
    """What one tenant's session sends after its context is set."""

    relation: int
    command: str
    first: tuple[str, ...]
    """Statements that prepare the way; where one fails the way is closed."""
    statement: str
    way: str = ""
    """The escalation in words, one finding for each; empty where ordinary statements do it."""
    function: int = 0
    severity: Severity | None = None
    """How bad it is, when not what the broken property says."""
    visited: tuple[str, ...] = ()
    """Those of ``first`` that another tenant sends: what they name is not the attacker's own."""
    gone: bool = False
    """The damage is that the relation itself is no longer there."""
    passed_on: bool = False
    """The way is a value that the application takes from its client, and no SQL of the attacker's."""


def attempt(arena: Arena, session: Session, persona: Persona, tenant: Tenant, program: Program) -> Leak | None:
    """Run ``program`` in a transaction that is rolled back; the leak that it shows, if any."""
    context = acting(persona, tenant.key, tenant.user)
    sent = (*context, *program.first, program.statement)
    after = (
        ()
        if program.gone or program.command == "SELECT"
        else ("SET CONSTRAINTS ALL IMMEDIATE", _digest(arena, program))
    )
    transcript = session.transaction([*sent, *after])
    at = len(sent) - 1
    if len(transcript.replies) <= at or any(reply.sqlstate for reply in transcript.replies[:at]):
        return None
    shown = next((reply for reply in transcript.replies[at:] if reply.sqlstate), transcript.replies[at])
    if program.gone:
        return (
            None if shown.sqlstate else _leak(session, persona, tenant, program, context, _gone(arena, program, tenant))
        )
    own = [statement for statement in sent if statement not in program.visited]
    evidence = oracle.taint([shown], transcript.notices, arena.world, tenant.key, " ".join(own))
    if evidence is None and after and not program.visited and _complete(transcript, len(sent) + 2):
        digest = oracle.parse_digest(transcript.replies[-1])
        evidence = oracle.changed(arena.world.baseline, digest, tenant.key, arena.known)
    return _leak(session, persona, tenant, program, context, evidence)


def _complete(transcript: Transcript, length: int) -> bool:
    return len(transcript.replies) == length and not transcript.failed


def _digest(arena: Arena, program: Program) -> str:
    """What a function may change nobody can tell beforehand."""
    return DIGEST if program.function else arena.digest(program.relation)


def _gone(arena: Arena, program: Program, tenant: Tenant) -> oracle.Evidence | None:
    owners = (other.key for other in arena.world.others(tenant) if arena.world.of(program.relation, other.key))
    owner = next(owners, None)
    return None if owner is None else oracle.Evidence("write", "gone", owner, relation=program.relation)


def _leak(
    session: Session, persona: Persona, tenant: Tenant, program: Program, context: Sequence[str], evidence: oracle.Evidence | None
) -> Leak | None:  # fmt: skip
    if evidence is None:
        return None
    return Leak(
        breaks=evidence.property, relation=program.relation, command=program.command, role=session.role,
        actor=tenant.key, owner=evidence.owner, channel=evidence.channel,
        visits=(Visit((*program.first, program.statement), commit=False),), context=tuple(context), mark=evidence.mark,
        changed=evidence.relation, persona=persona.name, function=program.function, opened=program.way,
        escalates=bool(program.way) and not program.passed_on, severity=program.severity,
    )  # fmt: skip
