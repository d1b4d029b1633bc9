"""Sessions as they are in life: without a context, with a broken one, after another tenant's visit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from psycopg import sql

from rlsaudit.catalog.relations import Command, Relation
from rlsaudit.finding import Property
from rlsaudit.probe.attacks.pools import closing, visited
from rlsaudit.probe.attacks.relation import Target, target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground import oracle
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.session import Reply, Session
from rlsaudit.probe.ground.statement_text import acting, columns, insert, literal, name, text
from rlsaudit.probe.ground.world import SHARED, Tenant
from rlsaudit.probe.seeding.logins import GARBAGE, unknown_of
from rlsaudit.tenancy.model import Persona

_CANCELLED = "57014"
_PREPARED_RUNS = 6  # one more than the custom plans that the server tries before it keeps a generic one


@dataclass(frozen=True, slots=True)
class Trial:
    """One program of a context test and whether it leaked; ``case`` says in words what was done."""

    case: str
    relation: int
    command: Command
    leak: Leak | None


def closed(arena: Arena, session: Session, role: int) -> Iterator[Trial]:
    """Without a context no tenant's row may be reached: never set, empty, an unknown tenant, garbage."""
    for relation in _tenant_relations(arena):
        on = target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
        for case, persona, context in _broken_contexts(arena):
            if case == "never set":
                session.close()  # a setting that was ever set on a connection reads '' for ever after, not NULL
            for command, statement in _reaching(arena, on):
                leak = _attempt(arena, session, relation, command, context, statement, persona)
                if leak is None and command == "SELECT" and arena.world.strays.get(relation.oid):
                    leak = _strayed(arena, session, relation, case, context, statement)
                if leak == "cancelled":
                    continue  # what ran into the timeout has shown nothing, and is no trial
                yield Trial(f"context {case}", relation.oid, command, leak)


def _tenant_relations(arena: Arena) -> tuple[Relation, ...]:
    return tuple(relation for relation in arena.relations() if arena.tenancy.of(relation.oid).tenant_data)


def _broken_contexts(arena: Arena) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    tenancy = arena.tenancy
    unknown, stranger = unknown_of(tenancy)
    # Where each tenant has a login of its own, no session is without one: these are a stranger's.
    nobody = acting(Persona("", (), tenancy.context.login), unknown, stranger)
    yield "never set", "", nobody
    if tenancy.context.settings:
        empty = tuple(
            text(sql.SQL("SELECT set_config({}, '', true)").format(literal(s))) for s in tenancy.context.settings
        )
        yield "empty", "", (*nobody, *empty)
    for persona in tenancy.context.personas[:1]:
        yield "of an unknown tenant", persona.name, acting(persona, unknown, stranger)
        yield "garbage", persona.name, acting(persona, GARBAGE, GARBAGE)


def _reaching(arena: Arena, on: Target) -> Iterator[tuple[Command, str]]:
    relation = name(on.relation)
    if on.readable:
        yield "SELECT", text(sql.SQL("SELECT {} FROM {}").format(columns(on.readable), relation))
    first = arena.world.tenants[0].key
    for row in arena.world.of(on.relation.oid, first)[:1]:
        plain = [c for c in on.updatable if c not in on.key and c != on.tenant_key]
        for column in plain[:1]:
            change = sql.SQL("UPDATE {} SET {} = {}").format(relation, sql.Identifier(column), literal(row.get(column)))
            yield "UPDATE", text(change)
    for row in arena.world.spare.get((on.relation.oid, first), ()) if on.insertable else ():
        yield "INSERT", text(insert(on.relation, {c: v for c, v in row.items() if c in on.insertable}))
    if on.deletable:
        yield "DELETE", text(sql.SQL("DELETE FROM {}").format(relation))


def _attempt(
    arena: Arena,
    session: Session,
    relation: Relation,
    command: Command,
    context: Sequence[str],
    statement: str,
    persona: str,
) -> Leak | Literal["cancelled"] | None:
    after = () if command == "SELECT" else ("SET CONSTRAINTS ALL IMMEDIATE", arena.digest(relation.oid))
    transcript = session.transaction([*context, statement, *after])
    if transcript.failed and transcript.failed.sqlstate == _CANCELLED:
        return "cancelled"
    at = len(context)
    if len(transcript.replies) <= at or any(reply.sqlstate for reply in transcript.replies[:at]):
        return None
    program = " ".join((*context, statement))
    shown = next((r for r in transcript.replies[at:] if r.sqlstate), transcript.replies[at])
    evidence = oracle.taint([shown], transcript.notices, arena.world, "", program)
    if evidence is None and after and len(transcript.replies) == at + 3 and not transcript.failed:
        digest = oracle.parse_digest(transcript.replies[-1])
        evidence = oracle.changed(arena.world.baseline, digest, "", arena.known)
    return _leak("closed", session, relation, command, context, statement, evidence, persona) if evidence else None


