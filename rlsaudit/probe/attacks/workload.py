"""Randomised workloads, driven and shrunk by Hypothesis: programs of several statements under one tenant's context.

The sweep is the stronger finder; workloads add interplay: joins, modifying CTEs, cursors, COPY, sequences of writes,
savepoints and planner settings.  Hypothesis reports one bug per raise site, so leaks already seen are passed over and
the search goes on until a whole round is clean.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import hypothesis
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from psycopg import sql

from rlsaudit.catalog.model import COMMANDS, Relation
from rlsaudit.probe.attacks.relation import Target, target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground import oracle
from rlsaudit.probe.ground.hypothesis_home import at_home
from rlsaudit.probe.ground.leak import Leak, Place, Visit
from rlsaudit.probe.ground.ownership import DIGEST
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.ground.statement_text import acting, columns, name, text
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.probe.seeding.plan import column_pairs, foreign_keys
from rlsaudit.tenancy.model import Persona

_LONGEST = 4
_ROUNDS = 8
_LONG = 10.0
"""Seconds from which on a budget is used up, round after round."""
_TOGGLES = (
    "SAVEPOINT s",
    "SET LOCAL enable_seqscan = off",
    "SET LOCAL enable_indexscan = off",
    "SET LOCAL plan_cache_mode = force_generic_plan",
    "SET LOCAL row_security = off",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a program, and whose cell it belongs to."""

    relation: int
    command: str
    statement: str
    joined: int = 0
    """The other relation of a join."""


class _Over(BaseException):
    """The budget is spent.  No Exception, which Hypothesis would take for a failure and go on from."""


class _Found(Exception):
    def __init__(self, leak: Leak) -> None:
        self.leak = leak


def workloads(
    arena: Arena,
    session: Session,
    role: int,
    *,
    seed: int,
    examples: int,
    seconds: float,
    seen: set[Place],
    database: Path | None = None,
    unproven: Container[tuple[int, str]] = (),
) -> tuple[list[Leak], int]:
    """(leaks not in ``seen``, programs run).  ``seen`` grows by what is found; ``database`` keeps hard examples.

    A short budget ends with the first round that finds nothing, a long one is used up.  Up to half of it goes to
    programs of ``unproven`` (relation, command) pairs first.
    """
    menus = _menus(arena, role)
    first = {t: tuple(one for one in menu if (one.relation, one.command) in unproven) for t, menu in menus.items()}
    personas = arena.tenancy.context.personas
    if not personas or not all(menus.values()):
        return [], 0
    begun, programs, found, shrinking = time.monotonic(), 0, list[Leak](), False
    until = begun + (seconds / 2 if all(first.values()) else 0)

    def attempt(tenant: Tenant, persona: Persona, program: Sequence[Step]) -> None:
        nonlocal programs, shrinking
        if time.monotonic() > until and not shrinking:
            raise _Over  # the budget ends the search, never a shrink that is under way
        programs += 1
        leak = _run(arena, session, tenant, persona, program)
        if leak is not None and len(program) > 1:
            # What one statement does alone is that statement's doing, whatever stood beside it.
            alone = (_run(arena, session, tenant, persona, (step,)) for step in program)
            leak = next((single for single in alone if single is not None), leak)
        if leak is not None and leak.place not in seen:
            shrinking = True
            raise _Found(leak)

    for chosen in (first, menus):
        for round_ in count() if all(chosen.values()) else ():
            shrinking = False
            # Hypothesis forgets an example that fails no longer, and a leak that has been found is passed over from then on.
            kept = database / str(len(found)) if database and chosen is menus else None
            leak = _search(chosen, personas, attempt, seed + round_, examples, kept)
            if leak is not None:
                seen.add(leak.place)
                found.append(leak)
            if time.monotonic() > until or (seconds < _LONG and (leak is None or round_ + 1 == _ROUNDS)):
                break
        until = begun + seconds
    return found, programs


@at_home()
def _search(
    menus: dict[Tenant, tuple[Step, ...]],
    personas: Sequence[Persona],
    attempt: Callable[[Tenant, Persona, Sequence[Step]], None],
    seed: int,
    examples: int,
    database: Path | None,
) -> Leak | None:
    """One Hypothesis run; what it raises is the shrunk leak."""

    # Settings stand outside the seed, which would take the database away.
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None if database is None else DirectoryBasedExampleDatabase(database),
        derandomize=False,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=hypothesis.Verbosity.quiet,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.reuse, hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )
    @hypothesis.seed(seed)
    @hypothesis.given(_programs(menus, personas))
    def crosses(drawn: tuple[Tenant, Persona, tuple[Step, ...]]) -> None:
        attempt(*drawn)

    try:
        crosses()
    except _Found as found:
        return found.leak
    except _Over:
        return None
    return None


