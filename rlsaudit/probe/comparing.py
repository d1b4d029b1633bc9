"""The same programs in worlds with and without other tenants' rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from rlsaudit.probe.attacks.absence import remove_others, replace_others
from rlsaudit.probe.attacks.interference import Program, WorldName, interferences, own_interferences
from rlsaudit.probe.attacks.statements import beside
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.detector import planting
from rlsaudit.probe.detector.planting_worlds import plant_unique
from rlsaudit.probe.ledger import Ledger, session_of
from rlsaudit.probe.replay.script import SeedRow
from rlsaudit.probe.replaying import stored
from rlsaudit.probe.result import Scratch
from rlsaudit.tenancy.model import ApplicationRole


def interfere(
    server: Scratch, world: str, suffix: str, arena: Arena, roles: Sequence[ApplicationRole], ledger: Ledger,
    planted: planting.Planted, mode: planting.Mode,
) -> list[SeedRow]:  # fmt: skip
    """Run the same programs with and without other tenants' rows; gives the rows of the world with other values."""
    names: dict[WorldName, str] = {"absent": f"rlsaudit_absent_{suffix}", "replaced": f"rlsaudit_replaced_{suffix}"}
    actor = arena.world.tenants[0]
    replaced: list[SeedRow] = []
    try:
        for kind, made in names.items():
            server.create_database(made, world)
            with server.connect(made) as connection:
                (remove_others if kind == "absent" else replace_others)(connection, arena, actor)
                if kind == "replaced":
                    replaced = stored(connection, arena)
        for role in roles:
            _compare(server, world, names, arena, role, ledger)
            _plant_unique(server, world, names, arena, role, ledger, planted, mode)
    finally:
        for made in names.values():
            server.drop_database(made)
    return replaced


def _compare(
    server: Scratch, world: str, names: Mapping[WorldName, str], arena: Arena, role: ApplicationRole, ledger: Ledger
) -> None:
    present = session_of(server, world, arena, role)
    others = {kind: session_of(server, made, arena, role) for kind, made in names.items()}
    try:
        for leak in interferences(arena, role.oid, present, others, ledger.open_anyway(role.name)):
            ledger.counts["interference", role.name] += 1
            ledger.leaks += [leak] if leak else []
        for leak in own_interferences(arena, present, others, _own(arena, ledger, role)):
            ledger.counts["interference", role.name] += 1
            ledger.leaks += [leak] if leak else []
    finally:
        for session in (present, *others.values()):
            session.close()
            ledger.statements += session.statements


def _own(arena: Arena, ledger: Ledger, role: ApplicationRole) -> list[Program]:
    """The application's statements, with own and foreign values, as far as nothing that they name leaks by itself."""
    telling = {leak.function or leak.relation for leak in ledger.leaks if leak.role == role.name and not leak.own}
    found = []
    for ran in (one for (_, name), one in ledger.ran.items() if name == role.name and not one.leaks):
        ran.beside = ran.beside or beside(arena, ran.statement, frozenset(telling))
        programs = () if ran.beside else ran.programs
        found += [Program(0, "EXECUTE", one[-1], first=one[:-1], own=ran.statement.label) for one in programs]
    return found


def _plant_unique(
    server: Scratch, world: str, names: Mapping[WorldName, str], arena: Arena, role: ApplicationRole,
    ledger: Ledger, planted: planting.Planted, mode: planting.Mode,
) -> None:  # fmt: skip
    present = session_of(server, world, arena, role)
    others = {kind: session_of(server, made, arena, role) for kind, made in names.items()}
    try:
        with ExitStack() as stack:
            connections = [stack.enter_context(server.connect(database)) for database in (world, *names.values())]
            plant_unique(connections, arena, role, present, others, mode, planted)
    finally:
        for session in (present, *others.values()):
            session.close()
            ledger.statements += session.statements
