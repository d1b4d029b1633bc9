"""NOTIFY takes its payload to every session that listens, policies or not: what triggers and functions send of rows.

A notification goes out with a commit, so this wants a database of its own.  An identifier alone tells nothing that
row security would not ask about again, so rows are looked for in the payload, not UUIDs and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.attacks.calls import callable_, calls
from rlsaudit.probe.attacks.reach import sending
from rlsaudit.probe.attacks.relation import target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground import oracle
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.ground.statement_text import acting, insert, matching, name, said
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.tenancy.model import Persona

_STRING = re.compile(r"'((?:[^']|'')+)'")
_NAMED = re.compile(r"\bNOTIFY\s+\"?([^\s\";,]+)", re.IGNORECASE)
_IDENTIFIER = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|-?[0-9]+", re.IGNORECASE)
_LONGEST = 63
_MOST = 40
"""Channels listened to at once."""
_CALLS = 6


@dataclass(frozen=True, slots=True)
class _Sent:
    """What another tenant does that may send something."""

    relation: int
    command: str
    statement: str
    bodies: tuple[str, ...]
    function: int = 0
    emptied: Relation | None = None
    """Whose rows must be gone first, because one of them is stored again."""


def senders(arena: Arena) -> bool:
    """Whether anything of the schema sends notifications at all."""
    return any(sending(arena.catalog, function) for function in arena.catalog.functions if function.extension is None)


def heard(
    arena: Arena, session: Session, owner: psycopg.Connection[tuple[object, ...]], role: int
) -> Iterator[Leak | None]:
    """One entry for each thing that was done as another tenant and committed.

    ``session`` is the role's and ``owner`` a superuser's, both in a database that may be written to.
    """
    listener, victim = arena.world.tenants[:2]
    telling = {mark: whose for mark, whose in arena.world.marks.items() if not _IDENTIFIER.fullmatch(mark)}
    world = replace(arena.world, marks=telling)
    for persona in (one for one in arena.tenancy.context.personas[:1] if not one.login):
        for sent in (*_written(arena, role, victim), *_called(arena, role, victim, listener)):
            if sent.emptied is not None:
                with owner.transaction():
                    owner.execute("SET LOCAL session_replication_role = replica")
                    owner.execute(sql.SQL("DELETE FROM {}").format(name(sent.emptied)))
            yield _attempt(replace(arena, world=world), session, persona, sent)


def _attempt(arena: Arena, session: Session, persona: Persona, sent: _Sent) -> Leak | None:
    listener, victim = arena.world.tenants[:2]
    session.close()
    listening = tuple(said("LISTEN {}", sql.Identifier(one)) for one in _channels(sent.bodies, victim))
    session.run(["ROLLBACK", "BEGIN", *listening, "COMMIT"])
    doing = (*acting(persona, victim.key, victim.user), sent.statement)
    transcript = session.run(["ROLLBACK", "BEGIN", *doing, "COMMIT"])
    for channel, payload in transcript.heard:
        evidence = oracle.taint((), (payload,), arena.world, listener.key, "")
        if evidence is not None:
            first = said("LISTEN {}", sql.Identifier(channel))
            return Leak(
                breaks="read", relation=sent.relation or arena.world.holding(evidence.mark), command=sent.command,
                role=session.role, actor=listener.key, owner=evidence.owner, channel="heard",
                visits=(Visit((first,)), Visit(doing), Visit(("SELECT 1",), commit=False)), context=(),
                mark=evidence.mark, without=frozenset({sent.emptied.oid} if sent.emptied else ()),
                persona=persona.name, function=sent.function, opened=first, escalates=True,
            )  # fmt: skip
    return None


def _channels(bodies: tuple[str, ...], victim: Tenant) -> tuple[str, ...]:
    """Names that the bodies may send to: their strings, as they stand and with the tenant's key put in or after."""
    found: dict[str, None] = {}
    for body in bodies:
        found |= dict.fromkeys(one.lower() for one in _NAMED.findall(body))
        for string in _STRING.findall(body):
            for key in (victim.key, victim.user):
                found |= {string: None, re.sub(r"%[sIL]|%1\$[sIL]", key, string): None, string + key: None}
    return tuple(one for one in found if 0 < len(one.encode()) <= _LONGEST)[:_MOST]


def _written(arena: Arena, role: int, victim: Tenant) -> Iterator[_Sent]:
    """Writes of the victim's own rows where triggers send; those that leave the rows in place first."""
    functions = {function.oid: function for function in arena.catalog.functions}
    watched: dict[int, tuple[str, ...]] = {}
    for trigger in arena.catalog.triggers:
        function = functions.get(trigger.function)
        bodies = sending(arena.catalog, function) if function is not None else ()
        if bodies and trigger.enabled in ("origin", "always"):
            watched[trigger.relation] = (*watched.get(trigger.relation, ()), *bodies)
    relations = [one for one in arena.relations() if one.oid in watched and arena.world.of(one.oid, victim.key)]
    targets = [target(arena.catalog, arena.tenancy, arena.visibility, role, one) for one in relations]
    for on in targets:
        own = (one for one in arena.attacks(on, victim, "UPDATE") if one.aim == "own")
        for update in [*own][:2]:
            yield _Sent(on.relation.oid, "UPDATE", update.statement, watched[on.relation.oid])
    for on in targets:
        oid, row = on.relation.oid, arena.world.of(on.relation.oid, victim.key)[0]
        if on.deletable and on.key:
            gone = said("DELETE FROM {} WHERE {}", name(on.relation), matching(on.relation, row, on.key))
            yield _Sent(oid, "DELETE", gone, watched[oid])
        if on.insertable:
            again = insert(on.relation, {column: value for column, value in row.items() if column in on.insertable})
            yield _Sent(oid, "INSERT", said("{}", again), watched[oid], emptied=on.relation)


def _called(arena: Arena, role: int, victim: Tenant, listener: Tenant) -> Iterator[_Sent]:
    for function in arena.functions():
        bodies = sending(arena.catalog, function) if callable_(function) else ()
        if bodies and arena.visibility.may_execute(role, function):
            for call in calls(arena, function, victim, listener, _CALLS):
                yield _Sent(0, "EXECUTE", call, bodies, function.oid)
