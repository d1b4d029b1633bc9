"""What a run says of each property of the contract, for every role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rlsaudit.finding import PropertyResult
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import shortest
from rlsaudit.probe.ledger import Ledger
from rlsaudit.tenancy.model import ApplicationRole


def properties(ledger: Ledger, roles: Sequence[ApplicationRole], arena: Arena) -> tuple[PropertyResult, ...]:
    """Run-level results for every role."""
    results: list[PropertyResult] = []
    for role in roles:
        swept = sum(tried.trials for key, tried in ledger.tried.items() if key[1] == role.name)
        for broken in ("read", "write", "forge", "closed", "carryover", "interference"):
            found = [leak for leak in shortest(ledger.leaks) if leak.breaks == broken and leak.role == role.name]
            leaks = sum(leak.severity != "low" for leak in found)
            nothing = f"nothing crossed but, of low severity, at {len(found)} place(s)" if found else "nothing crossed"
            trials = ledger.counts[broken, role.name] + (swept if broken in ("read", "write", "forge") else 0)
            outcome: Literal["held", "leak", "not covered"] = "leak" if leaks else "held" if trials else "not covered"
            reason = f"{leaks} place(s) leak" if leaks else nothing if trials else "nothing could be tried"
            if broken == "carryover" and arena.tenancy.context.login and not trials:
                reason = "each tenant logs in as a role of its own, so no connection serves two; SET ROLE in a pool was not tried"
            results.append(PropertyResult(broken, role.name, outcome, trials, reason))
        alive = [
            tried for key, tried in ledger.tried.items() if key[1] == role.name and arena.tenancy.of(key[0]).tenant_data
        ]
        working = sum(tried.alive for tried in alive)
        results.append(
            PropertyResult(
                "alive", role.name, "held" if working else "not covered", len(alive),
                f"own rows reached in {working} of {len(alive)} cells that hold a privilege",
            )
        )  # fmt: skip
    return tuple(results)
