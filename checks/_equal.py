"""What the conditions of one way make equal, and what is of the session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, bare, walk
from rlsaudit.catalog.outcome import Condition


@dataclass
class Equalities:
    """Classes of equal expressions."""

    parents: dict[Expression, Expression] = field(default_factory=dict)
    anchors: set[Expression] = field(default_factory=set)

    def find(self, one: Expression) -> Expression:
        while (above := self.parents.setdefault(one, one)) is not one:
            one = above
        return one

    def join(self, left: Expression, right: Expression, depth: int) -> None:
        left, right = bare(left), bare(right)
        for side in (left, right):
            if not any(isinstance(part, e.Column) and part.level <= depth for part in walk(side)):
                self.anchors.add(side)
        self.parents[self.find(left)] = self.find(right)

    def classes(self) -> dict[Expression, list[Expression]]:
        found: dict[Expression, list[Expression]] = {}
        for one in list(self.parents):
            found.setdefault(self.find(one), []).append(one)
        return found


def equated(condition: Condition) -> Iterator[tuple[Expression, Expression]]:
    """Pairs that are equal when the condition holds."""
    match condition.atom:
        case e.Compare(operator="=", exact=True) as one if condition.value is True:
            yield one.left, one.right
        case e.Distinct(exact=True) as one if condition.value is False:
            yield one.left, one.right
        case e.AnyArray(operator="=", any=True, exact=True) as one if condition.value is True:
            yield one.operand, one.array
        case e.InList(operator="=", any=True, exact=True) as one if condition.value is True and one.items:
            yield one.operand, one.items[0]
        case _:
            return


def of_session(part: Expression) -> bool:
    """Whether a value differs between sessions."""
    return any(
        isinstance(one, (e.Setting, e.SessionRole)) or (isinstance(one, e.Call) and one.user) for one in walk(part)
    ) or (isinstance(part, (e.Subquery, e.Opaque)))


def role_named(condition: Condition) -> str | None:
    """The name in ``current_user = 'name'``."""
    for left, right in equated(condition):
        for side, other in ((bare(left), bare(right)), (bare(right), bare(left))):
            if isinstance(other, e.Constant) and other.value and (isinstance(side, e.SessionRole) or _role_claim(side)):
                return other.value
    return None


def _role_claim(part: Expression) -> bool:
    """The role that PostgREST takes from the token and runs the request as."""
    match part:
        case e.Setting(name=name):
            return name == "request.jwt.claim.role"
        case e.Json(document=document, key=e.Constant(value="role")):
            return all(one.name == "request.jwt.claims" for one in walk(document) if isinstance(one, e.Setting))
        case e.Call(inlined=body) if body is not None:
            return _role_claim(body)
        case e.Coalesce(arguments=arguments):
            return all(_role_claim(one) for one in arguments)
        case e.NullIf(left=inner) | e.Cast(argument=inner):
            return _role_claim(inner)
        case e.Subquery(kind="scalar", relations=(), target=inner) if part.plain and inner is not None:
            return _role_claim(inner)
    return False
