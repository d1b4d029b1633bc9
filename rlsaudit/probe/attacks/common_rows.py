"""Tables that all tenants share, and that one tenant's session may change for all of them: one writes, another reads.

Each program is tried in a superuser's transaction, as those of ``careless`` are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

from psycopg import sql

from rlsaudit.catalog.expression import Call, Opaque, SessionRole, Setting, Subquery, walk
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.outcome import ways
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.relations import Column, Command, Policy, Relation
from rlsaudit.probe.attacks.relation import Target, target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.statement_text import acting, insert, literal, matching, name, said
from rlsaudit.probe.ground.world import SHARED, Row
from rlsaudit.probe.seeding import values
from rlsaudit.tenancy import words
from rlsaudit.tenancy.model import ApplicationRole

_SEEN = "changed by another tenant"
_TRIED = 4
"""Columns, values of each and rows that are tried one by one."""
_EACH, _MOST = 24, 400
"""Programs tried for one command on one relation, and for one role."""
_ASKED = (Setting, SessionRole, Call, Subquery, Opaque)
"""What a policy asks of the session, or may."""

Shows = Callable[[Leak], bool]
_Make = Callable[[Arena, Target, Leak, tuple[str, ...], Shows], Leak | None]


def changes(arena: Arena, role: ApplicationRole, shows: Shows) -> Iterator[Leak]:
    """One leak for each command by which a tenant changes what another reads there; ``shows`` tries a program."""
    persona = arena.tenancy.context.ordinary
    if persona is None or not any(one.kind == "tenant" for one in arena.tenancy.relations.values()):
        return
    tenant, other = arena.world.tenants[:2]
    decisive, tried = _decisive(arena.catalog), count(1)
    for relation in arena.relations():
        shared = arena.tenancy.of(relation.oid).kind in ("unclassified", "global") and relation.holds_rows
        on = target(arena.catalog, arena.tenancy, arena.visibility, role.oid, relation)
        if not (shared and on.readable) or relation.is_partition or relation.oid in decisive:
            continue
        if words.passing(relation.name):
            continue
        needed = {relation.oid, *_referred(arena.catalog, relation)}
        leak = Leak(
            breaks="write", relation=relation.oid, command="INSERT", role=role.name, actor=tenant.key, owner=SHARED,
            channel="rows", visits=(), context=acting(persona, tenant.key, tenant.user), mark=_SEEN,
            changed=relation.oid, persona=persona.name, without=frozenset(arena.tenancy.relations) - needed,
        )  # fmt: skip
        within = _within(shows, tried)
        yield from _changed(arena, on, role, leak, acting(persona, other.key, other.user), within)


def _within(shows: Shows, tried: Iterator[int]) -> Shows:
    """``shows``, until it was asked too often."""
    each: Counter[str] = Counter()

    def asked(leak: Leak) -> bool:
        each[leak.command] += 1
        return each[leak.command] <= _EACH and next(tried) <= _MOST and shows(leak)

    return asked


def _changed(
    arena: Arena, on: Target, role: ApplicationRole, leak: Leak, then: tuple[str, ...], shows: Shows
) -> Iterator[Leak]:
    standing: tuple[tuple[Command, _Make], ...] = (("UPDATE", _updated), ("DELETE", _deleted))
    found = [
        one
        for command, make in standing
        if _free(arena, role, on.relation, command) and (one := make(arena, on, leak, then, shows)) is not None
    ]
    yield from found
    free = on.insertable and _free(arena, role, on.relation, "INSERT")
    if (one := _inserted(arena, on, leak, then, shows) if free else None) is not None:
        yield one if found else replace(one, severity="medium")


def _standing(arena: Arena, on: Target) -> Iterator[tuple[Row, tuple[str, ...], str]]:
    """(row, what makes it, a condition that picks it): one of our own, then whatever the schema brings along."""
    for row in _rows(arena, on, 0):
        key = [column for column in on.key if row.get(column) is not None and column in on.readable]
        where = said(" WHERE {}", matching(on.relation, row, key)) if key else ""
        yield row, (said("{}", insert(on.relation, row)),), where
    yield {}, (), ""


def _updated(arena: Arena, on: Target, leak: Leak, then: tuple[str, ...], shows: Shows) -> Leak | None:
    """The plain columns first."""
    columns = [c for c in on.relation.columns if c.name in on.updatable and c.name in on.readable and not c.generated]
    columns.sort(key=lambda one: one.name in (*on.key, *on.unique))
    for column in columns[:_TRIED]:
        for value in _values(arena, on, column, 1)[:_TRIED]:
            change = said("UPDATE {} SET {} = {}", name(on.relation), sql.Identifier(column.name), literal(value))
            for row, there, where in _standing(arena, on):
                one = _read_again(leak, "UPDATE", change + where, there, _looking(on, column.name, value), then)
                if value != row.get(column.name) and _by_the_write(one, then, shows):
                    return one
    return None


def _inserted(arena: Arena, on: Target, leak: Leak, then: tuple[str, ...], shows: Shows) -> Leak | None:
    for row in _rows(arena, on, 1):
        fresh = {column: value for column, value in row.items() if column in on.insertable}
        put = said("{}", insert(on.relation, fresh))
        for column in [c for c, value in fresh.items() if c in on.readable and value is not None][:_TRIED]:
            one = _read_again(leak, "INSERT", put, (), _looking(on, column, fresh[column]), then)
            if _by_the_write(one, then, shows):
                return one
    return None


def _deleted(arena: Arena, on: Target, leak: Leak, then: tuple[str, ...], shows: Shows) -> Leak | None:
    for _, there, where in _standing(arena, on) if on.deletable else ():
        visit = Visit((said("DELETE FROM {}", name(on.relation)) + where,), commit=False)
        one = replace(leak, command="DELETE", channel="digest", visits=(visit,), found=there, mark="")
        if shows(one):
            return one
    return None


def _read_again(
    leak: Leak, command: Command, write: str, there: tuple[str, ...], read: str, then: tuple[str, ...]
) -> Leak:  # fmt: skip
    return replace(leak, command=command, visits=(Visit((write, *then, read), commit=False),), found=there)


def _by_the_write(leak: Leak, then: tuple[str, ...], shows: Shows) -> bool:
    """What shows without the write as well was there before."""
    idle = replace(leak, visits=(Visit((*then, leak.statement), commit=False),))
    return shows(leak) and not shows(idle)


def _looking(on: Target, column: str, value: str | None) -> str:
    return said(
        "SELECT {} AS seen FROM {} WHERE {} = {}",
        sql.Literal(_SEEN), name(on.relation), sql.Identifier(column), literal(value),
    )  # fmt: skip


def _rows(arena: Arena, on: Target, band: int) -> Iterator[dict[str, str | None]]:
    """Rows that the server may take: what must be given, each with other values where there are several."""
    needed = [c for c in on.relation.columns if (c.not_null or c.name in on.key) and not (c.identity or c.generated)]
    given = {c.name: _values(arena, on, c, band) for c in needed if c.default is None or c.name in on.key}
    for turn in range(_TRIED if any(len(found) > 1 for found in given.values()) else 1):
        yield {column: found[turn % len(found)] for column, found in given.items() if found}


def _values(arena: Arena, on: Target, column: Column, band: int) -> tuple[str, ...]:
    """What a CHECK on the column names comes first."""
    checks = [
        c for c in arena.catalog.constraints_of(on.relation.oid) if c.kind == "check" and column.number in c.columns
    ]
    mined = values.mine(" ".join(one.expression or "" for one in checks))
    turned = (*mined[band:], *mined[:band])
    return tuple(dict.fromkeys((*turned, *values.candidates(column, band, band + 1))))


def _referred(catalog: Catalog, relation: Relation) -> set[int]:
    """Relations that rows of this one refer to, and those that these refer to in turn."""
    found: set[int] = set()
    queue = [relation.oid]
    while queue:
        near = {one.referenced for one in catalog.foreign_keys_of(queue.pop())} - found
        found |= near
        queue += near
    return found


def _free(arena: Arena, role: ApplicationRole, relation: Relation, command: Command) -> bool:
    """Whether nothing asks whose session it is: no policy binds, or one lets everybody's through."""
    known = arena.catalog.role(role.oid)
    if known.superuser or known.bypassrls:
        return False  # that is the role's doing, and told as such
    if arena.visibility.exempt(role.oid, relation) is not None:
        return True
    policies = arena.visibility.policies(role.oid, relation, command)
    return all(policy.permissive for policy in policies) and any(
        _asks_nothing(arena.catalog, policy, command) for policy in policies
    )


def _asks_nothing(catalog: Catalog, policy: Policy, command: Command) -> bool:
    predicate = policy_predicate(catalog, policy, "check") if command == "INSERT" else None
    predicate = predicate or policy_predicate(catalog, policy, "using")
    return predicate is not None and any(
        not any(isinstance(part, _ASKED) for condition in way for part in walk(condition.atom))
        for way in ways(predicate) or ()
    )


def _decisive(catalog: Catalog) -> set[int]:
    """Relations that policies look into: what a change there opens is seen elsewhere."""
    found: set[int] = set()
    for policy in catalog.policies:
        found |= {oid for oid in catalog.mentions("policy", policy.oid, "relation") if oid != policy.relation}
        for function in catalog.mentions("policy", policy.oid, "function"):
            found |= {*catalog.mentions("function", function, "relation")}
    return found
