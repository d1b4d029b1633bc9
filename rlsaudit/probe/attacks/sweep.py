"""The sweep: every relation × role × command, deterministic, each statement in a transaction of its own."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS, Command, Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.finding import Property
from rlsaudit.probe.attacks.relation import Attack, Target, attacks, target
from rlsaudit.probe.ground import oracle
from rlsaudit.probe.ground.digest import DIGEST, digest_of, reach, referrers, release, vacate
from rlsaudit.probe.ground.leak import Leak, Tried, Visit
from rlsaudit.probe.ground.session import CANCELLED, DENIED, Patience, Reply, Session, Transcript
from rlsaudit.probe.ground.statement_text import acting
from rlsaudit.probe.ground.world import Tenant, World
from rlsaudit.tenancy.model import Persona, Tenancy

CellKey = tuple[int, str, Command]
"""(relation OID, role name, command)"""

# What constraints end with; the policies had let the statement through by then.  A trigger that raises the same runs before
# the policies look at a new row, or without any row.
_BY_CONSTRAINT = frozenset({"23503", "23505", "23514", "23502", "23P01", "23001"})
_IMPOSSIBLE = frozenset({"55000", "0A000", "42809", "428C9"})
"""The statement has no meaning here: a view that cannot be written, a generated column."""
_TAKEN = frozenset({"23505", "23P01"})
_HANGS = 6
"""Statements of one cell that may run into the timeout before it is given up."""
_RAISED = frozenset({"P0001", "P0002", "P0004"})

PEEK = (
    "CREATE FUNCTION pg_temp.rlsaudit_peek(seen text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS "
    "'BEGIN PERFORM set_config(''rlsaudit.seen'', "
    "COALESCE(current_setting(''rlsaudit.seen'', true), '''') || seen, true); RETURN true; END'"
)


@dataclass(frozen=True)
class Focus:
    """What a probe is confined to, by name: the copy that is attacked has OIDs of its own."""

    relations: frozenset[str]
    functions: frozenset[str]
    """Signatures."""


@dataclass(frozen=True)
class Arena:
    """Everything that attacks need and nobody changes."""

    catalog: Catalog
    tenancy: Tenancy
    visibility: Visibility
    world: World
    patience: Patience = field(default_factory=Patience, compare=False)
    in_place: bool = False
    """One transaction holds the seeding and every attack, so that its locks tell nothing of one attack."""

    def relations(self) -> tuple[Relation, ...]:
        """Relations with cells: all but sequences, composite leftovers and what extensions own."""
        return tuple(r for r in self.catalog.relations if r.kind != "sequence" and r.extension is None)

    def functions(self) -> tuple[Function, ...]:
        """Functions that are called as doors."""
        return self.catalog.functions

    def digest(self, relation: int) -> str:
        """The statement that shows what an attack on ``relation`` has changed."""
        if not self.in_place:
            return DIGEST
        if relation not in self._digests:
            self._digests[relation] = digest_of(reach(self.catalog, self.catalog.relation(relation)))
        return self._digests[relation]

    @cached_property
    def _digests(self) -> dict[int, str]:
        return {}

    def attacks(self, on: Target, tenant: Tenant, command: Command) -> tuple[Attack, ...]:
        """See ``relation.attacks``; composed once, for every persona and whoever asks for the same again."""
        may = (on.readable, on.insertable, on.updatable, on.deletable)
        place = (on.relation.oid, may, on.key, on.unique, tenant.key, command)
        if place not in self._composed:
            self._composed[place] = tuple(attacks(on, self.world, tenant, command))
        return self._composed[place]

    @cached_property
    def _composed(self) -> dict[Hashable, tuple[Attack, ...]]:
        return {}

    @cached_property
    def known(self) -> frozenset[str]:
        return frozenset(tenant.key for tenant in self.world.tenants)


@dataclass(frozen=True)
class Narrowed(Arena):
    """An arena of a few relations, and of a few functions where those are given."""

    only: tuple[Relation, ...] = ()
    called: tuple[Function, ...] | None = None

    def relations(self) -> tuple[Relation, ...]:
        return self.only

    def functions(self) -> tuple[Function, ...]:
        return self.catalog.functions if self.called is None else self.called


def narrowed(arena: Arena, *relations: Relation, catalog: Catalog | None = None) -> Narrowed:
    shown = catalog or arena.catalog
    return Narrowed(shown, arena.tenancy, arena.visibility, arena.world, arena.patience, arena.in_place, relations)


def focused(arena: Arena, focus: Focus | None) -> Arena:
    """The arena of what is in focus: the world is whole, and only that is attacked."""
    if focus is None:
        return arena
    only = tuple(relation for relation in arena.relations() if relation.qualified in focus.relations)
    called = tuple(one for one in arena.functions() if one.signature in focus.functions)
    return replace(narrowed(arena, *only), called=called)


def sweep(
    arena: Arena, session: Session, role: int, relations: Iterable[Relation], *, first_leak: bool = False
) -> Iterator[tuple[CellKey, Tried]]:
    """Attack ``relations`` as ``role`` under every persona and tenant; yields each cell once.

    With ``first_leak`` a cell is left as soon as it leaks.
    """
    session.prepare(PEEK)
    for relation in relations:
        on = target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
        for command in COMMANDS:
            if arena.visibility.may(role, relation, command):
                yield (relation.oid, session.role, command), _cell(arena, session, on, command, first_leak)


def _cell(arena: Arena, session: Session, on: Target, command: Command, first_leak: bool) -> Tried:
    tried = Tried()
    for persona in arena.tenancy.context.personas:
        before, tried.alive = tried.alive, False
        for tenant in arena.world.tenants:
            for attack in arena.attacks(on, tenant, command):
                _one(arena, session, attack, persona, tried)
                if (first_leak and tried.leaks) or tried.cancelled >= _HANGS:
                    return tried
        tried.alive_as |= {persona.name} if tried.alive else set()
        tried.alive = tried.alive or before
    return tried


def crossing(
    arena: Arena, session: Session, on: Target, command: Command, breaks: Container[Property]
) -> tuple[Leak | None, Tried]:
    """The first leak of these properties that the cell's attacks find, where they stop; and what they changed."""
    session.prepare(PEEK)
    tried = Tried(effects=[])
    for persona in arena.tenancy.context.personas:
        for tenant in arena.world.tenants:
            for attack in arena.attacks(on, tenant, command):
                _one(arena, session, attack, persona, tried)
                if found := next((leak for leak in tried.leaks if leak.breaks in breaks), None):
                    return found, tried
                if tried.cancelled >= _HANGS:
                    return None, tried
    return None, tried


