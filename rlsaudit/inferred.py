"""What was inferred, written as configuration: ``rlsaudit init``.  Every line says from what."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rlsaudit.catalog.model import Catalog
from rlsaudit.tenancy.model import Tenancy


def as_toml(catalog: Catalog, tenancy: Tenancy) -> str:
    """The text of rlsaudit.toml; loading it gives the same tenancy."""
    return "\n".join((*_head(tenancy), "", *_context(tenancy), "", *_relations(catalog, tenancy))) + "\n"


def _head(tenancy: Tenancy) -> Iterable[str]:
    yield "# Written by rlsaudit init. Each value was inferred; the comment says from what. Correct what is wrong."
    yield ""
    for role in tenancy.roles:
        yield f"# {_comment(role.name)}: {_comment(role.why)}"
    if tenancy.unmet:
        left = ", ".join(_comment(role.name) for role in tenancy.unmet)
        yield f"# There are more kinds of roles than are tested by themselves; nobody tests {left} until roles names them."
    named = f"roles = [{', '.join(_quoted(role.name) for role in tenancy.roles)}]"
    yield f"# {named}" if tenancy.unmet else named
    yield ""
    yield "[tenancy]"
    yield f"# type {_comment(tenancy.key_type)}"
    yield f"key = [{', '.join(_quoted(name) for name in tenancy.key_columns)}]"


def _context(tenancy: Tenancy) -> Iterable[str]:
    yield f"# {_comment(tenancy.context.why or 'no setting is read by any policy')}"
    if not tenancy.context.personas:
        yield "# [context]"
        yield "# statements = [\"SELECT set_config('app.tenant_id', :tenant, true)\"]"
        return
    for persona in tenancy.context.personas:
        yield "[[context.personas]]"
        yield f"name = {_quoted(persona.name)}"
        if persona.login:
            yield f"login = {_quoted(persona.login)} # the role to log in as"
        if persona.opening:
            yield "opening = true # no ordinary session: what only this opens is one finding"
        if persona.statements or not persona.login:
            yield "statements = ["
            yield from (f"    {_quoted(statement)}," for statement in persona.statements)
            yield "]"


def _relations(catalog: Catalog, tenancy: Tenancy) -> Iterable[str]:
    for oid, classified in tenancy.relations.items():
        relation = catalog.relation(oid)
        if relation.kind == "sequence":
            continue
        yield f"# {_comment(relation.qualified)}: {classified.kind}: {_comment(classified.why)}"
        if classified.kind == "unclassified":
            yield f"[relations.{_quoted(relation.qualified)}]"
            yield 'class = "global" # or "tenant" with key = "…"; give a reason'
            yield 'reason = ""'


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are a subset of TOML's, but for the surrogates that no name has."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
