"""A login role for every tenant or user: where policies hold columns against the role of the session."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from rlsaudit.catalog.expression import (
    AnyArray,
    Call,
    Cast,
    Coalesce,
    Column,
    Compare,
    Constant,
    Distinct,
    Expression,
    InList,
    SessionRole,
    children,
    walk,
)
from rlsaudit.catalog.model import COMMANDS, Catalog, Relation, Role
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.tenancy.keys import Keys, role_alone
from rlsaudit.tenancy.model import ApplicationRole, Context, Persona
from rlsaudit.tenancy.role_constants import common, constants, parts, spelled
from rlsaudit.tenancy.sources import ROLE, Reading, Source

MOST_TENANTS = 3
_PLACEHOLDER = re.compile(r":(tenant|user)\b")


def with_logins(catalog: Catalog, reading: Reading, keys: Keys, context: Context) -> Context:
    """``context`` with a login role in each persona, where that is how a session says for whom it acts."""
    template, why = _template(catalog, reading, keys)
    if not template:
        return context
    personas = context.personas or (Persona("tenant", ()),)
    return replace(
        context,
        personas=tuple(replace(persona, login=template) for persona in personas),
        direct=context.direct or Persona("tenant", ()),
        why=f"{why}: a login role for each ({template})" + (f"; {context.why}" if context.personas else ""),
    )


def filled(template: str, tenant: str, user: str) -> str:
    """The role name that a template gives for one tenant."""
    given = {"tenant": tenant, "user": user}
    return _PLACEHOLDER.sub(lambda found: given[found[1]], template)


def _template(catalog: Catalog, reading: Reading, keys: Keys) -> tuple[str, str]:
    """(template, why), or two empty strings where the role says nothing of the tenant."""
    if named_by := constants(catalog, reading)[1]:
        return common(named_by), f"policies bind one role each and hold {keys.names[0]} against a constant"
    role = Source(ROLE)
    if role in keys.tenant_sources and len(keys.tenant_sources) == 1:
        held, place, which = set(keys.names), ":tenant", "tenant"
    elif role in keys.user_sources and len(keys.user_sources) == 1 and not keys.tenant_sources and role_alone(reading):
        held, place, which = {u.column for u in reading.uses if u.source == role and u.column}, ":user", "user"
    else:
        return "", ""
    found = next(iter(sorted(_written(catalog, held, place))), place)
    return found, f"policies hold {', '.join(sorted(held))} against the session's role, which names the {which}"


def _written(catalog: Catalog, columns: Iterable[str], place: str) -> Iterator[str]:
    """How the role's name is made of a column's value: ``tenant_`` before it, say."""
    wanted = set(columns)
    for _, part in parts(catalog):
        for one, other in _pairs(part):
            if not any(isinstance(p, SessionRole) for p in walk(one)):
                continue
            if not any(isinstance(p, Column) and p.name in wanted for p in walk(other)):
                continue
            before, after = spelled(other, place), _around(one)
            if before is not None and after is not None and f"{after[0]}{before}{after[1]}" != place:
                yield f"{after[0]}{before}{after[1]}"


def _pairs(part: Expression) -> Iterator[tuple[Expression, Expression]]:
    match part:
        case Compare() | Distinct():
            yield part.left, part.right
            yield part.right, part.left
        case InList():
            yield from ((part.operand, item) for item in part.items)
        case AnyArray():
            yield part.array, part.operand
            yield part.operand, part.array
        case _:
            return


def _around(side: Expression) -> tuple[str, str] | None:
    """What to put before and after a value so that ``side``, made of the session's role, gives it back."""
    match side:
        case SessionRole():
            return "", ""
        case Cast():
            return _around(side.argument)
        case Call(
            name="replace" | "regexp_replace", arguments=(first, Constant(value=str() as cut), Constant(value=""))
        ):
            bare = cut.strip("^$")
            plain = bool(bare) and re.escape(bare) == bare.replace("-", "\\-")
            return (bare, "") if plain and _around(first) == ("", "") else None
        case Call(name="substr" | "substring", arguments=(first, Constant(value=str() as start))) if start.isdigit():
            return ("t" * (int(start) - 2) + "_", "") if int(start) > 1 and _around(first) == ("", "") else None
        case Call(name="split_part", arguments=(first, Constant(value=str() as mark), Constant(value="2"))):
            return (f"t{mark}", "") if _around(first) == ("", "") else None
        case Call(name="split_part", arguments=(first, Constant(value=str() as mark), Constant(value="1"))):
            return ("", f"{mark}t") if _around(first) == ("", "") else None
        case Call(name="lower" | "upper" | "btrim" | "quote_ident", arguments=(first,)):
            return _around(first)
        case Call() if side.inlined is not None:
            return _around(side.inlined)
        case Coalesce():
            return _around(next(iter(children(side))))
        case _:
            return None


def settle(
    catalog: Catalog,
    visibility: Visibility,
    keys: Keys,
    reading: Reading,
    template: str,
    roles: tuple[ApplicationRole, ...],
) -> tuple[tuple[ApplicationRole, ...], tuple[str, ...], tuple[str, ...]]:
    """(the application role that stands for all, keys of tenants that have a role in the schema, notes)."""
    if named_by := constants(catalog, reading)[1]:
        named = {name: value for value, name in named_by.items()}
        first = next((role for role in roles if role.name in named), None)
        if first is not None:
            keyed = (named[first.name], *(value for name, value in sorted(named.items()) if name != first.name))
            return (first,), keyed[:MOST_TENANTS], _said(roles, first, set(named))
    relations = [catalog.relation(oid) for oid in keys.columns]
    groups = [(role, _alike(catalog, visibility, relations, catalog.role(role.oid))) for role in roles]
    if not groups:
        return roles, (), ()
    first, alike = max(groups, key=lambda pair: len(pair[1]))
    names = [role.name for role in alike]
    pattern = re.compile("(.+)".join(re.escape(part) for part in _PLACEHOLDER.sub("\0", template).split("\0")))
    found = [
        match[1] for name in sorted(names, key=lambda n: (n != first.name, n)) if (match := pattern.fullmatch(name))
    ]
    existing = tuple(found[:MOST_TENANTS]) if ":tenant" in template and len(found) > 1 else ()
    return (first,), existing, _said(roles, first, set(names))


def _alike(catalog: Catalog, visibility: Visibility, relations: list[Relation], model: Role) -> list[Role]:
    """Login roles with the same privileges and the same policies on tenant relations as ``model``, itself among them."""

    def sight(role: Role) -> tuple[object, ...]:
        return (
            role.bypassrls,
            *((visibility.privileges(role.oid, one), visibility.owns(role.oid, one.owner)) for one in relations),
            *(visibility.policies(role.oid, one, command) for one in relations for command in COMMANDS),
        )

    wanted = sight(model)
    ordinary = [role for role in catalog.roles if role.login and not role.superuser and not role.predefined]
    return [role for role in ordinary if sight(role) == wanted] if model.login else []


def _said(roles: tuple[ApplicationRole, ...], first: ApplicationRole, alike: set[str]) -> tuple[str, ...]:
    same = sorted(role.name for role in roles if role.name in alike and role is not first)
    other = sorted(role.name for role in roles if role.name not in alike and role is not first)
    notes: tuple[str, ...] = ()
    if same:
        notes += (
            f"Each tenant logs in as a role of its own; {first.name} stands for {', '.join(same)}, which may do the same.",
        )
    if other:
        notes += (
            f"Each tenant logs in as a role of its own, with the privileges of {first.name}; these roles differ from it and were "
            f"not tested, name one with --role to test it: {', '.join(other)}.",
        )
    return notes
