"""Which line of the user's SQL a finding is about: where the object at fault was last defined.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from rlsaudit.catalog.model import Catalog
from rlsaudit.finding import Finding

_POLICY = re.compile(r"policy (?P<name>.+) (?:on|of) (?P<relation>.+)\Z", re.DOTALL)
_KINDS = (
    "table", "view", "materialized view", "foreign table", "index", "sequence", "type", "schema", "policy", "trigger",
    "function", "procedure", "aggregate", "rule", "publication", "event trigger", "foreign server", "extension", "domain",
)  # fmt: skip


def placed(finding: Finding, catalog: Catalog, places: Mapping[str, tuple[str, int]]) -> Finding:
    """The finding with file and line: those of its object, else of the relation, else of the relation's policies."""
    if not places:
        return finding
    found = _of(finding.object, places) or _of(finding.relation, places)
    return finding if found is None else replace(finding, file=found[0], line=found[1])


def _of(named: str, places: Mapping[str, tuple[str, int]]) -> tuple[str, int] | None:
    """Identities are ``table public.t``, ``policy p on public.t``, ``function public.f(integer)``."""
    if not named:
        return None
    kinds = next((kind for kind in _KINDS if named.startswith(f"{kind} ")), None)
    asked = [named] if kinds else [f"{kind} {named}" for kind in _KINDS]
    return next((places[one] for one in asked if one in places), None)
