"""A login role for every tenant or user: where policies hold columns against the role of the session."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace

from rlsaudit.catalog.cluster import Role
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
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS, Command, Relation
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


@dataclass(frozen=True, slots=True)
class Settled:
    """Which of the logins of tenants is tested, and what that says of the others."""

    roles: tuple[ApplicationRole, ...]
    """The one that stands for all that may do the same."""
    unmet: tuple[ApplicationRole, ...] = ()
    """One of each kind that it does not stand for."""
    keys: tuple[str, ...] = ()
    """Of tenants that have a role in the schema."""
    notes: tuple[str, ...] = ()


def settle(
    catalog: Catalog,
    visibility: Visibility,
    keys: Keys,
    reading: Reading,
    template: str,
    roles: tuple[ApplicationRole, ...],
) -> Settled:
    """One of ``roles`` for the logins of all tenants, where policies say the same for each."""
    relations = [catalog.relation(oid) for oid in keys.columns]
    named = {name: value for value, name in constants(catalog, reading)[1].items()}

    def sight(role: Role) -> Hashable:
        return _sight(catalog, visibility, relations, role, named.get(role.name, ""))

    ordinary = [role for role in catalog.roles if role.login and not role.superuser and not role.predefined]
    groups: dict[Hashable, list[str]] = {}
    for role in ordinary:
        groups.setdefault(sight(role), []).append(role.name)
    seen = {role.oid: sight(catalog.role(role.oid)) for role in roles}
    if not roles:
        return Settled(roles)
    bound = [role for role in roles if role.name in named] or roles
    first = max(bound, key=lambda role: len(groups.get(seen[role.oid], ())) if catalog.role(role.oid).login else 0)
    alike = set(groups.get(seen[first.oid], ())) if catalog.role(first.oid).login else set[str]()
    others = {seen[role.oid]: role for role in reversed(roles) if role is not first and role.name not in alike}
    unmet = tuple(role for role in roles if role in others.values())
    if named and first.name in named:
        keyed = (named[first.name], *(value for name, value in sorted(named.items()) if name != first.name))
        return Settled((first,), unmet, keyed[:MOST_TENANTS], _said(roles, first, alike))
    pattern = re.compile("(.+)".join(re.escape(part) for part in _PLACEHOLDER.sub("\0", template).split("\0")))
    found = [
        match[1] for name in sorted(alike, key=lambda n: (n != first.name, n)) if (match := pattern.fullmatch(name))
    ]
    existing = tuple(found[:MOST_TENANTS]) if ":tenant" in template and len(found) > 1 else ()
    return Settled((first,), unmet, existing, _said(roles, first, alike))


def _sight(catalog: Catalog, visibility: Visibility, relations: list[Relation], role: Role, value: str) -> Hashable:
    """The same for roles with the same privileges and the same conditions on tenant relations, and the same memberships.

    Each may have policies and values of settings of its own; what names its tenant, the constant ``value``, may differ.
    """
    constant = re.compile(rf"'?(?<!\w){re.escape(value)}(?!\w)'?") if value else None

    def condition(text: str | None) -> str:
        return constant.sub(":tenant", text or "") if constant else text or ""

    def conditions(relation: Relation, command: Command) -> Hashable:
        applied = visibility.policies(role.oid, relation, command)
        return tuple(sorted((one.permissive, condition(one.using), condition(one.check)) for one in applied))

    return (
        role.bypassrls,
        visibility.becomes(role.oid) - {role.oid},
        frozenset(one.name for one in catalog.settings if one.role == role.oid),
        *((visibility.privileges(role.oid, one), visibility.owns(role.oid, one.owner)) for one in relations),
        *(conditions(one, command) for one in relations for command in COMMANDS),
    )


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
            f"not tested, name one alone with --role to test it: {', '.join(other)}.",
        )
    return notes
