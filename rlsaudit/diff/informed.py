"""What BASE knew, for HEAD: a change that takes away what tenants were told by must not hide that they were there."""

from __future__ import annotations

from dataclasses import replace

from rlsaudit.catalog.relations import COMMANDS
from rlsaudit.diff.objects import Side
from rlsaudit.source.presets import platform
from rlsaudit.tenancy.infer import Declared, infer
from rlsaudit.tenancy.model import Tenancy


def informed(base: Side, head: Side, declared: Declared, preset: str) -> tuple[Tenancy, Declared]:
    """The tenancy of HEAD, inferred again where BASE had keys, roles or a context that HEAD alone does not show.

    The other one is what was declared for it, BASE's part included.
    """
    keys = tuple(key for key in base.tenancy.key_columns if key not in head.tenancy.key_columns and _column(head, key))
    known = {role.name for role in head.tenancy.roles}
    roles = tuple(one.name for one in base.tenancy.roles if one.name not in known and _may(base, head, one.name))
    lost = bool(base.tenancy.context.personas) and not head.tenancy.context.personas
    if not keys and not roles and not lost:
        return head.tenancy, declared
    more = replace(
        declared,
        keys=(*head.tenancy.key_columns, *keys),
        roles=(*(role.name for role in head.tenancy.roles), *roles),
        context=base.tenancy.context if lost and declared.context is None else declared.context,
    )
    more = platform.declared_with(preset, head.catalog, more)
    found, named = infer(head.catalog, more), set(more.roles)
    return replace(found, unmet=tuple(one for one in head.tenancy.unmet if one.name not in named)), more


def _column(head: Side, key: str) -> bool:
    return any(relation.column(key) is not None for relation in head.relations.values())


def _may(base: Side, head: Side, name: str) -> bool:
    """Whether the role may still touch what BASE took for tenant data."""
    role = head.catalog.role_named(name)
    places = (one for place, one in head.relations.items() if base.tenant_data(place))
    return role is not None and any(head.visibility.may(role.oid, one, c) for one in places for c in COMMANDS)