@st.composite
def _programs(
    draw: st.DrawFn, menus: dict[Tenant, tuple[Step, ...]], personas: Sequence[Persona]
) -> tuple[Tenant, Persona, tuple[Step, ...]]:
    """One draw per choice and nothing nested: generation must stay cheaper than the server's answer."""
    tenants = tuple(menus)
    tenant = tenants[draw(st.integers(0, len(tenants) - 1))]
    persona = personas[draw(st.integers(0, len(personas) - 1))]
    menu = menus[tenant]
    length = draw(st.integers(1, _LONGEST))
    return tenant, persona, tuple(menu[draw(st.integers(0, len(menu) - 1))] for _ in range(length))


def _run(arena: Arena, session: Session, tenant: Tenant, persona: Persona, program: Sequence[Step]) -> Leak | None:
    context = acting(persona, tenant.key, tenant.user)
    statements = tuple(step.statement for step in program)
    transcript = session.transaction([*context, *statements, "SET CONSTRAINTS ALL IMMEDIATE", DIGEST])
    at = len(context)
    replies = transcript.replies[at:]
    if len(transcript.replies) < at or any(reply.sqlstate for reply in transcript.replies[:at]):
        return None
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


def _menus(arena: Arena, role: int) -> dict[Tenant, tuple[Step, ...]]:
    """Statements a tenant's programs are made of, the plainest first: Hypothesis shrinks towards the front."""
    targets = [
        target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
        for relation in arena.relations()
        if any(arena.visibility.may(role, relation, command) for command in COMMANDS)
    ]
    by_relation = {on.relation.oid: on for on in targets}
    richer = [step for on in targets for step in _richer(arena, on, by_relation)]
    toggles = [Step(0, "SELECT", toggle) for toggle in _TOGGLES]
    menus = {}
    for tenant in arena.world.tenants:
        plain = (
            Step(on.relation.oid, command, attack.statement)
            for on in targets
            for command in COMMANDS
            for attack in arena.attacks(on, tenant, command)
            if "rlsaudit_peek" not in attack.statement
        )
        menus[tenant] = tuple(dict.fromkeys((*plain, *richer, *toggles)))
    return menus


def _richer(arena: Arena, on: Target, by_relation: dict[int, Target]) -> list[Step]:
    """Shapes that no single-relation attack has."""
    if not on.readable:
        return []
    relation, listed = name(on.relation), columns(on.readable)
    shapes = [
        ("SELECT", sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(listed, relation)),
        ("SELECT", sql.SQL("SELECT json_agg(t) FROM (SELECT {} FROM {}) AS t").format(listed, relation)),
        ("SELECT", sql.SQL("SELECT DISTINCT {} FROM {}").format(listed, relation)),
        ("SELECT", sql.SQL("SELECT {} FROM {} ORDER BY 1 DESC LIMIT 3").format(listed, relation)),
    ]
    plain = [c for c in on.updatable if c not in on.key and c != on.tenant_key and c in on.readable]
    for column in plain[:1]:
        touched = sql.SQL("UPDATE {} SET {} = {} RETURNING {}").format(
            relation, sql.Identifier(column), sql.Identifier(column), listed
        )
        shapes.append(("UPDATE", sql.SQL("WITH w AS ({}) SELECT * FROM w").format(touched)))
    if on.deletable:
        removed = sql.SQL("DELETE FROM {} RETURNING {}").format(relation, listed)
        shapes.append(("DELETE", sql.SQL("WITH w AS ({}) SELECT * FROM w").format(removed)))
    plain_shapes = [Step(on.relation.oid, command, text(shape)) for command, shape in shapes]
    joins = _joins(arena, on, on.relation, by_relation)
    return [*plain_shapes, *(Step(on.relation.oid, "SELECT", text(join), other) for other, join in joins)]


def _joins(
    arena: Arena, on: Target, relation: Relation, by_relation: dict[int, Target]
) -> list[tuple[int, sql.Composed]]:
    found = []
    for constraint in foreign_keys(arena.catalog, relation):
        other = by_relation.get(constraint.referenced)
        if other is None or not other.readable:
            continue
        condition = sql.SQL(" AND ").join(
            sql.SQL("a.{} = b.{}").format(sql.Identifier(here), sql.Identifier(there))
            for here, there in column_pairs(arena.catalog, constraint)
        )
        for kind in ("JOIN", "RIGHT JOIN"):
            joined = sql.SQL("SELECT {}, {} FROM {} AS a {} {} AS b ON {}").format(
                sql.SQL(", ").join(sql.Identifier("a", c) for c in on.readable),
                sql.SQL(", ").join(sql.Identifier("b", c) for c in other.readable),
                name(relation),
                sql.SQL(kind),
                name(other.relation),
                condition,
            )
            found.append((other.relation.oid, joined))
    return found
