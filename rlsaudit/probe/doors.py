"""Doors that are no relation's command: functions the role may call, and TRUNCATE, which row security never sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice, product

from psycopg import sql

from rlsaudit.catalog.model import Column, Function
from rlsaudit.probe import oracle
from rlsaudit.probe import values as values_
from rlsaudit.probe.leak import Leak, Visit
from rlsaudit.probe.ownership import DIGEST
from rlsaudit.probe.session import Session
from rlsaudit.probe.statement_text import acting, literal, name, text
from rlsaudit.probe.sweep import Arena
from rlsaudit.probe.world import Tenant, World
from rlsaudit.tenancy.model import Persona

CALLS = 24
"""Argument combinations tried per function, tenant and persona."""
_NAMED = 8
"""Words of a function's body that are tried as arguments."""


def functions(arena: Arena, session: Session, role: int) -> Iterator[tuple[Function, Leak | None]]:
    """Call everything ``role`` may execute, with own and foreign values as arguments."""
    for function in arena.catalog.functions:
        if not callable_(function) or not arena.visibility.may_execute(role, function):
            continue
        for persona in (*arena.tenancy.context.personas, Persona("no context", ())):
            actor, victim = arena.world.tenants[:2]
            if not persona.statements:
                session.close()  # a setting that was ever set on a connection is '' for ever after, not NULL
            for call in islice(calls(function, arena.world, actor, victim), CALLS):
                yield function, _call(arena, session, function, persona, actor, call)


def callable_(function: Function) -> bool:
    """Whether a client could call it by a statement."""
    return (
        function.extension is None
        and function.kind in ("function", "procedure")
        and function.returns not in ("trigger", "event_trigger", "internal")
        and not any(t in ("internal", "cstring") for t in function.argument_types)
    )


def calls(function: Function, world: World, actor: Tenant, victim: Tenant) -> Iterator[str]:
    """Statements that call it with own and foreign values, and with the words that it compares with."""
    named = tuple(word for word in values_.mine(function.source) if len(word) <= 40)[:_NAMED]
    pools = [_arguments(type_name, world, actor, victim, named) for type_name in function.argument_types]
    called = sql.SQL("{}.{}").format(sql.Identifier(function.schema), sql.Identifier(function.name))
    for values in product(*pools):
        given = sql.SQL(", ").join(
            sql.SQL("{}::{}").format(literal(value), sql.SQL(type_name))
            for value, type_name in zip(values, function.argument_types, strict=True)
        )
        if function.kind == "procedure":
            yield text(sql.SQL("CALL {}({})").format(called, given))
        else:
            yield text(sql.SQL("SELECT * FROM {}({}) AS called").format(called, given))


def _arguments(
    type_name: str, world: World, actor: Tenant, victim: Tenant, named: tuple[str, ...]
) -> tuple[str | None, ...]:
    """Foreign values of the argument's type, the tenant's own, words that the function's body compares with, and NULL."""
    match type_name:
        case "uuid":
            fits = _is_uuid
        case "smallint" | "integer" | "bigint" | "numeric":
            fits = _is_integer
        case "text" | "character varying" | "name":
            fits = _is_text
        case "boolean":
            return ("true", "false")
        case "json" | "jsonb":
            # Every key that the body asks for, with the other tenant's values.
            ids = [t for t, owner in world.marks.items() if owner == victim.key and (_is_uuid(t) or _is_integer(t))][:3]
            keyed = (json.dumps(dict.fromkeys(named, value)) for value in (victim.key, *ids))
            return (*keyed, "{}")
        case _ if type_name.endswith("[]"):
            inner = _arguments(type_name.removesuffix("[]"), world, actor, victim, ())
            return (*("{" + value + "}" for value in inner if value and "," not in value), "{}", None)
        case _:
            column = Column(1, "argument", type_name, 0, type_name, "", True, None)
            return (*named, *values_.candidates(column, 1, 1)[:3], None)
    foreign = [t for t, owner in world.marks.items() if owner == victim.key and fits(t) and t != victim.key]
    found = [t for t in (victim.key, victim.user, actor.key) if fits(t)]
    if fits is _is_integer:
        found += [word for word in (*named, "0", "-1") if fits(word)]
    # What a search takes for everything, and what a function that runs its argument would run.
    general = ("", "%", "SELECT 1") if type_name in ("text", "character varying") else ()
    return tuple(dict.fromkeys((*found, *foreign[:3], *(named if general else ()), *general, None)))


def _is_uuid(value: str) -> bool:
    return len(value) == 36 and value.count("-") == 4


def _is_integer(value: str) -> bool:
    return value.removeprefix("-").isdigit() and len(value) < 10


def _is_text(value: str) -> bool:
    return not _is_uuid(value)


def _call(
    arena: Arena, session: Session, function: Function, persona: Persona, actor: Tenant, call: str
) -> Leak | None:
    context = acting(persona, actor.key, actor.user)
    acted = actor.key if context else ""
    transcript = session.transaction([*context, call, "SET CONSTRAINTS ALL IMMEDIATE", DIGEST])
    at = len(context)
    if len(transcript.replies) <= at or any(reply.sqlstate for reply in transcript.replies[:at]):
        return None
    shown = transcript.replies[at : at + 1]
    evidence = oracle.taint(shown, transcript.notices, arena.world, acted, " ".join((*context, call)))
    if evidence is None and len(transcript.replies) == at + 3 and not transcript.failed:
        digest = oracle.parse_digest(transcript.replies[-1])
        evidence = oracle.changed(arena.world.baseline, digest, acted, arena.known)
    if evidence is None:
        return None
    return Leak(
        breaks=evidence.property if context else "closed",
        relation=evidence.relation or arena.world.holding(evidence.mark),
        command="EXECUTE",
        role=session.role,
        actor=acted,
        owner=evidence.owner,
        channel=evidence.channel,
        visits=(Visit((call,), commit=False),),
        context=context,
        mark=evidence.mark,
        changed=evidence.relation,
        persona=persona.name,
        function=function.oid,
    )


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
