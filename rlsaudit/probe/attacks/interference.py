"""Does what a tenant observes depend on rows of others?  The same programs with them, without them, with other values.

Non-interference (Goguen and Meseguer 1982), judged by running: an outcome that differs between two worlds and repeats
in each tells the tenant something about rows that no result shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from psycopg import sql

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.policies import index_expressions
from rlsaudit.catalog.relations import COMMANDS, Column, Index, Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.probe.attacks.calls import callable_, calls
from rlsaudit.probe.attacks.reach import touches
from rlsaudit.probe.attacks.relation import Target, target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.session import Reply, Session
from rlsaudit.probe.ground.statement_text import acting, insert, literal, matching, name, text
from rlsaudit.probe.ground.world import Row, Tenant
from rlsaudit.probe.seeding.plan import column_pairs, foreign_keys
from rlsaudit.tenancy import words
from rlsaudit.tenancy.model import Persona
from rlsaudit.tenancy.people import found_by

WorldName = Literal["absent", "replaced"]
_CANCELLED = "57014"
_DO_NOTHING = " ON CONFLICT DO NOTHING"
WORLDS: Mapping[WorldName, str] = {"absent": "without those rows", "replaced": "with other values in them"}
"""What the mark of a leak calls the world that it is held against."""


@dataclass(frozen=True, slots=True)
class Program:
    """One statement of the acting tenant, and what it would tell about."""

    relation: int
    command: str
    statement: str
    constraint: str = ""
    """Name of the constraint or unique index that it runs into."""
    function: int = 0
    first: tuple[str, ...] = ()
    """What must stand before the statement."""
    own: str = ""
    """Label of the application's own statement."""
    judged: frozenset[str] = frozenset()
    """Unique indexes that another program asks, or that nothing is to be learnt from."""
    expected: bool = False
    """It asks for what must be unique among all tenants, or for an identifier that another service gave, which a client
    hardly knows of another tenant."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client can tell apart.  Of an error the place, not the detail: that is a read, and the taint oracle's."""

    rows: tuple[tuple[str | None, ...], ...]
    tag: str
    sqlstate: str
    constraint: str
    message: str

    @property
    def said(self) -> str:
        return f"error {self.sqlstate} ({self.message})" if self.sqlstate else self.tag


def interferences(
    arena: Arena, role: int, present: Session, worlds: Mapping[WorldName, Session], leaking: frozenset[int]
) -> Iterator[Leak | None]:
    """One entry per program, a Leak where its outcome differs between the worlds.

    ``worlds`` are sessions of the same role in copies without the rows of all tenants but the first, and with other
    values in them.  Relations in ``leaking`` are left out: what is readable anyway needs no covert channel.
    """
    actor, victim = arena.world.tenants[:2]
    made = [*programs(arena, role, actor, victim)]
    for persona in arena.tenancy.context.personas:
        context = acting(persona, actor.key, actor.user)
        for program in made:
            if program.relation in leaking or program.function in leaking:
                continue
            yield _compared(arena, present, worlds, persona, context, program, victim)


def own_interferences(
    arena: Arena, present: Session, worlds: Mapping[WorldName, Session], own: Sequence[Program]
) -> Iterator[Leak | None]:
    """The same for programs of the application itself."""
    actor, victim = arena.world.tenants[:2]
    for persona in arena.tenancy.context.personas:
        context = acting(persona, actor.key, actor.user)
        for program in own:
            yield _compared(arena, present, worlds, persona, context, program, victim)


