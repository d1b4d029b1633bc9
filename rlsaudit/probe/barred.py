"""Cells where a trigger or rule of the schema lets nobody write, an append-only table as a rule: attacked again without it.

That every attack was refused says nothing of the policies, and a trigger that refused what was tried may let something
else through.  So it is switched off in a copy of the world, if it can do nothing but refuse: what does not cross there
does not cross where more is refused.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

import psycopg
from psycopg import sql

from rlsaudit.catalog.refusing import only_refuses
from rlsaudit.catalog.relations import Command, Relation, Rule, Trigger
from rlsaudit.doubt import Doubt
from rlsaudit.finding import Property
from rlsaudit.probe.attacks.relation import target
from rlsaudit.probe.attacks.sweep import Arena, CellKey, crossing, narrowed
from rlsaudit.probe.ground.bars import Barred
from rlsaudit.probe.ground.leak import Leak, Tried
from rlsaudit.probe.ground.session import Session
from rlsaudit.probe.ground.statement_text import name
from rlsaudit.probe.ledger import Ledger, session_of
from rlsaudit.probe.result import Progress, Scratch
from rlsaudit.tenancy.model import ApplicationRole

_WRITES: tuple[Command, ...] = ("INSERT", "UPDATE", "DELETE")
_SWITCH = {Trigger: sql.SQL("DISABLE TRIGGER {}"), Rule: sql.SQL("DISABLE RULE {}")}
_CROSSINGS: frozenset[Property] = frozenset({"read", "write", "forge"})


def barred(
    server: Scratch, world: str, copy: str, arena: Arena, roles: Sequence[ApplicationRole], ledger: Ledger,
    *, sensitive: Container[CellKey], doubts: Sequence[Doubt] | None, progress: Progress,
) -> dict[CellKey, Barred]:  # fmt: skip
    """Every cell of tenants' rows where nothing was ever written, and a trigger or rule may be why.

    ``doubts`` are all cells that are not proven, None where nothing was.
    """
    leaking = {(leak.relation, leak.role, leak.command) for leak in ledger.leaks}
    waiting = [
        (relation, role, command)
        for relation in arena.relations()
        for role in roles
        for command in _WRITES
        if (key := (relation.oid, role.name, command)) not in leaking
        and key not in sensitive
        and _refused(arena, relation, command, ledger.tried.get(key))
    ]
    if not waiting:
        return {}
    doubted = {doubt.cell for doubt in doubts or ()}
    found: dict[CellKey, Barred] = {}
    server.create_database(copy, world)
    try:
        with server.connect(copy) as connection:
            for number, (relation, role, command) in enumerate(waiting):
                progress("attacking without what refused every write", number, len(waiting))
                session = session_of(server, copy, arena, role)
                try:
                    outcome = _attacked(connection, arena, session, role, relation, command)
                finally:
                    session.close()
                    ledger.statements += session.statements
                if outcome is not None:
                    proven = doubts is not None and (relation.qualified, role.name, command) not in doubted
                    found[relation.oid, role.name, command] = replace(outcome, proven=proven)
    finally:
        server.drop_database(copy)
    return found


def _refused(arena: Arena, relation: Relation, command: Command, tried: Tried | None) -> bool:
    """An error may be a trigger's; what ended well and wrote nothing may be a rule's doing, or a trigger's that writes
    elsewhere, which is then its own way in."""
    if tried is None or tried.alive or tried.cancelled or not relation.holds_rows or not relation.rls_enabled:
        return False
    if not arena.tenancy.of(relation.oid).tenant_data:
        return False
    bars = [*_bars(arena, relation, command)]
    failed = tried.refused or tried.denied or tried.error
    return bool(bars) if failed else tried.empty and any(isinstance(one, Rule) for one in bars)


def _bars(arena: Arena, relation: Relation, command: Command) -> Iterator[Trigger | Rule]:
    """What refuses, and can do nothing else: a trigger that also writes or sets something is its own way in."""
    for trigger in arena.catalog.triggers_of(relation.oid):
        function = arena.catalog.function(trigger.function)
        fires = command in trigger.events and trigger.enabled in ("origin", "always")
        if fires and function is not None and only_refuses(trigger, function):
            yield trigger
    for rule in arena.catalog.rules:
        if rule.relation == relation.oid and rule.event == command and rule.definition.endswith("DO INSTEAD NOTHING;"):
            yield rule


def _attacked(
    connection: psycopg.Connection[tuple[object, ...]], arena: Arena, session: Session, role: ApplicationRole,
    relation: Relation, command: Command,
) -> Barred | None:  # fmt: skip
    """None where what bars the cell cannot be switched off, or its table not altered."""
    bars = tuple(_bars(arena, relation, command))
    on = target(arena.catalog, arena.tenancy, arena.visibility, role.oid, relation)

    def alter(*changes: sql.Composable) -> None:
        connection.execute(sql.SQL("ALTER TABLE {} {}").format(name(relation), sql.SQL(", ").join(changes)))

    def attacks() -> tuple[Leak | None, Tried]:
        try:
            return crossing(narrowed(arena, relation), session, on, command, _CROSSINGS)
        finally:
            session.close()  # its last transaction holds locks

    try:
        alter(*(_SWITCH[type(one)].format(sql.Identifier(one.name)) for one in bars))
        leak, tried = attacks()
        alter(sql.SQL("DISABLE ROW LEVEL SECURITY"))
        try:
            open_leak, _ = attacks() if leak is None else (leak, tried)
        finally:
            alter(sql.SQL("ENABLE ROW LEVEL SECURITY"))
    except psycopg.Error:
        return None
    if tried.cancelled:
        return None
    return Barred(tuple(one.name for one in bars), leak is not None, tried.alive, open_leak is not None)
