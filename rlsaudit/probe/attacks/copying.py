"""COPY … FROM STDIN stores rows past every rewrite rule: where a rule alone looks whose row an INSERT brings, it sees none.

Row security that binds refuses COPY FROM altogether, and triggers fire as for INSERT, so rules are the difference.
Each program is tried in a superuser's transaction, as those of ``careless`` are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rlsaudit.probe.attacks.relation import target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.statement_text import Copy, acting, matching, name, said
from rlsaudit.tenancy.model import ApplicationRole


def copies(arena: Arena, role: ApplicationRole, shows: Callable[[Leak], bool]) -> Iterator[Leak]:
    """One leak for each relation with a rule on INSERT that takes another tenant's row so; ``shows`` tries a program."""
    persona = arena.tenancy.context.ordinary
    if persona is None:
        return
    tenant, other = arena.world.tenants[:2]
    ruled = {rule.relation for rule in arena.catalog.rules if rule.event == "INSERT"}
    for relation in (one for one in arena.relations() if one.oid in ruled and one.holds_rows):
        on = target(arena.catalog, arena.tenancy, arena.visibility, role.oid, relation)
        bound = arena.visibility.exempt(role.oid, relation) is None
        if bound or not (on.insertable and arena.tenancy.of(relation.oid).tenant_data):
            continue
        for row in arena.world.spare.get((relation.oid, other.key), ()):
            generated = {column.name for column in relation.columns if column.generated}
            given = {c: value for c, value in row.items() if c in on.insertable and c not in generated}
            leak = Leak(
                breaks="forge", relation=relation.oid, command="INSERT", role=role.name, actor=tenant.key,
                owner=other.key, channel="digest", visits=(Visit((Copy(relation, given),), commit=False),),
                context=acting(persona, tenant.key, tenant.user), changed=relation.oid, persona=persona.name,
                found=(said("DELETE FROM {} WHERE {}", name(relation), matching(relation, row, on.key)),),  # it may stand
            )  # fmt: skip
            if shows(leak):
                yield leak
                break
