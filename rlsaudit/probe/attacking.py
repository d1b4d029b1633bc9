"""Everything that is tried as one role in the seeded world, in order."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Container, Sequence
from itertools import chain
from pathlib import Path

from rlsaudit.doing import Doing
from rlsaudit.own import OwnStatement
from rlsaudit.probe import parallel
from rlsaudit.probe.attacks import context, doors, listening, pools
from rlsaudit.probe.attacks.escalate import escalate, pooled
from rlsaudit.probe.attacks.learning import Learning
from rlsaudit.probe.attacks.pointing import pointings
from rlsaudit.probe.attacks.statements import run_own
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Place
from rlsaudit.probe.judging.opening import openers, told_apart, without
from rlsaudit.probe.ledger import Ledger, session_of
from rlsaudit.probe.result import Progress, Scratch
from rlsaudit.tenancy.model import ApplicationRole

EXAMPLES = 150
"""Random programs per Hypothesis round and role."""


def attack(
    server: Scratch,
    worlds: Sequence[str],
    arena: Arena,
    role: ApplicationRole,
    ledger: Ledger,
    *,
    seed: int,
    seconds: float,
    progress: Progress,
    examples: Path | None,
    own: Sequence[OwnStatement] = (),
    unproven: Container[tuple[int, str]] = (),
    learning: Learning | None = None,
) -> None:
    from rlsaudit.probe.attacks.workload import Workload  # noqa: PLC0415 - Hypothesis takes long to import

    sessions = [session_of(server, world, arena, role, seeded=True) for world in worlds]
    session = sessions[0]
    try:
        parallel.sweep_all(arena, sessions, role.oid, ledger.tried, progress)
        swept = [leak for key, tried in ledger.tried.items() if key[1] == role.name for leak in tried.leaks]
        opening = openers(arena, ledger.tried, role.name)
        ledger.leaks += told_apart(swept, opening)
        ledger.opening |= set(opening)
        arena = without(arena, opening)
        for trial in context.closed(arena, session, role.oid):
            ledger.counts["closed", role.name] += 1
            ledger.leaks += [trial.leak] if trial.leak else []
        wide_open = {
            leak.relation
            for leak in ledger.leaks
            if leak.breaks in ("closed", "read") and leak.role == role.name and leak.owner and not leak.opened
        }
        for trial in context.carryover(arena, session, role.oid):
            ledger.counts["carryover", role.name] += 1
            # What is open anyway needs no other tenant's visit.
            ledger.leaks += [trial.leak] if trial.leak and trial.relation not in wide_open else []
        for _, kept in pools.states(arena, session, role.oid):
            ledger.counts["carryover", role.name] += 1
            ledger.leaks += [kept] if kept else []
        ledger.notes |= dict.fromkeys(pools.leftovers(arena, session, role.oid))
        for crossed in chain(escalate(arena, session, role.oid, tuple(ledger.leaks)), pooled(arena, session)):
            ledger.counts["read", role.name] += 1
            ledger.leaks += [crossed] if crossed else []
        for pointed in pointings(arena, session, role.oid, ledger.open_anyway(role.name)):
            ledger.counts["read", role.name] += 1
            ledger.leaks += [pointed] if pointed else []
        session.close()
        for called in doors.functions(arena, session, role.oid):
            ledger.called[called.function.oid, role.name] = called
            ledger.counts["read", role.name] += called.trials
            ledger.leaks += called.leaks
        for _, leak in doors.truncations(arena, session, role.oid):
            ledger.counts["write", role.name] += 1
            ledger.leaks += [leak] if leak else []
        for ran in run_own(arena, session, own, ledger.open_anyway(role.name)):
            ledger.ran[ran.statement.label, role.name] = ran
            ledger.counts["read", role.name] += ran.trials
            ledger.leaks += ran.leaks
        seen: set[Place] = {leak.place for leak in ledger.leaks}
        hard = examples / hashlib.sha256(role.name.encode()).hexdigest()[:16] if examples else None
        begun = time.monotonic()

        def tell(relation: str) -> None:
            leaks = len(ledger.leaks) + len(work.found)
            doing = Doing(f"random workloads as {role.name}", relation, session.statements, leaks)
            progress(doing, int(time.monotonic() - begun), int(seconds))

        work = Workload(arena, session, role.oid, seed, EXAMPLES, seen, hard, unproven, learning or Learning(), tell)
        try:
            work.run(seconds)
        finally:
            ledger.leaks += work.found
            ledger.programs += work.programs
    finally:
        for one in sessions:
            one.close()
            ledger.statements += one.statements


def listen(
    server: Scratch, world: str, copy: str, arena: Arena, roles: Sequence[ApplicationRole], ledger: Ledger
) -> None:  # fmt: skip
    """Notifications, in a copy of the world: they go out with a commit, which changes it."""
    if not listening.senders(arena):
        return
    server.create_database(copy, world)
    for role in roles:
        session = session_of(server, copy, arena, role)
        try:
            with server.connect(copy) as owner:
                for leak in listening.heard(arena, session, owner, role.oid):
                    ledger.counts["read", role.name] += 1
                    ledger.leaks += [leak] if leak else []
        finally:
            session.close()
            ledger.statements += session.statements