def _one(arena: Arena, session: Session, attack: Attack, persona: Persona, tried: Tried) -> None:
    context = acting(persona, attack.tenant.key, attack.tenant.user)
    transcript, freed = _freed(arena, session, context, attack, tried)
    tried.trials += 1
    tried.cancelled += any(reply.sqlstate == CANCELLED for reply in transcript.replies)
    judged = _split(transcript, len(context), attack, len(freed.first))
    if judged is None:
        _note_failure(attack, transcript.failed, tried)
        return
    reply, before, after = judged
    if tried.effects is not None and after is not None and before is None:
        tried.effects.append((attack.tenant.key, transcript.replies[-1].rows))
    if attack.aim == "own":
        _note_own(arena, attack, reply, transcript, tried)
    program = " ".join((*context, attack.statement))
    evidence = oracle.taint([reply], transcript.notices, arena.world, attack.tenant.key, program)
    key_column = ""
    if evidence is None:
        evidence = oracle.foreign_key_seen(reply, attack.key_at, attack.tenant.key, arena.known)
        key_column = (arena.tenancy.of(attack.relation).key or "") if evidence else ""
    if evidence is None and after is not None:
        evidence = oracle.changed(
            arena.world.baseline, after, attack.tenant.key, arena.known, since=before, first=attack.relation
        )
    if evidence is not None:
        tried.leaks.append(
            Leak(
                breaks=evidence.property,
                relation=attack.relation,
                command=attack.command,
                role=session.role,
                actor=attack.tenant.key,
                owner=evidence.owner,
                channel=evidence.channel,
                visits=(Visit((attack.statement,), commit=False),),
                context=context,
                mark=evidence.mark,
                changed=evidence.relation,
                without=freed.without,
                vacated=freed.vacated,
                persona=persona.name,
                key_column=key_column,
                severity="high" if attack.aim == "peek" else None,  # it takes a function of the attacker's own
            )
        )


@dataclass(frozen=True, slots=True)
class _Freed:
    """What was taken out of an attack's way, in its own transaction: statements, the last of which shows what then stands."""

    first: tuple[str, ...] = ()
    without: frozenset[int] = frozenset()
    vacated: frozenset[int] = frozenset()


