"""The probe inside one transaction on the target itself: seed, sweep, broken contexts, TRUNCATE, detector; no commit, ever.

What needs a second connection or a commit is not tried, and is said to be not covered.  Functions are not called either:
what one does outside the database no rollback takes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import psycopg

from rlsaudit import interrupt
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.errors import NotTrustworthy
from rlsaudit.finding import Cell, Finding, PropertyResult
from rlsaudit.probe.attacks import context, doors
from rlsaudit.probe.attacks.calls import callable_
from rlsaudit.probe.attacks.reach import touches
from rlsaudit.probe.attacks.sweep import Arena, CellKey, sweep
from rlsaudit.probe.detector import unguarded
from rlsaudit.probe.ground import oracle
from rlsaudit.probe.ground.digest import DIGEST, referrers, release, vacate
from rlsaudit.probe.ground.leak import Leak, Tried, shortest
from rlsaudit.probe.ground.lost import lost
from rlsaudit.probe.ground.session import Transcript
from rlsaudit.probe.judging import judge, partial
from rlsaudit.probe.judging.findings import as_finding
from rlsaudit.probe.judging.opening import openers, told_apart, without
from rlsaudit.probe.judging.telling import Told, worth_telling
from rlsaudit.probe.one_transaction import Guest, settle
from rlsaudit.probe.replay.script import role_settings
from rlsaudit.probe.result import ProbeResult, Progress
from rlsaudit.probe.seeding.populate import populate
from rlsaudit.tenancy.model import ApplicationRole, Tenancy

Connection = psycopg.Connection[tuple[object, ...]]

NOT_TRIED = (
    "In place, in one transaction that is never committed, these were not tried: carryover (a pooled connection's next "
    "visit), interference (worlds with and without other tenants), calls of functions, programs of several statements, and "
    "a context that was never set on the connection (closed)."
)
_CLOSED = (
    "an empty context, an unknown tenant's and garbage reached nothing; a connection that never had one was not tried"
)
_NO_COMMIT = "not tried in place: it takes a commit or a second connection"
_NO_CALL = "not called in place: what a function does outside the database is not rolled back"
_TWICE = " It was seen twice, in one transaction on the target that was rolled back; there is no script to replay it."


@dataclass
class _Seen:
    tried: dict[CellKey, Tried] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)
    closed: dict[str, int] = field(default_factory=dict)
    statements: int = 0


def probe_in_place(connection: Connection, catalog: Catalog, tenancy: Tenancy, progress: Progress) -> ProbeResult:
    """Attack the database behind ``connection``, a superuser's session in a transaction that the caller rolls back.

    When the server goes away during the attack, the result says what was found until then.  Raises NotTrustworthy when
    the rows of the tenants cannot be made, or the transaction ends while its connection does not.
    """
    if tenancy.context.login:
        raise NotTrustworthy(
            "each tenant logs in as a role of its own, which cannot be tried in place; leave out --in-place"
        )
    interrupt.obey()
    progress("seeding tenants", 0, 1)
    try:
        world = populate(connection, catalog, tenancy)
        # Rows whose deferred checks are still to come would keep tables from being altered.
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        connection.execute("SET CONSTRAINTS ALL DEFERRED")
        connection.execute("RESET ALL")  # the contexts under which rows were stored last as long as the transaction
        settle(connection)
    except psycopg.Error as error:
        raise NotTrustworthy(f"no tenants could be made in place: {error.diag.message_primary or error}") from error
    arena = Arena(catalog, tenancy, visibility_of(catalog), world, in_place=True)
    seen = _Seen()
    try:
        for number, role in enumerate(tenancy.roles):
            progress(f"attacking as {role.name}", number, len(tenancy.roles))
            _attack(connection, arena, role, seen)
        progress("checking that the probe can see", 0, 1)
        detected, unnoticed = _detect(connection, arena, seen)
        told = worth_telling(catalog, shortest(seen.leaks))
        confirmed = [(one, _again(connection, arena, one.leak)) for one in told]
    except (KeyboardInterrupt, NotTrustworthy, psycopg.Error) as error:
        signalled, said = interrupt.ends(error), lost(error)
        if not (signalled or said):
            raise
        return _interrupted(arena, seen, "" if signalled else said)
    finally:
        interrupt.remember()
    cells = judge.cells(arena, tenancy.roles, seen.tried, detected.sensitive, shortest(seen.leaks))
    cells = judge.without_replay(catalog, cells, [one for one, again in confirmed if not again])
    blind = bool(unnoticed) or (bool(_guarded(arena)) and not _guarded(arena) & detected.seen)
    return ProbeResult(
        (*cells, *_uncalled(arena)),
        tuple(_finding(catalog, one) for one, again in confirmed if again),
        (*_properties(arena, seen), _detector(arena, detected, unnoticed)),
        (f"{NOT_TRIED} Tables and sequences were given new files for the transaction and are as they were before.",),
        "",
        seen.statements,
        0,
        len(world.tenants),
        blind,
        not_tried=(NOT_TRIED,),
    )


@contextmanager
def _guest(connection: Connection, arena: Arena, role: ApplicationRole) -> Iterator[Guest]:
    guest = Guest("", role.name, host=connection, patience=arena.patience)
    guest.enter(role_settings(arena.catalog, role.name))
    yield guest
    guest.leave()  # after an error nothing is left to be done but to roll everything back


def _attack(connection: Connection, arena: Arena, role: ApplicationRole, seen: _Seen) -> None:
    with _guest(connection, arena, role) as guest:
        try:
            _tried(arena, guest, role, seen)
        finally:
            seen.statements += guest.statements


def _tried(arena: Arena, guest: Guest, role: ApplicationRole, seen: _Seen) -> None:
    for key, tried in sweep(arena, guest, role.oid, arena.relations()):
        seen.tried[key] = tried
    swept = [leak for key, tried in seen.tried.items() if key[1] == role.name for leak in tried.leaks]
    opening = openers(arena, seen.tried, role.name)
    seen.leaks += told_apart(swept, opening)
    ordinary = without(arena, opening)
    for trial in context.closed(ordinary, guest, role.oid):
        seen.closed[role.name] = seen.closed.get(role.name, 0) + 1
        seen.leaks += [trial.leak] if trial.leak else []
    for _, leak in doors.truncations(ordinary, guest, role.oid):
        seen.leaks += [leak] if leak else []


def _detect(connection: Connection, arena: Arena, seen: _Seen) -> tuple[unguarded.Detected, tuple[Relation, ...]]:
    with connection.transaction(force_rollback=True):
        unguarded.open_wide(connection, arena.catalog)
        unnoticed = unguarded.unnoticed(connection, arena)
        sensitive: set[CellKey] = set()
        crossed: set[CellKey] = set()
        for role in arena.tenancy.roles:
            with _guest(connection, arena, role) as guest:
                found = unguarded.detect(arena, [(role.oid, guest)], seen.tried)
            sensitive |= found.sensitive
            crossed |= found.seen
    return unguarded.Detected(frozenset(sensitive), frozenset(crossed)), unnoticed


def _again(connection: Connection, arena: Arena, leak: Leak) -> bool:
    """Whether the same program shows the same leak once more."""
    role = next(role for role in arena.tenancy.roles if role.name == leak.role)
    first = [release(arena.catalog.relation(leak.relation))] if leak.without else []
    if leak.vacated:
        emptied = map(arena.catalog.relation, leak.vacated)
        leaves_first = sorted(emptied, key=lambda one: (len(referrers(arena.catalog, one)), one.oid))
        first.append(vacate(leaves_first, leak.actor))
    program = [*leak.context, *leak.visits[-1].statements]
    with _guest(connection, arena, role) as guest:
        if leak.channel != "digest":
            return _shows(guest.transaction([*first, *program]), leak)
        transcript = guest.transaction([*first, DIGEST, *program, "SET CONSTRAINTS ALL IMMEDIATE", DIGEST])
    if transcript.failed:
        return False
    before = oracle.parse_digest(transcript.replies[len(first)])
    after = oracle.parse_digest(transcript.replies[-1])
    return oracle.changed(before, after, leak.actor, arena.known) is not None


def _shows(transcript: Transcript, leak: Leak) -> bool:
    cells = [cell for reply in transcript.replies for row in reply.rows for cell in row if cell is not None]
    errors = [reply.error for reply in transcript.replies if reply.error]
    if leak.key_column:
        return leak.mark in cells
    return any(leak.mark in text for text in (*cells, *errors, *transcript.notices))


def _finding(catalog: Catalog, told: Told) -> Finding:
    made = as_finding(catalog, told, "")
    return replace(made, confirmed=False, message=made.message + _TWICE)


def _guarded(arena: Arena) -> frozenset[CellKey]:
    return frozenset(
        (relation.oid, role.name, "SELECT")
        for relation in arena.relations()
        if relation.rls_enabled and arena.tenancy.of(relation.oid).tenant_data
        for role in arena.tenancy.roles
        if arena.visibility.may(role.oid, relation, "SELECT")
    )


def _properties(arena: Arena, seen: _Seen) -> Iterator[PropertyResult]:
    leaks = shortest(seen.leaks)
    for role in arena.tenancy.roles:
        cells = [(key, tried) for key, tried in seen.tried.items() if key[1] == role.name]
        swept = sum(tried.trials for _, tried in cells)
        for broken in ("read", "write", "forge"):
            count = sum(leak.breaks == broken and leak.role == role.name for leak in leaks)
            said = f"{count} place(s) leak" if count else "nothing crossed"
            yield PropertyResult(
                broken, role.name, "leak" if count else "held" if swept else "not covered", swept, said
            )
        count = sum(leak.breaks == "closed" and leak.role == role.name for leak in leaks)
        said = f"{count} place(s) leak" if count else _CLOSED
        yield PropertyResult(
            "closed", role.name, "leak" if count else "not covered", seen.closed.get(role.name, 0), said
        )
        yield PropertyResult("carryover", role.name, "not covered", 0, _NO_COMMIT)
        yield PropertyResult("interference", role.name, "not covered", 0, _NO_COMMIT)
        own = [tried for key, tried in cells if arena.tenancy.of(key[0]).tenant_data]
        alive = sum(tried.alive for tried in own)
        said = f"own rows reached in {alive} of {len(own)} cells that hold a privilege"
        yield PropertyResult("alive", role.name, "held" if alive else "not covered", len(own), said)


def _detector(arena: Arena, detected: unguarded.Detected, unnoticed: tuple[Relation, ...]) -> PropertyResult:
    guarded = _guarded(arena)
    found = len(guarded & detected.seen)
    if unnoticed:
        reason = f"rows removed from {', '.join(relation.qualified for relation in unnoticed)} went unnoticed"
    else:
        reason = f"with row security switched off for a while, leaks appear in {found} of {len(guarded)} guarded SELECT cells"
    return PropertyResult("detector", "", "held" if found and not unnoticed else "not covered", len(guarded), reason)


def _uncalled(arena: Arena) -> Iterator[Cell]:
    for function in arena.catalog.functions:
        if callable_(function) and touches(arena.catalog, arena.tenancy, function).tenant_data:
            for role in arena.tenancy.roles:
                if arena.visibility.may_execute(role.oid, function):
                    yield Cell(function.signature, role.name, "EXECUTE", "not covered", 0, _NO_CALL)


def _interrupted(arena: Arena, seen: _Seen, said: str) -> ProbeResult:
    """What was found until a signal came, or the connection was lost."""
    roles: Sequence[ApplicationRole] = arena.tenancy.roles
    found = partial.leaks(arena, roles, seen.tried, seen.leaks)
    cells = partial.cells(arena, arena.tenancy.roles, seen.tried, found)
    told = (as_finding(arena.catalog, one, "") for one in worth_telling(arena.catalog, found))
    findings = tuple(replace(one, confirmed=False) for one in told)
    properties = partial.properties(_properties(arena, seen))
    return ProbeResult(
        cells, findings, properties, (NOT_TRIED,), "", seen.statements, 0, len(arena.world.tenants), False,
        interrupted=True, not_tried=(NOT_TRIED,), lost=said,
    )  # fmt: skip
