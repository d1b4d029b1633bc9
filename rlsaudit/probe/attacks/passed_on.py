"""Context values that an application passes on from its client: a list of tenants, a claim that users edit, the name
that a connection gives itself, a setting beside the usual one.  They take no SQL, only a value that nobody checked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from psycopg import sql

from rlsaudit.catalog.expression import Setting, walk
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.finding import Severity
from rlsaudit.probe.attacks.programs import Program
from rlsaudit.probe.attacks.relation import target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.statement_text import acting, columns, literal, name, text
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.tenancy.model import Persona

_EDITED = re.compile(
    r"'(?P<claim>user_metadata|raw_user_meta_data)', json_build_object\((?P<inside>[^()]*?):tenant(?!\w)", re.IGNORECASE
)
"""The documents of a Supabase token that a signed-in user may write; as ``tenancy.context`` spells the claims."""
_GIVEN = "application_name"


def passed_on(arena: Arena, role: int, persona: Persona, tenant: Tenant) -> Iterator[Program]:
    """Each such value and then a plain read of every relation with tenant data."""
    other = arena.world.others(tenant)[0]
    for way, first, bad in _values(arena, persona, tenant, other):
        for relation in arena.relations():
            on = target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
            if arena.tenancy.of(relation.oid).tenant_data and on.readable:
                read = text(sql.SQL("SELECT {} FROM {}").format(columns(on.readable), name(relation)))
                yield Program(relation.oid, "SELECT", first, read, way, severity=bad, passed_on=True)


def _values(
    arena: Arena, persona: Persona, tenant: Tenant, other: Tenant
) -> Iterator[tuple[str, tuple[str, ...], Severity]]:
    """(in words, the statements, how bad)"""
    listed = f"{tenant.key},{other.key}"
    for value in (listed, "{" + listed + "}"):
        yield "a context value that lists two tenants", acting(persona, value, tenant.user), "medium"
    forged = text(literal(other.key))
    edited = tuple(_EDITED.sub(lambda m: m[0].removesuffix(":tenant") + forged, one) for one in persona.statements)
    if edited != persona.statements:
        as_edited = acting(Persona(persona.name, edited), tenant.key, tenant.user)
        yield "user_metadata, which every user may edit,", as_edited, "critical"
    if any(f"'{_GIVEN}'" in one and ":tenant" in one for one in persona.statements):
        given = text(sql.SQL("SELECT set_config({}, {}, true)").format(literal(_GIVEN), literal(other.key)))
        yield f"{_GIVEN} in its connection string", (given,), "high"
    for setting in _lonely(arena):
        forged_there = tuple(
            one.replace(":tenant", forged) if f"'{setting}'" in one and "json" not in one else one  # no signed token
            for one in persona.statements
        )
        if forged_there != persona.statements:
            first = acting(Persona(persona.name, forged_there), tenant.key, tenant.user)
            yield f"{setting} alone, which no other table believes,", first, "critical"


def _lonely(arena: Arena) -> Iterator[str]:
    """Settings that the policies of one relation hold against rows where those of several hold another."""
    relations: dict[str, set[int]] = {}
    for policy in arena.catalog.policies:
        for which in ("using", "check"):
            predicate = policy_predicate(arena.catalog, policy, which)
            for part in walk(predicate) if predicate is not None else ():
                if isinstance(part, Setting):
                    relations.setdefault(part.name, set()).add(policy.relation)
    counted = Counter({setting: len(held) for setting, held in relations.items()})
    usual, most = next(iter(counted.most_common(1)), ("", 0))
    yield from (setting for setting, count in counted.items() if count == 1 and most > 1 and setting != usual)
