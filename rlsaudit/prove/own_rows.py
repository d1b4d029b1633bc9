"""Ways through a policy by the acting user's own name: what ties a user to tenants is the user's to see."""

from __future__ import annotations

from collections.abc import Callable

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.prove.tables import NOTHING

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