def _strayed(
    arena: Arena, session: Session, relation: Relation, case: str, context: tuple[str, ...], statement: str
) -> Leak | None:
    """Rows of no tenant that no tenant sees, and a session without a context does."""
    tenant, persona = arena.world.tenants[0], next(iter(arena.tenancy.context.personas), None)
    if persona is None:
        return None
    strays = arena.world.strays[relation.oid]
    seen = _cells(session.transaction([*context, statement]).replies) & strays
    if not seen or seen & _cells(session.transaction([*_as(persona, tenant), statement]).replies):
        return None
    evidence = oracle.Evidence("read", "rows", SHARED, min(seen))
    leak = _leak("closed", session, relation, "SELECT", context, statement, evidence, "")
    return replace(leak, severity="high" if case == "never set" else "medium")


def _cells(replies: Sequence[Reply]) -> set[str]:
    return {cell for reply in replies for row in reply.rows for cell in row if cell is not None}


def _leak(  # noqa: PLR0917
    broken: Property, session: Session, relation: Relation, command: Command, context: Sequence[str], statement: str,
    evidence: oracle.Evidence, persona: str, earlier: tuple[Visit, ...] = (), actor: str = "",
) -> Leak:  # fmt: skip
    return Leak(
        breaks=broken,
        relation=relation.oid,
        command=command,
        role=session.role,
        actor=actor,
        owner=evidence.owner,
        channel=evidence.channel,
        visits=(*earlier, Visit((statement,), commit=False)),
        context=tuple(context),
        mark=evidence.mark,
        changed=evidence.relation,
        persona=persona,
    )


def carryover(arena: Arena, session: Session, role: int) -> Iterator[Trial]:
    """A tenant's context, plan or cursor must not serve the next one on the same connection.

    A tenant that logs in as a role of its own shares no connection.
    """
    first, second = arena.world.tenants[:2]
    for relation in _tenant_relations(arena):
        on = target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
        if not on.readable:
            continue
        statement = text(sql.SQL("SELECT {} FROM {}").format(columns(on.readable), name(relation)))
        context = arena.tenancy.context
        for persona in (one for one in (*context.personas, *context.setters) if not one.login):
            for commit in (True, False):
                visit = Visit((*_as(persona, first), statement), commit=commit, after=context.reset)
                ended = "commit" if commit else "rollback"
                leak = _visit(arena, session, relation, (visit,), (), statement, persona, None)
                yield Trial(f"context after {ended}", relation.oid, "SELECT", leak)
            prepare = f"PREPARE rlsaudit_plan AS {statement}"
            runs = ("EXECUTE rlsaudit_plan",) * _PREPARED_RUNS
            visit = Visit((*_as(persona, first), prepare, *runs), after=context.reset)
            leak = _visit(arena, session, relation, (visit,), _as(persona, second), runs[0], persona, second)
            yield Trial("prepared plan under the next tenant", relation.oid, "SELECT", leak)


def _as(persona: Persona, tenant: Tenant) -> tuple[str, ...]:
    return acting(persona, tenant.key, tenant.user)


def _visit(
    arena: Arena, session: Session, relation: Relation, earlier: tuple[Visit, ...], context: tuple[str, ...],
    statement: str, persona: Persona, actor: Tenant | None,
) -> Leak | None:  # fmt: skip
    acted = actor.key if actor else ""

    def crosses(stays: tuple[Visit, ...]) -> oracle.Evidence | None:
        visited(session, stays)
        transcript = session.transaction([*context, statement])
        shown = transcript.replies[len(context) :]
        return oracle.taint(shown, transcript.notices, arena.world, acted, " ".join(context))

    evidence = crosses(earlier)
    if evidence is None:
        return None
    leak = _leak("carryover", session, relation, "SELECT", context, statement, evidence, persona.name, earlier, acted)
    configured = arena.tenancy.context.reset
    helps = closing(lambda after: crosses(tuple(replace(one, after=after) for one in earlier)) is not None, configured)
    return replace(leak, closed_by=helps)
