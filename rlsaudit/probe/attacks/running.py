"""One random program: run in a transaction of its own, judged by what came back and by the digest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from rlsaudit.probe.attacks.menus import Step
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground import oracle
from rlsaudit.probe.ground.digest import DIGEST
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.session import Reply, Session
from rlsaudit.probe.ground.statement_text import acting
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.tenancy.model import Persona


def run_program(
    arena: Arena, session: Session, tenant: Tenant, persona: Persona, program: Sequence[Step],
    note: Callable[[Step, Reply], None] = lambda step, reply: None,
) -> Leak | None:  # fmt: skip
    """The leak that it is, or None.  ``note`` is told what each statement gave that ran."""
    context = acting(persona, tenant.key, tenant.user)
    statements = tuple(step.statement for step in program)
    transcript = session.transaction([*context, *statements, "SET CONSTRAINTS ALL IMMEDIATE", DIGEST])
    at = len(context)
    replies = transcript.replies[at:]
    if len(transcript.replies) < at or any(reply.sqlstate for reply in transcript.replies[:at]):
        return None
    for step, reply in zip(program, replies, strict=False):
        note(step, reply)
    written = " ".join((*context, *statements))
    for index, reply in enumerate(replies[: len(statements)]):
        evidence = oracle.taint([reply], (), arena.world, tenant.key, written)
        if evidence is not None:
            shown = _read_from(arena, program[index], oracle.sources(reply, arena.world, tenant.key))
            return _leak(arena, session, tenant, persona, context, (*program[:index], shown), evidence)
    if len(replies) == len(statements) + 2 and not transcript.failed:
        digest = oracle.parse_digest(replies[-1])
        evidence = oracle.changed(arena.world.baseline, digest, tenant.key, arena.known)
        if evidence is not None:
            return _leak(arena, session, tenant, persona, context, program, evidence)
    return None


def _read_from(arena: Arena, step: Step, sources: Counter[int]) -> Step:
    """Of a join, the side that the foreign values came through."""
    if not step.joined or not sources:
        return step
    most = max(sources.values())
    likely = {oid for oid, count in sources.items() if count == most}
    if step.relation in likely:
        return step
    through = (oid for oid in (step.joined, step.relation) if oid in likely or _shows(arena, oid, likely))
    return replace(step, relation=next(through, step.joined))


def _shows(arena: Arena, view: int, relations: set[int]) -> bool:
    return any(oid in relations for oid in arena.catalog.mentions("relation", view, "relation"))


def _blamed(arena: Arena, program: Sequence[Step], evidence: oracle.Evidence) -> Step:
    """A foreign row seen is the last statement's doing; one changed, that of the last write that can have reached it."""
    if evidence.channel != "digest":
        return program[-1]
    writes = [step for step in program if step.command != "SELECT"] or list(program)
    family = {evidence.relation, *(child.oid for child in arena.catalog.children_of(evidence.relation))}
    return next((step for step in reversed(writes) if step.relation in family), writes[-1])


def _leak(
    arena: Arena,
    session: Session,
    tenant: Tenant,
    persona: Persona,
    context: tuple[str, ...],
    program: Sequence[Step],
    evidence: oracle.Evidence,
) -> Leak:
    blamed = _blamed(arena, program, evidence)
    return Leak(
        breaks=evidence.property,
        relation=blamed.relation,
        command=blamed.command,
        role=session.role,
        actor=tenant.key,
        owner=evidence.owner,
        channel=evidence.channel,
        visits=(Visit(tuple(step.statement for step in program), commit=False),),
        context=context,
        mark=evidence.mark,
        changed=evidence.relation,
        persona=persona.name,
    )
