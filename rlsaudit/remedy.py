"""Which check knows the mend of a leak that was executed: the one that read its cause off the catalog.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from rlsaudit.finding import SEVERITIES, Finding, Property

_ROWS = ("RLS0", "RLS1", "RLS2", "RLS3")
_FAMILIES: Mapping[Property, tuple[str, ...]] = {
    "read": _ROWS,
    "write": _ROWS,
    "forge": _ROWS,
    "closed": ("RLS0", "RLS1"),
    "carryover": ("RLS403",),
    "interference": ("RLS3", "RLS5"),
}
"""Beginnings of the ids of the checks that tell the cause."""


def with_fix(leak: Finding, checked: Iterable[Finding]) -> Finding:
    """The leak with the fix of the check that tells its cause; as it is where none does, or where it has one."""
    if leak.fix:
        return leak
    causes = [one for one in checked if one.fix and _caused(leak, one)]
    causes.sort(key=lambda one: (leak.command != one.command, SEVERITIES.index(one.severity)))
    return replace(leak, fix=causes[0].fix) if causes else leak


def _caused(leak: Finding, check: Finding) -> bool:
    if not check.check.startswith(_FAMILIES.get(leak.property, ())) or check.severity == "info":
        return False
    if leak.property == "carryover":
        return True  # the function that keeps the context is everybody's
    if constraints := re.findall(r" through (\S+) of ", leak.message) if leak.property == "interference" else []:
        return all(name in check.message + check.fix for name in constraints)
    if leak.object not in (check.object, check.relation):
        return False
    if check.check.startswith("RLS2"):  # a privilege: that which the attack uses
        return any(word in leak.attack for word in re.findall(r"[A-Z]{3,}", check.command))
    return not check.command or leak.command in check.command
