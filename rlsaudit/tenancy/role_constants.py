"""Policies that bind one role each and hold a column against one constant each: a tenant's role, and its key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from rlsaudit.catalog.expression import Call, Cast, Column, Compare, Constant, Expression, walk
from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.tenancy.sources import Reading


def constants(catalog: Catalog, reading: Reading) -> tuple[str, dict[str, str]]:
    """(column, constant → the role whose policies hold the column against it); empty where a session brings values."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for roles, part in parts(catalog) if not reading.sources else ():
        if len(roles) != 1 or PUBLIC in roles or not isinstance(part, Compare):
            continue
        for one, other in ((part.left, part.right), (part.right, part.left)):
            value = spelled(other, "")
            columns = [p.name for p in walk(one) if isinstance(p, Column)]
            if value and spelled(one, ":") == ":" and len(columns) == 1:
                found[columns[0]][value].add(catalog.role_name(roles[0]))
    for column, values in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        single = {value: next(iter(names)) for value, names in values.items() if len(names) == 1}
        if len(single) == len(values) == len(set(single.values())) > 1 and common(single):
            return column, single
    return "", {}


def common(constants: dict[str, str]) -> str:
    """The template that gives every role from its constant; empty where there is none."""
    templates = {role.replace(value, ":tenant", 1) if value in role else "" for value, role in constants.items()}
    return next(iter(templates)) if len(templates) == 1 else ""


def spelled(side: Expression, place: str) -> str | None:
    """Text made of constants and one column; None for anything else."""
    match side:
        case Column():
            return place
        case Constant(value=str() as value):
            return value
        case Cast():
            return spelled(side.argument, place)
        case Call(name="||" | "textcat" | "concat"):
            parts = [spelled(argument, place) for argument in side.arguments]
            return None if None in parts else "".join(part or "" for part in parts)
        case _:
            return None


def parts(catalog: Catalog) -> Iterator[tuple[tuple[int, ...], Expression]]:
    """(roles of the policy, part of its predicate) of every policy."""
    for policy in catalog.policies:
        for which in ("using", "check"):
            predicate = policy_predicate(catalog, policy, which)
            yield from ((policy.roles, part) for part in walk(predicate)) if predicate is not None else ()
