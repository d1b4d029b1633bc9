"""Which checks know the mend of a leak that was executed: those that read its cause off the catalog.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from rlsaudit.finding import SEVERITIES, Finding, Property

_TABLE, _FUNCTION, _PRIVILEGE = ("RLS0", "RLS1"), ("RLS3",), ("RLS2",)
_FAMILIES: Mapping[Property, tuple[str, ...]] = {
    "read": (*_TABLE, *_FUNCTION, *_PRIVILEGE),
    "write": (*_TABLE, *_FUNCTION, *_PRIVILEGE),
    "forge": (*_TABLE, *_FUNCTION, *_PRIVILEGE),
    "closed": _TABLE,
    "carryover": ("RLS403",),
    "interference": (*_FUNCTION, "RLS5"),
}
"""Beginnings of the ids of the checks that tell the cause."""
_CONTEXT = ("RLS103", "RLS118")
"""Those that tell what a session without a context reaches, and nothing of others."""


def with_fix(leak: Finding, checked: Iterable[Finding]) -> Finding:
    """The leak with the fixes of the checks that tell its causes, one for each object, worst first; as it is where none
    does, or where it has one."""
    if leak.fix:
        return leak
    causes = sorted((one for one in checked if one.fix and _caused(leak, one)), key=_rank)
    fixes = list({one.object: one.fix for one in reversed(causes)}.values())[::-1]
    return replace(leak, fix="\n".join(dict.fromkeys(fixes)))


def _rank(check: Finding) -> int:
    return SEVERITIES.index(check.severity)


def _caused(leak: Finding, check: Finding) -> bool:
    if not check.check.startswith(_FAMILIES.get(leak.property, ())) or check.severity == "info":
        return False
    if leak.property == "carryover":
        return True  # the function that keeps the context is everybody's
    if constraints := re.findall(r" through (\S+) of ", leak.message) if leak.property == "interference" else []:
        return all(name in check.message + check.fix for name in constraints)
    if check.role and leak.role and leak.role not in re.split(r", | and ", check.role):
        return False
    if check.check == "RLS313":  # a trigger that carries on what is done to another table
        return leak.relation not in ("", leak.object) and leak.relation in (
            check.relation, *(word.rstrip(".,;:") for word in check.message.split())
        )  # fmt: skip
    if check.check.startswith(_FUNCTION):
        return leak.object == check.object
    if leak.relation not in ("", leak.object) and leak.property == "write":
        return False  # what policies of the table itself let through is not what changed
    if leak.object not in (check.object, check.relation):
        return False
    if check.check.startswith(_PRIVILEGE):  # that which the attack uses
        return any(word in leak.attack for word in re.findall(r"[A-Z]{3,}", check.command))
    if check.check in _CONTEXT and leak.property != "closed":
        return False
    return not check.command or leak.command in check.command
