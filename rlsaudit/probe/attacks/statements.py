"""The application's own statements, run as they are under every tenant, with own and foreign parameters.

PREPARE asks the server for the types of the parameters; values come from rows, those of one tenant together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, product

from psycopg import sql

from rlsaudit.own import OwnStatement
from rlsaudit.probe.attacks.calls import general
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground import oracle
from rlsaudit.probe.ground.digest import DIGEST
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.session import CANCELLED, DENIED, Session, Transcript
from rlsaudit.probe.ground.statement_text import acting, literal, text
from rlsaudit.probe.ground.world import Row, Tenant
from rlsaudit.tenancy.model import Persona

PREPARED = "rlsaudit_plan"
_TYPES = (
    "SELECT type::pg_catalog.oid, type FROM pg_catalog.pg_prepared_statements, "
    f"pg_catalog.unnest(parameter_types) AS type WHERE name = '{PREPARED}'"
)
_WORD = re.compile(r'"[^"]+"|\w+')
_RUNS = 40
"""Parameter combinations tried per statement, tenant and persona."""
_ROWS = 3
"""Rows of each tenant whose values are tried."""
_SLOW = 3
"""Runs into the timeout after which a statement is left."""
_EMPTY = frozenset({None, "", "0", "f", "{}", "[]"})
_ROW_SECURITY = "row-level security"


@dataclass
class Ran:
    """What running one statement as one role gave, over all its runs."""

    statement: OwnStatement
    trials: int = 0
    failures: int = 0
    denied: int = 0
    """Runs that a missing privilege refused; where a policy did, the role has the privilege."""
    cancelled: int = 0
    """Runs into the timeout."""
    error: str = ""
    """The server's word on a run that failed, one with the tenant's own values where one of those did."""
    foreign: int = 0
    """Runs with another tenant's values that ended without an error."""
    seen_by: set[str] = field(default_factory=set)
    """Names of the tenants whose own marks came out."""
    rows: int = 0
    """Most rows that one run gave."""
    told: bool = False
    """Something came out that is not 0, false, empty or NULL."""
    beside: str = ""
    """A relation or function that it names and that leaks by itself, so that nothing can be told of the statement."""
    wrote: bool = False
    """A run changed rows of the tenant that it acted for."""
    leaks: list[Leak] = field(default_factory=list)
    programs: list[tuple[str, ...]] = field(default_factory=list)
    """Of the first tenant: the first program with its own values and the first with another's, that gave no error."""


def run_own(
    arena: Arena, session: Session, statements: Sequence[OwnStatement], leaking: frozenset[int]
) -> Iterator[Ran]:
    """Run each statement as the session's role under every persona, as two tenants.

    One that names a relation in ``leaking`` is left: what it showed would be that relation's leak.
    """
    first, second = arena.world.tenants[:2]
    for statement in statements:
        ran = Ran(statement, beside=beside(arena, statement, leaking))
        if ran.beside:
            yield ran
            continue
        types = _types(arena, session, statement)
        for persona in arena.tenancy.context.personas:
            for actor, victim in ((first, second), (second, first)):
                for values, foreign in islice(_combinations(arena, statement, types or (), actor, victim), _RUNS):
                    if ran.cancelled < _SLOW:
                        _run(arena, session, ran, persona, actor, program(statement, types, values), foreign=foreign)
        yield ran


def program(statement: OwnStatement, types: Sequence[str] | None, values: Sequence[str | None]) -> tuple[str, ...]:
    """The statement as a client sends it: prepared and executed, or plain where the server prepares no such thing."""
    if not types:
        return (statement.text,)
    given = sql.SQL(", ").join(
        sql.SQL("{}::{}").format(literal(value), sql.SQL(type_name))
        for value, type_name in zip(values, types, strict=True)
    )
    return (
        "DEALLOCATE ALL",  # what is prepared outlives its transaction
        f"PREPARE {PREPARED} AS {statement.text}",
        f"EXECUTE {PREPARED}({text(given)})",
    )


def _types(arena: Arena, session: Session, statement: OwnStatement) -> tuple[str, ...] | None:
    """Type of each parameter as the server infers them, called as the catalog calls a column's; None when the statement
    cannot be prepared."""
    if not statement.parameters:
        return None
    replies = session.transaction(["DEALLOCATE ALL", f"PREPARE {PREPARED} AS {statement.text}", _TYPES]).replies
    if len(replies) < 3 or replies[2].sqlstate or not replies[2].rows:
        return None
    columns = {str(column.type_oid): column.base_type for one in arena.catalog.relations for column in one.columns}
    return tuple(columns.get(str(oid), str(name)) for oid, name in replies[2].rows)


def _combinations(
    arena: Arena, statement: OwnStatement, types: Sequence[str], actor: Tenant, victim: Tenant
) -> Iterator[tuple[tuple[str | None, ...], bool]]:
    """Values for the parameters, and whether another tenant's are among them: a row of the actor's, one of the victim's,
    mixtures, then what fits the types.

    A statement without parameters asks for everything that its tenant may see, which is the attack.
    """
    if not types:
        yield (), False
        yield (), True
        return
    seen: set[tuple[str | None, ...]] = set()
    inserts = statement.text.lstrip()[:6].lower() == "insert"
    for at in range(_ROWS):
        own = _aligned(arena, statement, types, actor, at, spare=inserts)
        foreign = _aligned(arena, statement, types, victim, at, spare=inserts)
        pools = [tuple(dict.fromkeys(pair)) for pair in zip(own, foreign, strict=True)]
        for values in (tuple(own), tuple(foreign), *islice(product(*pools), _RUNS)):
            if values not in seen:
                seen.add(values)
                yield values, values != tuple(own)
    typed = [general(type_name, arena.world, actor, victim) for type_name in types]
    for at in range(max(map(len, typed))):
        values = tuple(pool[at % len(pool)] for pool in typed)
        if values not in seen:
            seen.add(values)
            yield values, True


