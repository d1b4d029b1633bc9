"""Escalations, tried: which of the ways that the catalog leaves open really lead to another tenant's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from psycopg import sql

from rlsaudit.probe.attacks.escalations import escalations, reaching
from rlsaudit.probe.attacks.outside import outside, sequences
from rlsaudit.probe.attacks.passed_on import passed_on
from rlsaudit.probe.attacks.programs import Program, attempt
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.ground.statement_text import said
from rlsaudit.tenancy.logins import filled
from rlsaudit.tenancy.model import Persona

_EACH = 40
"""Leaks told of one way; beyond these it is the same again."""


def escalate(arena: Arena, session: Session, role: int, known: Iterable[Leak]) -> Iterator[Leak | None]:
    """One entry for each program tried.  What ``known`` leaks show without any of it is left out."""
    anyway = {
        (leak.function or leak.relation, leak.breaks)
        for leak in known
        if leak.role == session.role and leak.owner and not leak.opened
    }
    read = {place for place, broken in anyway if broken in ("read", "closed")}
    found: Counter[str] = Counter()
    tenant = arena.world.tenants[0]
    for persona in arena.tenancy.context.personas[:1]:
        yield from sequences(arena, session, role, persona, tenant)
        tried = (passed_on, outside, escalations)
        for program in (program for ways in tried for program in ways(arena, role, persona, tenant)):
            place = program.function or program.relation
            if found[program.way] >= _EACH or (program.command == "SELECT" and place in read):
                continue
            if any(statement.startswith("CREATE TEMP TABLE") for statement in program.first):
                session.close()  # a plan that a connection keeps goes on finding the table that it found first
            leak = attempt(arena, session, persona, tenant, program)
            if leak is not None and (place, leak.breaks) in anyway:
                leak = None
            found[program.way] += leak is not None
            yield leak


def pooled(arena: Arena, session: Session) -> Iterator[Leak | None]:
    """Where each tenant has a role of its own: a pool's login that takes those roles in turn is held back by none."""
    login = arena.tenancy.context.login
    ours = {filled(login, tenant.key, tenant.user): tenant for tenant in arena.world.tenants} if login else {}
    for pool in arena.catalog.roles if ours else ():
        taken = {arena.catalog.role(oid).name for oid in arena.visibility.becomes(pool.oid)}
        within = [(name, tenant) for name, tenant in ours.items() if name in taken]
        if not pool.login or pool.superuser or pool.name in ours or len(within) < 2:
            continue
        (mine, tenant), (theirs, _) = within[:2]
        first, then = (said("SET LOCAL ROLE {}", sql.Identifier(name)) for name in (mine, theirs))
        way = "SET ROLE to another tenant's role, which it may take as well"
        role = next(role.oid for role in arena.catalog.roles if role.name == theirs)
        for relation in arena.relations():
            for command, statement in (
                reaching(arena, role, relation) if arena.tenancy.of(relation.oid).tenant_data else ()
            ):
                program = Program(relation.oid, command, (then,), statement, way, severity="medium")
                leak = attempt(arena, session, Persona("tenant", (first,), pool.name), tenant, program)
                yield replace(leak, role=pool.name) if leak else None
