"""Ways through a policy by the acting user's own name: the tenant that a user owns, and its memberships, are its to see."""

from __future__ import annotations

import re
from collections.abc import Callable

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation
from rlsaudit.prove.tables import NOTHING
from rlsaudit.tenancy.model import Classified
from rlsaudit.tenancy.people import one_for_each

_OWNER = re.compile(
    r"((primary|account|org(anization|anisation)?|team|tenant|workspace|company|business|shop|store|project)_)?"
    r"(owner|founder|creator|owned_by|created_by)(_(id|uid|uuid|user|profile))*"
)
"""Not a former one, or one to be."""
Own = Callable[[e.Column, Expression], bool]
"""Whether a column that is equal to something makes the row the acting user's own."""


def without_own(predicate: Expression, own: Own) -> Expression:
    """The predicate with every such equality taken for false that can only add rows: not under NOT or CASE."""
    match predicate:
        case e.And(parts):
            return e.And(tuple(without_own(part, own) for part in parts))
        case e.Or(parts):
            return e.Or(tuple(without_own(part, own) for part in parts))
        case e.Compare(operator="=", exact=True):
            for here, there in ((predicate.left, predicate.right), (predicate.right, predicate.left)):
                column = e.bare(here)
                if isinstance(column, e.Column) and column.level == 0 and own(column, there):
                    return NOTHING
    return predicate


def ties(catalog: Catalog, relation: Relation, classified: Classified, column: e.Column) -> bool:
    """Whether the column says to which tenants a user belongs: the owner in the list of tenants, or a member where there
    is one row for each tenant and user."""
    if classified.kind == "registry":
        return bool(_OWNER.fullmatch(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.name).lower()))
    key = "" if classified.path else classified.key or ""
    return classified.kind == "membership" and one_for_each(catalog, relation, key, column.name)


def names_user(expression: Expression) -> bool:
    """Whether it is what the session says of itself, and nothing made of that: a setting, a claim in one, no lookup."""
    match expression:
        case e.Setting():
            return True
        case e.Cast(argument=inner) | e.Json(document=inner) | e.NullIf(left=inner):
            return names_user(inner)
        case e.Coalesce(arguments=arguments):
            return all(names_user(one) for one in arguments)
        case e.Call(inlined=body) if body is not None:
            return names_user(body)
        case e.Subquery(kind="scalar", relations=(), condition=None, target=target, plain=True) if target is not None:
            return names_user(target)
    return False