def _compared(
    arena: Arena, present: Session, worlds: Mapping[WorldName, Session], persona: Persona, context: tuple[str, ...],
    program: Program, victim: Tenant,
) -> Leak | None:  # fmt: skip
    with_them = _outcome(present, context, program)
    if with_them is None:
        return None
    for world, session in worlds.items():
        without = _outcome(session, context, program)
        if without is None or without == with_them:
            continue
        # A clock, a sequence or a random value differs between two runs in one world as well.
        if _outcome(present, context, program) != with_them or _outcome(session, context, program) != without:
            continue
        constraint = with_them.constraint or without.constraint
        if constraint in program.judged:
            continue
        if not (with_them.sqlstate or without.sqlstate):  # ON CONFLICT DO NOTHING says no name
            constraint = program.constraint
        return Leak(
            breaks="interference", relation=program.relation, command=program.command, role=present.role,
            actor=arena.world.tenants[0].key, owner=victim.key, channel="outcome",
            visits=(Visit((*program.first, program.statement), commit=False),), context=context, persona=persona.name,
            function=program.function, constraint=constraint, mark=f"{with_them.said}; {WORLDS[world]} {without.said}", world=world,
            own=program.own, severity="low" if program.expected else None,
        )  # fmt: skip
    return None


def _outcome(session: Session, context: Sequence[str], program: Program) -> Outcome | None:
    """None when the context could not be set or the statement ran into the timeout."""
    after = () if program.command == "SELECT" else ("SET CONSTRAINTS ALL IMMEDIATE",)
    transcript = session.transaction([*context, *program.first, program.statement, *after])
    at = len(context) + len(program.first)
    replies = transcript.replies[at:]
    if not replies or any(reply.sqlstate for reply in transcript.replies[:at]):
        return None
    shown = next((reply for reply in replies if reply.sqlstate), replies[0])
    return None if shown.sqlstate == _CANCELLED else _as_outcome(shown)


def _as_outcome(reply: Reply) -> Outcome:
    rows = tuple(sorted(reply.rows, key=repr))
    return Outcome(rows, reply.tag, reply.sqlstate, reply.constraint, reply.error.split("\n")[0])


def programs(arena: Arena, role: int, actor: Tenant, victim: Tenant) -> Iterator[Program]:
    """What ``actor`` could do to learn about rows of ``victim`` without seeing any."""
    for relation in arena.relations():
        on = target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
        if on.readable:
            counted = sql.SQL("SELECT count(*) FROM {}").format(name(relation))
            yield Program(relation.oid, "SELECT", text(counted))
        for command in COMMANDS:
            if arena.visibility.may(role, relation, command):
                own = (one for one in arena.attacks(on, actor, command) if one.aim == "own")
                yield from (Program(relation.oid, command, one.statement) for one in own)
        yield from _collisions(arena, on, actor, victim)
        yield from _references(arena, on, actor, victim)
        yield from _copies(arena, on, actor, victim)
    for function in arena.functions():
        if callable_(function) and arena.visibility.may_execute(role, function) and _telling(arena, function):
            made = calls(arena, function, actor, victim)
            yield from (Program(0, "EXECUTE", call, function=function.oid) for call in made)


def _telling(arena: Arena, function: Function) -> bool:
    """Whether it could tell a tenant something: not what touches no tenant data, and not what sets the context, which
    under another tenant's key answers to a session of that tenant."""
    said = (statement for persona in arena.tenancy.context.personas for statement in persona.statements)
    setting = any(f"{function.qualified}(" in statement for statement in said)
    return not setting and touches(arena.catalog, arena.tenancy, function).tenant_data


def _collisions(arena: Arena, on: Target, actor: Tenant, victim: Tenant) -> Iterator[Program]:
    """An own row that takes the unique values of a row that another tenant has."""
    for index in arena.catalog.indexes_of(on.relation.oid):
        columns = _taken(arena, on, index)
        if not columns:
            continue
        for theirs in arena.world.of(on.relation.oid, victim.key)[:1]:
            values = {column: theirs.get(column) for column in columns}
            expected = found_by(on.relation, arena.tenancy.of(on.relation.oid).kind, columns)
            expected = expected or any(words.given(column) for column in columns)
            yield from (replace(one, expected=expected) for one in _writing(arena, on, actor, values, index.name))


