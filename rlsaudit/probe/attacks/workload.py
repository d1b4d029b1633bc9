"""Randomised workloads, driven and shrunk by Hypothesis: programs of several statements under one tenant's context.

The sweep is the stronger finder; workloads add interplay: joins, modifying CTEs, cursors, COPY, sequences of writes,
savepoints and planner settings.  Hypothesis reports one bug per raise site, so leaks already seen are passed over and
the search goes on until a whole round is clean.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import psycopg
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from rlsaudit import interrupt
from rlsaudit.errors import RlsauditError
from rlsaudit.probe.attacks.learning import Learning, Neighbourhood
from rlsaudit.probe.attacks.menus import Menus, Step, menus_of
from rlsaudit.probe.attacks.neighbourhoods import neighbourhoods
from rlsaudit.probe.attacks.running import run_program
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.hypothesis_home import at_home
from rlsaudit.probe.ground.leak import Leak, Place
from rlsaudit.probe.ground.session import Reply, Session
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.tenancy.model import Persona

_LONGEST = 4
_ROUNDS = 8
_LONG = 10.0
"""Seconds from which on a budget is used up, neighbourhood after neighbourhood."""
_SLICE = 30.0
"""Seconds that one round may take there."""
_MOST_ROWS = 8
"""Powers of two by which outcomes are told apart."""


class _Over(BaseException):
    """The budget is spent.  No Exception, which Hypothesis would take for a failure and go on from."""


class _Found(Exception):
    """A program leaks."""


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
    """(leaks not in ``seen``, programs run); see ``Workload``."""
    work = Workload(arena, session, role, seed, examples, seen, database, unproven)
    work.run(seconds)
    return work.found, work.programs


@dataclass
class Workload:
    """Random programs as one role, and what came of them until now.

    A short budget ends with the first round that finds nothing.  A long one is used up: after that its rounds go to one
    neighbourhood after the other, as ``learning`` says.  Programs of ``unproven`` (relation, command) pairs come first.
    """

    arena: Arena
    session: Session
    role: int
    seed: int
    examples: int
    """Programs of one round."""
    seen: set[Place]
    """Leaks that are known; grows by what is found."""
    database: Path | None = None
    """Keeps hard examples."""
    unproven: Container[tuple[int, str]] = ()
    learning: Learning = field(default_factory=Learning)
    tell: Callable[[str], None] = lambda relation: None
    """Called with the relation that a round of a long budget goes to; at first it is none."""
    found: list[Leak] = field(default_factory=list)
    programs: int = 0
    _until: float = 0.0
    _leak: Leak | None = None
    """The smallest that the round has found yet."""
    _broken: Exception | None = None
    _fresh: int | None = None
    """New outcomes of the round; None while nobody counts them."""

    def run(self, seconds: float) -> None:
        """Run programs for so long.  What is found by then stands also when this raises."""
        if not self.arena.tenancy.context.personas:
            return
        begun = time.monotonic()
        if seconds >= _LONG:
            self.tell("")
        self._everywhere(begun, min(seconds, _LONG))
        if seconds >= _LONG:
            self._nearby(begun + seconds)

    def _everywhere(self, begun: float, seconds: float) -> None:
        """Programs of the whole schema's statements, until a round is clean."""
        menus = menus_of(self.arena, self.role, self.arena.relations())
        for chosen, until in ((self._doubtful(menus), begun + seconds / 2), (menus, begun + seconds)):
            self._until = until
            for number in range(_ROUNDS) if all(chosen.values()) else ():
                # Hypothesis forgets an example that fails no longer, and a leak that was found is passed over from then on.
                kept = self.database / str(len(self.found)) if self.database and chosen is menus else None
                if not self._round(chosen, self.seed + number, kept) or time.monotonic() > until:
                    break

    def _nearby(self, until: float) -> None:
        """Programs of one neighbourhood after the other."""
        self.learning.offer(neighbourhoods(self.arena, self.role, self.session.role, self.unproven))
        while (now := time.monotonic()) < until and (one := self.learning.next(self.session.role)) is not None:
            self.tell(one.relation)
            self._until, self._fresh, before = min(until, now + _SLICE), 0, self.programs
            try:
                self._visit(one, self.learning.rounds(one))
            finally:
                self.learning.visited(one, self.programs - before, time.monotonic() - now, self._fresh)

    def _visit(self, one: Neighbourhood, number: int) -> None:
        """The round of that number there: other programs each night, and the same for the same seed."""
        chosen = menus_of(self.arena, self.role, map(self.arena.catalog.relation, one.members))
        place = hashlib.sha256(one.relation.encode()).hexdigest()[:16]
        known = sum(leak.relation in one.members for leak in self.found)
        kept = self.database / place / str(known) if self.database else None
        if one.unproven and number % 2 == 0 and all((doubtful := self._doubtful(chosen)).values()):
            chosen, kept = doubtful, None
        mixed = hashlib.sha256(f"{self.seed} {number} {one.relation}".encode()).digest()
        self._round(chosen, int.from_bytes(mixed[:8], "big"), kept)

    def _doubtful(self, menus: Menus) -> Menus:
        return {
            tenant: tuple(step for step in menu if (step.relation, step.command) in self.unproven)
            for tenant, menu in menus.items()
        }

    def _round(self, menus: Menus, seed: int, database: Path | None) -> bool:
        """One Hypothesis run; whether it found a leak."""
        try:
            _search(menus, self.arena.tenancy.context.personas, self._attempt, seed, self.examples, database)
        finally:
            leak, self._leak = self._leak, None
            if leak is not None:
                self.seen.add(leak.place)
                self.found.append(leak)
        if self._broken is not None:
            raise self._broken
        return leak is not None

    def _attempt(self, tenant: Tenant, persona: Persona, program: Sequence[Step]) -> None:
        if time.monotonic() > self._until and self._leak is None:
            raise _Over  # the budget ends the search, never a shrink that is under way
        self.programs += 1
        try:
            leak = run_program(self.arena, self.session, tenant, persona, program, self._note)
            if leak is not None and len(program) > 1:
                # What one statement does alone is that statement's doing, whatever stood beside it.
                alone = (run_program(self.arena, self.session, tenant, persona, (step,)) for step in program)
                leak = next((single for single in alone if single is not None), leak)
        except (RlsauditError, psycopg.Error) as error:
            self._broken = error  # Hypothesis would take it for a failure of the program, and try to make that small
            raise _Over from error
        if leak is not None and leak.place not in self.seen:
            self._leak = leak
            raise _Found

    def _note(self, step: Step, reply: Reply) -> None:
        if self._fresh is not None and step.relation:
            relation = self.arena.catalog.relation(step.relation).qualified
            rows = min((reply.affected or len(reply.rows)).bit_length(), _MOST_ROWS)
            self._fresh += self.learning.note((self.session.role, relation), f"{step.command} {reply.sqlstate or rows}")


@at_home()
def _search(
    menus: Menus,
    personas: Sequence[Persona],
    attempt: Callable[[Tenant, Persona, Sequence[Step]], None],
    seed: int,
    examples: int,
    database: Path | None,
) -> None:
    """One Hypothesis run: the last program that ``attempt`` finds to leak is the shrunk one."""

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

    with interrupt.between_steps(), suppress(_Found, _Over):
        crosses()


@st.composite
def _programs(draw: st.DrawFn, menus: Menus, personas: Sequence[Persona]) -> tuple[Tenant, Persona, tuple[Step, ...]]:
    """One draw per choice and nothing nested: generation must stay cheaper than the server's answer."""
    tenants = tuple(menus)
    tenant = tenants[draw(st.integers(0, len(tenants) - 1))]
    persona = personas[draw(st.integers(0, len(personas) - 1))]
    menu = menus[tenant]
    length = draw(st.integers(1, _LONGEST))
    return tenant, persona, tuple(menu[draw(st.integers(0, len(menu) - 1))] for _ in range(length))
