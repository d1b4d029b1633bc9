"""From what the application's own statements gave to the state of each one's cell.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rlsaudit.finding import Cell, State
from rlsaudit.probe.attacks.statements import Ran
from rlsaudit.probe.ground.leak import Leak
from rlsaudit.probe.judging.functions import EXECUTE

_SHOWN = 160


def own_cells(ran: Mapping[tuple[str, str], Ran], leaks: Iterable[Leak]) -> tuple[Cell, ...]:
    """One cell for each statement × role.  ``ran`` is keyed by label and role name."""
    leaking: dict[tuple[str, str], set[str]] = {}
    for leak in leaks:
        if leak.own:
            leaking.setdefault((leak.own, leak.role), set()).add(leak.breaks)
    found = []
    for (label, role), one in ran.items():
        state, reason = state_of(one, leaking.get((label, role), set()))
        found.append(Cell(label, role, EXECUTE, state, one.trials, reason))
    return tuple(found)


def state_of(ran: Ran, broken: set[str]) -> tuple[State, str]:
    """State and reason; ``broken`` are the properties that the statement's leaks break."""
    if broken:
        return "leak", "; ".join(sorted(broken))
    if ran.beside:
        return (
            "not covered",
            f"it names {ran.beside}, which leaks by itself, so that nothing can be told of the statement",
        )
    if not ran.trials:
        return "not covered", "no run could be made: no session took the context"
    if ran.denied == ran.trials:
        return "no privilege", ""
    if ran.cancelled:
        return "not covered", f"{ran.cancelled} of {ran.trials} runs ran into the timeout, and so have shown nothing"
    if ran.failures == ran.trials:
        return "not covered", f"every run failed: {_short(ran.error)}"
    if not ran.foreign:
        return "not covered", "no run with another tenant's values ended without an error"
    if ran.seen_by or ran.wrote:
        did = " and ".join(said for said, so in (("returned", ran.seen_by), ("changed", ran.wrote)) if so)
        return "held", f"the tenant's own rows were {did}, none of another's"
    if ran.told:
        return "held", "what it returned holds no other tenant's value"
    what = (
        "returned nothing but 0, false, empty text and NULL" if ran.rows else "neither returned a row nor changed one"
    )
    return "not covered", f"it ran, and {what}, although the tenants have rows"


def _short(message: str) -> str:
    line = message.splitlines()[0] if message else message
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."