def _taken(arena: Arena, on: Target, index: Index) -> tuple[str, ...]:
    """Columns whose values a unique or exclusion index compares across tenants, if a client may choose them.

    Generated identifiers are left out: a guess at one tells only that the number has been given out.  So is what has to
    be known before it can be asked for: tokens, hashes, identifiers made at random.
    """
    exclusion = any(
        c.kind == "exclusion" and c.name == index.name for c in arena.catalog.constraints_of(on.relation.oid)
    )
    if not index.unique and not exclusion:
        return ()
    found = [c for number in index.columns if number and (c := on.relation.column_number(number))]
    named = [column.name for column in found]
    for expression in index_expressions(arena.catalog, index):
        named += [part.name for part in e.walk(expression) if isinstance(part, e.Column) and part.level == 0]
    named = list(dict.fromkeys(named))
    if index.primary and len(found) == 1 and _identifies(arena, on.relation, found[0]):
        return ()
    if on.tenant_key in named or all(generated(on.relation, one) for one in named):
        return ()
    if any(words.unguessable(on.relation.name, one) for one in named):
        return ()
    return tuple(named)


def _identifies(arena: Arena, relation: Relation, column: Column) -> bool:
    """Whether it holds identifiers, whoever gives them out, and not names that mean something, as what a CHECK looks at."""
    if column.category != "S":
        return True
    checks = (c for c in arena.catalog.constraints_of(relation.oid) if c.kind == "check" and column.number in c.columns)
    plain = not column.domain_checks and not any(checks)
    return plain and words.own_id(relation.name, column.name, primary=True)


def generated(relation: Relation, column: str) -> bool:
    """Whether the server makes the values of the column: identity, sequence, random UUID."""
    found = relation.column(column)
    if found is None:
        return False
    default = found.default or ""
    return (
        bool(found.identity or found.generated)
        or "nextval(" in default
        or "uuid" in default
        or found.base_type == "uuid"
    )


def _references(arena: Arena, on: Target, actor: Tenant, victim: Tenant) -> Iterator[Program]:
    """An own row that refers to a row that another tenant has."""
    for constraint in foreign_keys(arena.catalog, on.relation):
        pairs = column_pairs(arena.catalog, constraint)
        if on.tenant_key in [here for here, _ in pairs]:
            continue
        for theirs in arena.world.of(constraint.referenced, victim.key)[:1]:
            values = {here: theirs.get(there) for here, there in pairs}
            yield from _writing(arena, on, actor, values, constraint.name)


def _copies(arena: Arena, on: Target, actor: Tenant, victim: Tenant) -> Iterator[Program]:
    """Where triggers look at a write: an own row with what another tenant has in one column.  That such a value is
    taken is what ``_collisions`` judges."""
    if not arena.catalog.triggers_of(on.relation.oid):
        return
    unique = defaultdict(set)
    for index in arena.catalog.indexes_of(on.relation.oid):
        if index.unique and len(index.columns) == 1:
            unique[index.columns[0]].add(index.name)
    for theirs in arena.world.of(on.relation.oid, victim.key)[:1]:
        for column in on.relation.columns:
            if column.name != on.tenant_key and not generated(on.relation, column.name):
                taken = frozenset(unique.get(column.number, ()))
                for one in _writing(arena, on, actor, {column.name: theirs.get(column.name)}, ""):
                    if not (taken and one.statement.endswith(_DO_NOTHING)):
                        yield replace(one, judged=taken)


def _writing(
    arena: Arena, on: Target, actor: Tenant, values: Mapping[str, str | None], constraint: str
) -> Iterator[Program]:
    """The values on a new row of the actor's and on one that stands."""
    oid = on.relation.oid
    spare: Sequence[Row] = arena.world.spare.get((oid, actor.key), ())
    for own in spare[:1] if set(values) <= set(on.insertable) else ():
        row = {column: value for column, value in {**own, **values}.items() if column in on.insertable}
        yield Program(oid, "INSERT", text(insert(on.relation, row)), constraint)
        yield Program(oid, "INSERT", text(insert(on.relation, row)) + _DO_NOTHING, constraint)
    if set(values) <= set(on.updatable):
        for own in arena.world.of(oid, actor.key)[:1] if on.key else ():
            changes = sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(c), literal(v)) for c, v in values.items()
            )
            here = matching(on.relation, own, on.key)
            update = sql.SQL("UPDATE {} SET {} WHERE {}").format(name(on.relation), changes, here)
            yield Program(oid, "UPDATE", text(update), constraint)