def _freed(
    arena: Arena, session: Session, context: tuple[str, ...], attack: Attack, tried: Tried
) -> tuple[Transcript, _Freed]:
    """The attack, tried again where a key alone refused it: policies had passed the row, and with other rows it may stand."""
    catalog, freed = arena.catalog, _Freed()
    released = attack.command not in ("UPDATE", "DELETE")
    while True:
        transcript = _run(arena, session, context, attack, freed.first)
        failed = transcript.failed
        if failed is None:
            return transcript, freed
        if failed.sqlstate == "23503" and not released:
            # A row that is still referred to cannot be judged: take the referring rows away.
            place, released = catalog.relation(attack.relation), True
            without = frozenset(child.oid for child in referrers(catalog, place))
            freed = replace(freed, first=(*freed.first[:-1], release(place)), without=without)
        elif not freed.vacated and (taken := _occupied(arena, attack, failed, tried)) is not None:
            # Its place is taken: take other tenants' rows away, and theirs that refer to them.
            emptied = (*reversed(referrers(catalog, taken)), taken)
            vacated = frozenset(one.oid for one in emptied)
            freed = replace(freed, first=(*freed.first[:-1], vacate(emptied, attack.tenant.key)), vacated=vacated)
        else:
            return transcript, freed
        # What is told by way of removed rows is held against what stands now, changed or not.
        looked = {attack.relation, *freed.without, *freed.vacated}
        stands = arena.digest(attack.relation) if arena.in_place else digest_of(looked)
        freed = replace(freed, first=(*freed.first, stands))


def _occupied(arena: Arena, attack: Attack, failed: Reply, tried: Tried) -> Relation | None:
    """The relation whose unique key alone refused a row of another tenant: policies are asked before it.  That a tenant is
    there already is no policy's matter."""
    # A new row that names no one is the actor's.
    own = attack.aim == "own" or (attack.aim == "blind" and attack.command == "INSERT")
    if failed.sqlstate not in _TAKEN or failed.raised or own:
        return None
    if any(leak.breaks == "forge" for leak in tried.leaks):
        return None
    catalog = arena.catalog
    queue = [attack.relation, *catalog.mentions("relation", attack.relation, "relation")]
    seen: set[int] = set()
    while queue:
        relation = catalog.find_relation(queue.pop())
        if relation is None or relation.oid in seen:
            continue
        seen.add(relation.oid)
        queue += [child.oid for child in catalog.children_of(relation.oid)]
        if any(index.name == failed.constraint for index in catalog.indexes_of(relation.oid)):
            while relation.is_partition:
                relation = catalog.relation(relation.parents[0])
            return relation if arena.tenancy.of(relation.oid).kind != "registry" else None
    return None


def _run(
    arena: Arena, session: Session, context: tuple[str, ...], attack: Attack, first: tuple[str, ...] = ()
) -> Transcript:
    after = () if attack.command == "SELECT" else ("SET CONSTRAINTS ALL IMMEDIATE", arena.digest(attack.relation))
    return session.transaction([*first, *context, attack.statement, *after])


def _split(
    transcript: Transcript, context: int, attack: Attack, first: int
) -> tuple[Reply, oracle.Digest | None, oracle.Digest | None] | None:
    """(the attack's own reply, digest before, digest after), or None when the statement never got to run."""
    replies = transcript.replies
    at = first + context
    if len(replies) <= at or any(reply.sqlstate for reply in replies[:at]):
        return None
    before = oracle.parse_digest(replies[first - 1]) if first else None
    last = replies[-1]
    complete = attack.command != "SELECT" and len(replies) == at + 3 and not last.sqlstate
    failed = next((reply for reply in replies[at:] if reply.sqlstate), None)
    return failed or replies[at], before, oracle.parse_digest(last) if complete else None


def _note_own(arena: Arena, attack: Attack, reply: Reply, transcript: Transcript, tried: Tried) -> None:
    if reply.sqlstate in _BY_CONSTRAINT and not reply.raised:
        # Policies are checked before constraints, so the row had passed them.
        tried.alive = True
    elif reply.sqlstate:
        _note_failure(attack, reply, tried)
    elif attack.command == "SELECT":
        seen = oracle.own_seen(Transcript((reply,), transcript.notices), arena.world, attack.tenant.key)
        seen = seen or any(row[attack.key_at] == attack.tenant.key for row in reply.rows if attack.key_at >= 0)
        if not tried.outputs.get((attack.statement, attack.tenant.name)):  # the plainest persona's that saw anything
            tried.outputs[attack.statement, attack.tenant.name] = reply.rows
        tried.alive = tried.alive or seen
        tried.seen_by |= {attack.tenant.name} if seen else set()
        tried.empty = tried.empty or not seen
    elif reply.affected or reply.rows:
        tried.alive = True
    else:
        tried.empty = True


def _note_failure(attack: Attack, failed: Reply | None, tried: Tried) -> None:
    if attack.aim != "own" or failed is None:
        return
    if failed.raised or failed.sqlstate in _RAISED:
        tried.refused = tried.refused or failed.error
    elif failed.sqlstate in _IMPOSSIBLE:
        tried.impossible = failed.error
    elif failed.sqlstate in DENIED:
        tried.denied = tried.denied or failed.error
    else:
        tried.error = tried.error or failed.error
