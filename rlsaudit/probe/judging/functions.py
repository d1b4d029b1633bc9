"""From what calls gave to the state of each function's cell.  Pure.

A function has a cell when it may touch tenant data.  One that every call left with an error, or that gave nothing
although the tenants have rows, has shown nothing, and that is no pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rlsaudit.finding import Cell, State
from rlsaudit.probe.attacks.doors import Called
from rlsaudit.probe.ground.leak import Leak

EXECUTE = "EXECUTE"
_SCALAR = frozenset({"boolean", "smallint", "integer", "bigint", "numeric", "real", "double precision"})
"""Types too small to carry a mark: whether such an answer depends on other tenants' rows is what interference tells."""


def function_cells(called: Mapping[tuple[int, str], Called], leaks: Iterable[Leak]) -> tuple[Cell, ...]:
    """One cell for each function that may touch tenant data × role that may execute it.

    ``called`` is keyed by function OID and role name.
    """
    leaking: dict[tuple[int, str], set[str]] = {}
    for leak in leaks:
        if leak.function and not leak.constraint and not leak.opened:
            leaking.setdefault((leak.function, leak.role), set()).add(leak.breaks)
    found = []
    for (oid, role), one in sorted(called.items(), key=lambda item: (item[1].function.signature, item[0][1])):
        broken = leaking.get((oid, role), set())
        if broken or one.touch.tenant_data:
            state, reason = _state(one, broken)
            found.append(Cell(one.function.signature, role, EXECUTE, state, one.trials, reason))
    return tuple(found)


def _state(called: Called, broken: set[str]) -> tuple[State, str]:
    if broken:
        return "leak", "; ".join(sorted(broken))
    function, worked = called.function, called.trials - called.failures
    if called.seen_by or called.wrote:
        did = " and ".join(said for said, so in (("returned", called.seen_by), ("changed", called.wrote)) if so)
        return "held", f"the tenant's own rows were {did}, none of another's"
    if worked and function.returns in _SCALAR and called.returned and not called.touch.writes:
        return "held", "it answers with a number or a truth value, which is the same without other tenants' rows"
    if worked and called.returned and not called.touch.writes:
        return "held", "what it returned holds no other tenant's value"
    if not function.security_definer:
        failed = "" if worked else f"; every call failed: {_short(called.error)}"
        return "held", f"it runs with its caller's rights, so the cells of the relations bound it{failed}"
    if worked and function.returns == "void" and not called.touch.writes:
        return "held", "it returns nothing and changes no tenant's row"
    return "not covered", _shortfall(called, worked)


def _shortfall(called: Called, worked: int) -> str:
    if not called.trials:
        return "no call could be made: no session took the context"
    if not worked:
        return f"every call failed: {_short(called.error)}"
    if called.touch.writes:
        return "no call that worked changed a row, so nothing is known of what it may change"
    return "every call that worked returned nothing, although the tenants have rows"


def _short(message: str) -> str:
    line = message.splitlines()[0] if message else message
    return line if len(line) <= 160 else line[:157] + "..."
