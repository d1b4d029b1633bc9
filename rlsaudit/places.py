"""Which line of the user's SQL a finding is about: where the object at fault was last defined.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rlsaudit.finding import Finding

_KINDS = (
    "table", "view", "materialized view", "foreign table", "index", "sequence", "type", "schema", "policy", "trigger",
    "function", "procedure", "aggregate", "rule", "publication", "event trigger", "foreign server", "extension", "domain", "role",
)  # fmt: skip


Places = Mapping[str, tuple[str, int]]


def within(places: Places, directory: Path) -> Places:
    """The places with files below ``directory`` named from there, as CI systems map them to a repository."""
    inside = {file: Path(file).is_relative_to(directory) for file, _ in places.values()}
    return {
        identity: (Path(file).relative_to(directory).as_posix() if inside[file] else file, line)
        for identity, (file, line) in places.items()
    }


def placed(finding: Finding, places: Places) -> Finding:
    """The finding with file and line: those of its object, else of the relation."""
    found = _of(finding.object, places) or _of(finding.relation, places)
    return finding if found is None else replace(finding, file=found[0], line=found[1])


def _of(named: str, places: Places) -> tuple[str, int] | None:
    """Identities are ``table public.t``, ``policy p on public.t``, ``function public.f(integer)``."""
    if not named:
        return None
    kinds = next((kind for kind in _KINDS if named.startswith(f"{kind} ")), None)
    asked = [named] if kinds else [f"{kind} {named}" for kind in _KINDS]
    return next((places[one] for one in asked if one in places), None)
