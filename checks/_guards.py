"""Whether a trigger that looks at the context really holds a new row's key against it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rlsaudit.checks._sql import Token, is_word, walk
from rlsaudit.checks._statements import statements

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Trigger

_WHEN = re.compile(r" WHEN \((.*)\) EXECUTE (?:FUNCTION|PROCEDURE) ", re.DOTALL)


def writes_key(catalog: Catalog, trigger: Trigger, key: str) -> bool:
    """Whether the trigger's function gives NEW another key."""
    function = catalog.function(trigger.function)
    if function is None or function.language != "plpgsql":
        return False
    targets = {target for one in statements(function.source, "plpgsql") for target in one.targets}
    return f"new.{key}" in targets or "new" in targets


def refuses(catalog: Catalog, trigger: Trigger, key: str) -> bool:
    """Whether the function tests the key and stops a wrong row, or puts the key right itself."""
    function = catalog.function(trigger.function)
    if function is None or function.language != "plpgsql" or not key:
        return True
    stops, tests = False, False
    for one in statements(function.source, "plpgsql"):
        first = one.nodes[0] if one.nodes else None
        stops = stops or (one.kind == "raise" and not is_word(first, "notice", "info", "debug", "log", "warning"))
        stops = stops or (one.kind == "return" and is_word(first, "null"))
        names = {node.identifier or node.text for node in walk(one.nodes) if isinstance(node, Token)}
        tests = tests or (one.kind == "condition" and key in names)
        if one.kind == "assign" and one.targets == (f"new.{key}",):
            return True
    # A helper that the function calls may do both.
    named = {
        node.identifier
        for one in statements(function.source, "plpgsql")
        for node in walk(one.nodes)
        if isinstance(node, Token)
    }
    helper = any(one.name in named and "raise" in one.source.lower() for one in catalog.functions)
    return (stops and tests) or helper


def always(trigger: Trigger, key: str, settings: Iterable[str]) -> bool:
    """Whether no WHEN lets rows of a wrong key past the trigger."""
    found = _WHEN.search(trigger.definition)
    if found is None:
        return True
    text = found.group(1).lower().replace('"', "")
    if any(f"'{name}'" in text for name in settings):
        return True
    return "old.* is distinct from new.*" in text or bool(
        re.search(
            rf"\b(?:old|new)\.{re.escape(key.lower())}\b\)? (?:is distinct from|<>) \(?(?:old|new)\.{re.escape(key.lower())}\b",
            text,
        )
    )


def overwritten(catalog: Catalog, guard: Trigger, triggers: Iterable[Trigger], key: str) -> bool:
    """Whether another trigger changes the key where the guard does not see it: after it, or past its column list."""
    return any(
        other.oid != guard.oid and (guard.columns or other.name > guard.name) and writes_key(catalog, other, key)
        for other in triggers
    )
