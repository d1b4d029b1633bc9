"""Doors that are no relation's command: functions the role may call, and TRUNCATE, which row security never sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from psycopg import sql

from rlsaudit.catalog.routines import Function
from rlsaudit.probe.attacks.calls import CALLS, callable_, calls
from rlsaudit.probe.attacks.reach import Touch, touches
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground import oracle
from rlsaudit.probe.ground.digest import DIGEST
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.session import Session, Transcript
from rlsaudit.probe.ground.statement_text import acting, name, text
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.tenancy.model import Persona

_HARMLESS_CALLS = 4
"""Calls of a function whose body names no tenant data: enough to be told otherwise."""
_SECOND_CALLS = 8
"""Calls as a second tenant, for what holds one tenant's key fast."""

DRAIN = (
    "DO $$DECLARE opened text[]; one text; c refcursor; r record; BEGIN "
    "SELECT array_agg(name) INTO opened FROM pg_catalog.pg_cursors; "
    "FOREACH one IN ARRAY COALESCE(opened, '{}') LOOP c := one; LOOP FETCH c INTO r; EXIT WHEN NOT FOUND; "
    "PERFORM pg_catalog.set_config('rlsaudit.fetched', "
    "COALESCE(pg_catalog.current_setting('rlsaudit.fetched', true), '') || r::text, true); "
    "END LOOP; END LOOP; END$$"
)
"""Read every cursor that is open, whatever its name; a script can run it as well."""
FETCHED = "SELECT pg_catalog.current_setting('rlsaudit.fetched', true) AS fetched"


@dataclass
class Called:
    """What calling one function gave, over all its calls."""

    function: Function
    touch: Touch
    trials: int = 0
    failures: int = 0
    error: str = ""
    """The server's word on the last call that failed."""
    seen_by: set[str] = field(default_factory=set)
    """Names of the tenants whose own marks came out."""
    returned: bool = False
    """A call gave something else than NULL or no row."""
    rows: int = 0
    """Most rows that one call gave."""
    wrote: bool = False
    """A call changed rows of the tenant that it acted for."""
    leaks: list[Leak] = field(default_factory=list)


def functions(arena: Arena, session: Session, role: int) -> Iterator[Called]:
    """Call everything ``role`` may execute, with own and foreign values as arguments."""
    first, second = arena.world.tenants[:2]
    for function in arena.functions():
        if not callable_(function) or not arena.visibility.may_execute(role, function):
            continue
        called = Called(function, touches(arena.catalog, arena.tenancy, function))
        most = (CALLS, _SECOND_CALLS) if called.touch.tenant_data else (_HARMLESS_CALLS, 0)
        bare = called.touch.tenant_data and not arena.tenancy.context.login
        without = (Persona("no context", ()),) if bare else ()
        for persona in (*arena.tenancy.context.personas, *without):
            if persona in without:
                session.close()  # a setting that was ever set on a connection is '' for ever after, not NULL
            for statement in calls(arena, function, first, second, most[0]):
                call(arena, session, called, persona, first, statement)
            for statement in () if persona in without else calls(arena, function, second, first, most[1]):
                call(arena, session, called, persona, second, statement)
        yield called


def call(arena: Arena, session: Session, called: Called, persona: Persona, actor: Tenant, statement: str) -> None:
    """Run one call of ``called`` and note what it gave."""
    context = acting(persona, actor.key, actor.user)
    acted = actor.key if context else ""
    program = (statement, DRAIN, FETCHED) if called.touch.cursors else (statement,)
    transcript = session.transaction([*context, *program, "SET CONSTRAINTS ALL IMMEDIATE", DIGEST])
    at = len(context)
    if len(transcript.replies) <= at or any(reply.sqlstate for reply in transcript.replies[:at]):
        return
    _note(arena, called, transcript, at, len(program), actor if context else None)
    evidence, last = None, 0
    for last in (0, len(program) - 1):
        shown = transcript.replies[at + last : at + last + 1]
        evidence = oracle.taint(shown, transcript.notices, arena.world, acted, " ".join((*context, statement)))
        if evidence is not None:
            break
    complete = len(transcript.replies) == at + len(program) + 2 and not transcript.failed
    if evidence is None and complete:
        last = 0
        digest = oracle.parse_digest(transcript.replies[-1])
        evidence = oracle.changed(arena.world.baseline, digest, acted, arena.known)
    if evidence is None:
        return
    called.leaks.append(
        Leak(
            breaks=evidence.property if context else "closed",
            relation=evidence.relation or arena.world.holding(arena.world.plain(evidence.mark)),
            command="EXECUTE",
            role=session.role,
            actor=acted,
            owner=evidence.owner,
            channel=evidence.channel,
            visits=(Visit(program[: last + 1], commit=False),),
            context=context,
            mark=evidence.mark,
            changed=evidence.relation,
            persona=persona.name,
            function=called.function.oid,
        )
    )


def _note(arena: Arena, called: Called, transcript: Transcript, at: int, length: int, actor: Tenant | None) -> None:
    """What the call says of the function's being alive; without a context there is nothing that it should do."""
    if actor is None:
        return
    called.trials += 1
    replies = transcript.replies[at : at + length]
    failed = next((reply for reply in transcript.replies[at:] if reply.sqlstate), None)
    if failed is not None:
        called.failures += 1
        called.error = failed.error
        return
    if oracle.own_seen(Transcript(replies, ()), arena.world, actor.key):
        called.seen_by.add(actor.name)
    called.rows = max(called.rows, len(replies[0].rows))
    called.returned |= any(cell not in (None, "") for reply in replies for row in reply.rows for cell in row)
    digest = oracle.parse_digest(transcript.replies[-1])
    called.wrote |= oracle.differs(arena.world.baseline, digest, actor.key)


def truncations(arena: Arena, session: Session, role: int) -> Iterator[tuple[int, Leak | None]]:
    """TRUNCATE every relation on which ``role`` holds the privilege."""
    actor = arena.world.tenants[0]
    for persona in arena.tenancy.context.personas[:1]:
        context = acting(persona, actor.key, actor.user)
        for relation in arena.relations():
            if not arena.tenancy.of(relation.oid).tenant_data or relation.kind not in (
                "table",
                "partitioned table",
            ):
                continue
            owner = arena.visibility.owns(role, relation.owner)  # may do anything to it; that is a finding of its own
            if owner or not arena.visibility.may(role, relation, "TRUNCATE"):
                continue
            statement = text(sql.SQL("TRUNCATE {} CASCADE").format(name(relation)))
            plain = statement.removesuffix(" CASCADE")
            found = None
            for attack in (plain, statement):
                transcript = session.transaction([*context, attack, DIGEST])
                if transcript.failed or len(transcript.replies) != len(context) + 2:
                    continue
                digest = oracle.parse_digest(transcript.replies[-1])
                evidence = oracle.changed(arena.world.baseline, digest, actor.key, arena.known)
                if evidence is not None:
                    found = Leak(
                        breaks="write", relation=relation.oid, command="TRUNCATE", role=session.role, actor=actor.key,
                        owner=evidence.owner, channel="digest", visits=(Visit((attack,), commit=False),),
                        context=context, changed=evidence.relation, persona=persona.name,
                    )  # fmt: skip
                    break
            yield relation.oid, found