def _aligned(
    arena: Arena, statement: OwnStatement, types: Sequence[str], tenant: Tenant, at: int, *, spare: bool
) -> list[str | None]:
    """One value for each parameter from rows of ``tenant``, the parameters of one relation from one row."""
    rows: list[tuple[Row, dict[str, str]]] = []
    named = _named(arena, statement)
    meant = named.union(*(arena.catalog.mentions("relation", oid, "relation") for oid in named))
    for relation in arena.relations():
        if relation.oid not in meant:
            continue
        stored = arena.world.spare.get((relation.oid, tenant.key), ()) if spare else ()
        stored = stored or arena.world.of(relation.oid, tenant.key)
        if stored:
            rows.append((stored[at % len(stored)], {column.name: column.base_type for column in relation.columns}))
    found: list[str | None] = []
    for name, type_name in zip(statement.parameters, types, strict=False):
        inner = type_name.removesuffix("[]")
        value = _fitting(rows, name, inner)
        if value is None:
            pool = general(type_name, arena.world, tenant, tenant)
            value = pool[0] if pool else None
        elif inner != type_name:
            value = "{" + value + "}"
        found.append(value)
    return found


def _named(arena: Arena, statement: OwnStatement) -> frozenset[int]:
    """Relations and functions whose name is a word of the statement."""
    words = {word.strip('"').lower() for word in _WORD.findall(statement.text)}
    relations = (one.oid for one in arena.relations() if one.name.lower() in words)
    return frozenset((*relations, *(one.oid for one in arena.catalog.functions if one.name.lower() in words)))


def beside(arena: Arena, statement: OwnStatement, leaking: frozenset[int]) -> str:
    """What the statement names of ``leaking`` relations and functions; '' when nothing."""
    oid = min(_named(arena, statement) & leaking, default=0)
    found = arena.catalog.find_relation(oid) or (arena.catalog.function(oid) if oid else None)
    return found.qualified if found else ""


def _fitting(rows: Sequence[tuple[Row, dict[str, str]]], name: str, type_name: str) -> str | None:
    """The value of the column that bears the name, or whose name it ends in; of the right type."""
    for exact in (True, False):
        for row, kinds in rows:
            for column, value in row.items():
                named = name == column if exact else bool(name) and name.endswith(f"_{column}")
                if named and value is not None and (kinds.get(column) == type_name or type_name == "text"):
                    return value
    return None


def _run(
    arena: Arena, session: Session, ran: Ran, persona: Persona, actor: Tenant, program: tuple[str, ...], *, foreign: bool
) -> None:  # fmt: skip
    context = acting(persona, actor.key, actor.user)
    transcript = session.transaction([*context, *program, "SET CONSTRAINTS ALL IMMEDIATE", DIGEST])
    at, shown = len(context), len(context) + len(program) - 1
    if len(transcript.replies) <= at or any(reply.sqlstate for reply in transcript.replies[:at]):
        return
    _note(arena, ran, transcript, shown, actor, foreign=foreign)
    if transcript.failed is None and actor is arena.world.tenants[0] and len(ran.programs) == foreign:
        ran.programs.append(program)
    acted = actor.key if context else ""
    said = " ".join((*context, *program))
    evidence = oracle.taint(transcript.replies[shown : shown + 1], transcript.notices, arena.world, acted, said)
    if evidence is None and not transcript.failed and len(transcript.replies) >= shown + 3:
        digest = oracle.parse_digest(transcript.replies[shown + 2])
        evidence = oracle.changed(arena.world.baseline, digest, acted, arena.known)
    if evidence is None:
        return
    ran.leaks.append(
        Leak(
            breaks=evidence.property,
            relation=evidence.relation or arena.world.holding(arena.world.plain(evidence.mark)),
            command="EXECUTE",
            role=session.role,
            actor=acted,
            owner=evidence.owner,
            channel=evidence.channel,
            visits=(Visit(program, commit=False),),
            context=context,
            mark=evidence.mark,
            changed=evidence.relation,
            persona=persona.name,
            own=ran.statement.label,
        )
    )


def _note(arena: Arena, ran: Ran, transcript: Transcript, shown: int, actor: Tenant, *, foreign: bool) -> None:
    ran.trials += 1
    failed = transcript.failed
    if failed is not None:
        ran.failures += 1
        ran.error = ran.error if foreign and ran.error else failed.error
        ran.denied += failed.sqlstate in DENIED and _ROW_SECURITY not in failed.error
        ran.cancelled += failed.sqlstate == CANCELLED
        return
    reply = transcript.replies[shown]
    ran.foreign += foreign
    ran.rows = max(ran.rows, len(reply.rows))
    ran.told |= any(cell not in _EMPTY for row in reply.rows for cell in row)
    if oracle.own_seen(Transcript((reply,), ()), arena.world, actor.key):
        ran.seen_by.add(actor.name)
    digest = oracle.parse_digest(transcript.replies[shown + 2])
    ran.wrote |= oracle.differs(arena.world.baseline, digest, actor.key)
