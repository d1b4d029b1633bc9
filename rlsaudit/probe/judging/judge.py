"""From what was tried to the state of each cell.  Pure; the one place where a pass is given or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS, Command, Relation
from rlsaudit.finding import Cell, State
from rlsaudit.probe.attacks.sweep import Arena, CellKey
from rlsaudit.probe.ground.bars import Barred
from rlsaudit.probe.ground.leak import Leak, Tried
from rlsaudit.probe.judging.telling import Told
from rlsaudit.tenancy.model import ApplicationRole

_ROW_SECURITY = "row-level security policy"


def cells(
    arena: Arena,
    roles: tuple[ApplicationRole, ...],
    tried: Mapping[CellKey, Tried],
    sensitive: Set[CellKey],
    leaks: tuple[Leak, ...],
) -> tuple[Cell, ...]:
    """One cell for every relation × role × command."""
    leaking: dict[CellKey, list[Leak]] = {}
    for leak in leaks:
        for command in COMMANDS:
            # A constraint that tells which rows exist shows none of them: a finding, but no crossing in the cell.
            if leak.command == command and not (leak.function or leak.constraint or leak.opened):
                leaking.setdefault((leak.relation, leak.role, command), []).append(leak)
    found = []
    for relation in arena.relations():
        for role in roles:
            for command in COMMANDS:
                key = (relation.oid, role.name, command)
                trial = tried.get(key, Tried())
                state, reason = _state(arena, relation, role, command, trial, key in sensitive, leaking.get(key, []))
                found.append(Cell(relation.qualified, role.name, command, state, trial.trials, reason))
    return tuple(found)


def without_missed(
    catalog: Catalog, cells: tuple[Cell, ...], missed: Mapping[CellKey, Sequence[str]]
) -> tuple[Cell, ...]:
    """Where a leak planted by rlsaudit itself went unnoticed, having found none says nothing."""
    unseen: dict[tuple[str, str, str], Sequence[str]] = {
        (catalog.relation(oid).qualified, role, command): kinds for (oid, role, command), kinds in missed.items()
    }
    return tuple(
        replace(cell, state="not covered", reason=f"a leak planted here went unnoticed: {', '.join(kinds)}")
        if cell.state == "held" and (kinds := unseen.get((cell.relation, cell.role, cell.command)))
        else cell
        for cell in cells
    )


def without_bars(catalog: Catalog, cells: tuple[Cell, ...], withheld: Mapping[CellKey, Barred]) -> tuple[Cell, ...]:
    """What triggers and rules refused throughout is judged by what came of it without them."""
    outcomes: dict[tuple[str, str, str], Barred] = {
        (catalog.relation(oid).qualified, role, command): one for (oid, role, command), one in withheld.items()
    }
    return tuple(
        replace(cell, state=judged[0], reason=judged[1])
        if cell.state == "not covered"
        and (one := outcomes.get((cell.relation, cell.role, cell.command)))
        and (judged := _without_bars(one))
        else cell
        for cell in cells
    )


def _without_bars(one: Barred) -> tuple[State, str] | None:
    by = ", ".join(one.by)
    if one.crossed:
        return (
            "not covered",
            f"every write tried was refused, and with {by} switched off the policies let another tenant's rows be written:"
            " all hangs on what that refuses",
        )
    if one.alive and one.sensitive and not one.proven:
        return (
            "not covered",
            f"every write tried was refused; with {by} switched off nothing crossed, but the policies are not proven and far"
            " less was tried there",
        )
    if one.alive and one.sensitive:
        return (
            "held",
            f"refused for own rows too; with {by} switched off own rows are reached, no other tenant's, and with row security"
            " off the same statements cross",
        )
    return None


def without_replay(catalog: Catalog, cells: tuple[Cell, ...], unconfirmed: Iterable[Told]) -> tuple[Cell, ...]:
    """A leak whose script did not show it again is no leak that can be reported, and no pass either."""
    places = {
        (catalog.relation(oid).qualified, role, command)
        for one in unconfirmed
        for role in one.roles
        for oid in (one.leak.relation, *one.siblings)
        if catalog.find_relation(oid) is not None
        for command in one.commands
    }
    places |= {
        (function.signature, role, "EXECUTE")
        for one in unconfirmed
        for role in one.roles
        if one.leak.function and (function := catalog.function(one.leak.function))
    }
    reason = "something of another tenant was reached once, but a replay of it did not show it again"
    return tuple(
        replace(cell, state="not covered", reason=reason)
        if cell.state == "leak" and (cell.relation, cell.role, cell.command) in places
        else cell
        for cell in cells
    )


def _state(
    arena: Arena, relation: Relation, role: ApplicationRole, command: Command, tried: Tried, sensitive: bool, leaks: list[Leak]
) -> tuple[State, str]:  # fmt: skip
    if not arena.visibility.may(role.oid, relation, command):
        return "no privilege", ""
    if leaks:
        return "leak", "; ".join(sorted({leak.breaks for leak in leaks}))
    classified = arena.tenancy.of(relation.oid)
    if classified.kind == "unclassified":
        return "not covered", f"unclassified: {classified.why}; declare its class in rlsaudit.toml"
    if not classified.tenant_data:
        state, said = _common(arena, relation, role, command, tried)
        return state, f"not tenant data ({classified.why}); {said}"
    if not tried.trials and relation.kind == "materialized view" and command != "SELECT":
        return "held", "not possible: a materialized view takes no rows"
    if not tried.trials:
        cause = arena.world.failures.get(relation.oid, "no row or statement could be made for it")
        return "not covered", f"nothing could be tried: {cause}"
    if tried.cancelled:
        return (
            "not covered",
            f"{tried.cancelled} of {tried.trials} statements ran into the timeout, and so have shown nothing",
        )
    if _default_deny(arena, relation, role, command):
        return (
            ("held", "no policy admits this command: default deny")
            if sensitive or command == "INSERT"
            else _blind(arena, relation)
        )
    shown = command == "SELECT" and sensitive and any(tried.outputs.values())
    if tried.alive or shown:
        return _alive(arena, relation, command, tried, sensitive)
    return _not_alive(arena, relation, command, tried, sensitive)


def _common(
    arena: Arena, relation: Relation, role: ApplicationRole, command: Command, tried: Tried
) -> tuple[State, str]:
    """Of a relation without tenant data: what comes out of it, and what a write to it does to tenants' rows."""
    if any(tried.outputs.values()):
        return "held", "no tenant's value came out of it"
    if command != "SELECT" and tried.alive:
        return "held", "it was written, and no tenant's row changed"
    if _default_deny(arena, relation, role, command):
        return "held", "no policy admits this command: default deny"
    if relation.kind == "materialized view" and command != "SELECT":
        return "held", "not possible: a materialized view takes no rows"
    if tried.impossible and not (tried.denied or tried.error):
        return "held", f"not possible: {_short(tried.impossible)}"
    if command != "SELECT" and (tried.refused or _ROW_SECURITY in tried.denied):
        return "held", f"refused: {_short(tried.refused or tried.denied)}"
    missing = "no row was there to be read" if command == "SELECT" else "no row could be written"
    cause = tried.error or tried.denied or arena.world.failures.get(relation.oid) or missing
    return "not covered", _short(cause)


