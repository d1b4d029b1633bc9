"""What a session keeps after its transaction: state that functions hold, and what a pool's reset leaves behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from psycopg import sql

from rlsaudit.catalog.routines import Function
from rlsaudit.probe.attacks.calls import callable_, calls
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground import oracle
from rlsaudit.probe.ground.digest import DIGEST
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.ground.statement_text import acting, columns, name, text
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.tenancy.model import Persona

RESETS = ("DISCARD ALL", "RESET ALL")
"""What pools run at check-in, the thorough one first."""
_CALLS = 4
_KEEPS = re.compile(
    r"\bset_config\b|\bSET\b|\bTEMP(ORARY)?\b|\bPREPARE\b|\bWITH\s+HOLD\b|\$_SHARED|\b[GS]D\b", re.IGNORECASE
)
_LEFT = {
    "a temporary table": ("CREATE TEMP TABLE rlsaudit_left AS {}", "SELECT FROM pg_temp.rlsaudit_left"),
    "a WITH HOLD cursor": ("DECLARE rlsaudit_left CURSOR WITH HOLD FOR {}", "FETCH 0 FROM rlsaudit_left"),
    "a prepared statement": ("PREPARE rlsaudit_left AS {}", "EXECUTE rlsaudit_left"),
    "a session-wide setting": (
        "SELECT set_config('rlsaudit.left', 'kept', false)",
        "SELECT 1 / (current_setting('rlsaudit.left', true) = 'kept')::int",
    ),
    "an advisory lock": (
        "SELECT pg_advisory_lock(20250607)",
        "SELECT 1 / count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
}


def visited(session: Session, earlier: Sequence[Visit]) -> None:
    """A new connection with those stays behind it."""
    session.close()
    for visit in earlier:
        session.run(["ROLLBACK", "BEGIN", *visit.statements, "COMMIT" if visit.commit else "ROLLBACK"])
        for reset in visit.after:
            session.run([reset])


def closing(crosses: Callable[[tuple[str, ...]], bool], configured: tuple[str, ...]) -> str:
    """The reset at check-in with which it crosses no longer; empty where none helps or the pool's own does not."""
    return "" if configured else next((reset for reset in RESETS if not crosses((reset,))), "")


def states(arena: Arena, session: Session, role: int) -> Iterator[tuple[Function, Leak | None]]:
    """Call what may keep something in the session as one tenant, commit, and call it as the next on the same connection."""
    first, second = arena.world.tenants[:2]
    persona = next((one for one in arena.tenancy.context.personas if not one.login), None)
    for function in arena.functions() if persona is not None else ():
        if not callable_(function) or not arena.visibility.may_execute(role, function):
            continue
        if not _KEEPS.search(function.source):
            continue
        for call in islice(calls(arena, function, first, second), _CALLS):
            if persona is not None and _harmless(arena, session, persona, first, call):
                yield function, _kept(arena, session, function, persona, call)


def _harmless(arena: Arena, session: Session, persona: Persona, tenant: Tenant, call: str) -> bool:
    """Whether the call may be committed: it runs, and leaves every row as it was."""
    session.close()
    context = acting(persona, tenant.key, tenant.user)
    transcript = session.transaction([*context, call, "SET CONSTRAINTS ALL IMMEDIATE", DIGEST])
    if transcript.failed or len(transcript.replies) != len(context) + 3:
        return False
    shown, stored = oracle.parse_digest(transcript.replies[-1]), arena.world.baseline
    return not any(oracle.differs(stored, shown, owner) for owner in {place[1] for place in (*stored, *shown)})


def _kept(arena: Arena, session: Session, function: Function, persona: Persona, call: str) -> Leak | None:
    first, second = arena.world.tenants[:2]
    before, context = acting(persona, first.key, first.user), acting(persona, second.key, second.user)
    configured = arena.tenancy.context.reset

    def crosses(earlier: tuple[Visit, ...]) -> oracle.Evidence | None:
        visited(session, earlier)
        transcript = session.transaction([*context, call])
        shown = transcript.replies[len(context) :]
        return oracle.taint(shown, transcript.notices, arena.world, second.key, " ".join((*context, call)))

    visit = Visit((*before, call), after=configured)
    evidence = crosses((visit,))
    if evidence is None or crosses(()) is not None:  # what crosses without an earlier visit is another door's leak
        return None
    return Leak(
        breaks="carryover", relation=arena.world.holding(evidence.mark), command="EXECUTE", role=session.role,
        actor=second.key, owner=evidence.owner, channel=evidence.channel,
        visits=(visit, Visit((call,), commit=False)), context=context, mark=evidence.mark, persona=persona.name,
        function=function.oid,
        closed_by=closing(lambda after: crosses((Visit(visit.statements, after=after),)) is not None, configured),
    )  # fmt: skip


def leftovers(arena: Arena, session: Session, role: int) -> tuple[str, ...]:
    """A note on what a tenant's stay leaves to the next one, where the pool resets nothing or not enough."""
    configured = arena.tenancy.context.reset
    readable = (r for r in arena.relations() if r.holds_rows and arena.visibility.columns(role, r, "SELECT"))
    relation = next((r for r in readable if arena.tenancy.of(r.oid).tenant_data), None)
    if relation is None or arena.tenancy.context.login:
        return ()
    shown = columns(arena.visibility.columns(role, relation, "SELECT"))
    query = text(sql.SQL("SELECT {} FROM {}").format(shown, name(relation)))
    left = []
    for what, (make, look) in _LEFT.items():
        visited(session, (Visit((make.format(query),), after=configured),))
        if session.run(["ROLLBACK", look]).failed is None:
            left.append(what)
    if not left:
        return ()
    listed = ", ".join(left)
    if configured:
        return (f"After {'; '.join(configured)} a session still has what its last tenant left in it: {listed}.",)
    return (
        "A connection that serves several tenants keeps what one leaves in it, policies or not "
        f"({listed}): name the pool's reset, DISCARD ALL say, as reset under [context] to have it tried.",
    )
