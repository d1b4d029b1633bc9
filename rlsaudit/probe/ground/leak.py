"""What the probe finds: a leak as a program that can be run again, and what every cell was tried with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from rlsaudit.finding import Property, Severity
from rlsaudit.probe.ground.oracle import Channel
from rlsaudit.probe.ground.world import SHARED

_COPIED = re.compile(r'COPY (?P<relation>"(?:[^"]|"")*"\."(?:[^"]|"")*") \((?P<columns>.*)\) TO STDOUT', re.DOTALL)
Place = tuple[int, str, str, Property]
"""(relation or function OID, command, role, property)"""


@dataclass(frozen=True, slots=True)
class Visit:
    """One stay of a session on a pooled connection: a transaction with or without a context."""

    statements: tuple[str, ...]
    commit: bool = True
    after: tuple[str, ...] = ()
    """What the pool runs when the connection comes back."""


@dataclass(frozen=True)
class Leak:
    """A program that crosses from ``actor`` to ``owner``; its last statement is the one that shows it."""

    breaks: Property
    relation: int
    """The relation attacked, for its cell."""
    command: str
    role: str
    actor: str
    """Label of the tenant acted for; empty when no context is set."""
    owner: str
    channel: Channel
    visits: tuple[Visit, ...]
    """All but the last are earlier stays on the same connection; the last is never committed."""
    context: tuple[str, ...]
    """Statements that set the context of the last visit."""
    mark: str = ""
    changed: int = 0
    """Relation whose rows changed, by the digest."""
    found: tuple[str, ...] = ()
    """What a superuser's script changes first, so that rows stand as careless hands leave them."""
    without: frozenset[int] = frozenset()
    """Relations whose rows were removed first, so that a foreign key does not hide the leak."""
    vacated: frozenset[int] = frozenset()
    """Relations of which other tenants' rows were removed first, so that a unique key does not hide it."""
    persona: str = ""
    key_column: str = ""
    """Column whose value is the mark: a tenant key is too short a text to be looked for anywhere in a row."""
    function: int = 0
    """Function called, when the door is one."""
    own: str = ""
    """Label of the application's own statement, when that is the door."""
    constraint: str = ""
    """What tells of rows that are not seen (interference)."""
    opened: str = ""
    """What the session set that an ordinary one does not, where only that opens the way."""
    escalates: bool = False
    """``opened`` is an act of its own (SET ROLE, say), for whoever can send SQL as the application role."""
    severity: Severity | None = None
    """How bad it is, when not what the broken property says."""
    closed_by: str = ""
    """The reset at check-in with which it does not cross (carryover)."""
    world: str = ""
    """How the other tenants' rows differ where the outcome does: ``absent`` or ``replaced`` (interference)."""

    @property
    def statement(self) -> str:
        return self.visits[-1].statements[-1]

    @property
    def leading(self) -> tuple[str, ...]:
        """The statements before the last, in the last visit."""
        return tuple(plain(statement) for statement in self.visits[-1].statements[:-1])

    @property
    def shown(self) -> str:
        """The last statement in a form whose rows can be looked into."""
        return plain(self.statement)

    def goes_without(self, relation: int, owner: str) -> bool:
        """Whether rows of this owner were removed first."""
        return relation in self.without or (relation in self.vacated and owner not in (self.actor, SHARED))

    @property
    def place(self) -> Place:
        """Leaks with the same place are one finding."""
        command = f"{self.command} {self.constraint} {self.opened} {self.own}".rstrip()
        return (self.function or self.relation, command, self.role, self.breaks)


@dataclass
class Tried:
    """What was tried on one cell, and what came of it."""

    trials: int = 0
    alive: bool = False
    """The tenant reached its own row by this command."""
    alive_as: set[str] = field(default_factory=set)
    """Names of the personas that did."""
    seen_by: set[str] = field(default_factory=set)
    """Names of the tenants that saw their own rows."""
    denied: str = ""
    """The server's refusal (42501) of a command that was to work."""
    refused: str = ""
    """What a trigger or function of the schema raised against a command that was to work."""
    error: str = ""
    """Another error of a command that was to work: nothing is known then."""
    impossible: str = ""
    """The server's word that the command has no meaning here (a view that cannot be written)."""
    cancelled: int = 0
    """Attacks that ran into the timeout, and have shown nothing."""
    empty: bool = False
    """A command that was to work ran without error and reached no row."""
    leaks: list[Leak] = field(default_factory=list)
    effects: list[tuple[str, tuple[tuple[str | None, ...], ...]]] | None = None
    """(tenant acted for, what the digest showed after a write that worked), where somebody wants to look for himself."""
    outputs: dict[tuple[str, str], tuple[tuple[str | None, ...], ...]] = field(default_factory=dict)
    """(statement, tenant's name) → rows, to hold against the same statement with row security off."""


def plain(statement: str) -> str:
    """Of COPY (query) TO STDOUT the query: it meets the same policies and needs no copy protocol."""
    if statement.startswith("COPY (") and statement.endswith(") TO STDOUT"):
        return statement.removeprefix("COPY (").removesuffix(") TO STDOUT")
    if whole := _COPIED.fullmatch(statement):
        return f"SELECT {whole['columns']} FROM {whole['relation']}"
    return statement


def shortest(leaks: Iterable[Leak]) -> tuple[Leak, ...]:
    """One leak for each place, the plainest program of those that show it."""
    best: dict[Place, Leak] = {}
    for leak in leaks:
        known = best.get(leak.place)
        if known is None or _cost(leak) < _cost(known):
            best[leak.place] = leak
    return tuple(best.values())


def _cost(leak: Leak) -> tuple[int, int, int, int]:
    return (
        len(leak.visits),
        sum(len(visit.statements) for visit in leak.visits),
        {"rows": 0, "digest": 0, "gone": 0, "error": 1, "outcome": 1, "notice": 2, "heard": 2, "fed": 2}[leak.channel]
        + 3 * ("rlsaudit_peek" in leak.statement),
        len(leak.statement),
    )