def _alive(arena: Arena, relation: Relation, command: Command, tried: Tried, sensitive: bool) -> tuple[State, str]:
    if sensitive:
        return "held", "own rows reached, no other tenant's; with row security off the same statements cross"
    if command == "SELECT" and len(tried.seen_by) > 1:
        return "held", "each tenant sees its own rows here and none of another's"
    if command == "INSERT":
        return (
            "held",
            "own rows accepted, forged ones refused, also by constraints or triggers when row security is off",
        )
    return _blind(arena, relation)


def _not_alive(arena: Arena, relation: Relation, command: Command, tried: Tried, sensitive: bool) -> tuple[State, str]:
    if command == "SELECT":
        cause = tried.error or tried.denied or "no persona saw its own rows"
        return "not covered", f"{_short(cause)}; check the context in rlsaudit.toml"
    if tried.impossible and not (tried.empty or tried.denied or tried.error):
        return "held", f"not possible: {_short(tried.impossible)}"
    refusal = tried.denied if _ROW_SECURITY in tried.denied else ""
    if refusal or tried.refused:
        return (
            ("held", f"refused for own rows too: {_short(refusal or tried.refused)}")
            if sensitive or refusal
            else _blind(arena, relation)
        )
    if tried.denied or tried.error:
        return "not covered", f"own rows could not be written: {_short(tried.denied or tried.error)}"
    if tried.empty and sensitive:
        return (
            "held",
            "the policies admit none of the rows tried, own ones included; with row security off they do",
        )
    failure = arena.world.failures.get(relation.oid)
    return (
        "not covered",
        f"no valid row could be made: {failure}" if failure else "no statement reached an own row",
    )


def _blind(arena: Arena, relation: Relation) -> tuple[State, str]:
    cause = arena.world.failures.get(relation.oid)
    why = f": {cause}" if cause else ""
    return (
        "not covered",
        f"the statements cross nowhere even with row security off, so they prove nothing{why}",
    )


def _default_deny(arena: Arena, relation: Relation, role: ApplicationRole, command: Command) -> bool:
    if arena.visibility.exempt(role.oid, relation) is not None or not relation.holds_rows:
        return False
    return not any(policy.permissive for policy in arena.visibility.policies(role.oid, relation, command))


def _short(message: str) -> str:
    line = message.splitlines()[0] if message else message
    return line if len(line) <= 160 else line[:157] + "..."
