"""In which order the server evaluates the conditions of the policies that apply together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlsaudit.checks._apart import conjuncts
from rlsaudit.checks._binding import Place, reach

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.outcome import ways
from rlsaudit.catalog.relations import Policy
from rlsaudit.catalog.simplify import FALSE, simplify

_TEXTS = frozenset({"text", "character varying", "character", "name"})
_SUBPLAN = (100.0, 1e9)
_LEAKPROOF = frozenset(
    {"uuid", "text", "character varying", "character", "name", "boolean", "date", "smallint", "integer", "bigint"}
)
_CHEAP = 10


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition that the server evaluates as a whole; those of a lower level come first, then the cheaper ones."""

    policy: Policy
    condition: Expression
    level: int
    low: float
    high: float
    binds: bool
    position: int

    def before(self, other: Clause) -> bool | None:
        """Whether it is evaluated before the other one; None when the plan decides."""
        if self.level != other.level:
            return self.level < other.level
        if self.high < other.low or self.low > other.high:
            return self.high < other.low
        if self.low == self.high == other.low == other.high:
            return self.position < other.position
        return None


def clauses(policies: list[tuple[Policy, Expression]], place: Place) -> tuple[Clause, ...]:
    """The conditions of all policies that apply together: restrictive ones by name, each a security level of its own,
    then the permissive ones, which are one condition when they are several."""
    restrictive = sorted((one for one in policies if not one[0].permissive), key=lambda one: one[0].name)
    permissive = [one for one in policies if one[0].permissive]
    parts = [(policy, part, level) for level, (policy, whole) in enumerate(restrictive) for part in _flat(whole)]
    last = len(restrictive)
    if len(permissive) == 1:
        parts += [(permissive[0][0], part, last) for part in _flat(permissive[0][1])]
    else:
        parts += [(policy, whole, last) for policy, whole in permissive]
    found = []
    for position, (policy, part, level) in enumerate(parts):
        low, high = cost(part, place)
        early = len(permissive) < 2 and high < _CHEAP and _leakproof(part)
        # The planner takes equalities out and puts them back behind the rest.
        behind = len(parts) if isinstance(part, e.Compare) and part.operator == "=" and part.exact else 0
        found.append(Clause(policy, part, 0 if early else level, low, high, binds(part, place), position + behind))
    return tuple(found)


def _flat(part: Expression) -> Iterator[Expression]:
    """The conditions of an AND, also of one that is all that is left of an OR."""
    for one in conjuncts(part):
        left = [arm for arm in one.arguments if simplify(arm) != FALSE] if isinstance(one, e.Or) else []
        if len(left) == 1:
            yield from _flat(left[0])
        else:
            yield one


def binds(condition: Expression, place: Place) -> bool:
    """Whether the condition is true for rows of the session's tenant only."""
    found = ways(condition)
    return bool(found) and all(reach(way, place).kind == "tenant" for way in found or ())


def _leakproof(part: Expression) -> bool:
    """An equality of a plain column with a value of the session, of a type whose equality is leakproof."""
    if not isinstance(part, e.Compare) or part.operator != "=" or not part.exact:
        return False
    sides = (part.left, part.right)
    return any(
        isinstance(e.bare(side), e.Column) and side.type in _LEAKPROOF and not e.depends_on_row(other)
        for side, other in (sides, sides[::-1])
    )


def cost(part: Expression, place: Place) -> tuple[float, float]:
    """What the planner takes one evaluation for, in calls of a cheap operator: at least and at most."""
    own, inside = _own_cost(part, place)
    total = [own[0], own[1]]
    for child in inside:
        low, high = cost(child, place)
        total[0] += low
        total[1] += high
    return total[0], total[1]


def _own_cost(part: Expression, place: Place) -> tuple[tuple[float, float], tuple[Expression, ...]]:
    children = tuple(e.children(part))
    match part:
        case e.Compare() | e.Distinct() | e.NullIf() | e.Json() | e.Setting() | e.SessionRole():
            return (1, 1), children
        case e.Cast(argument=inner):
            through_text = (inner.type in _TEXTS) != (part.type in _TEXTS)
            same = inner.type == part.type or (inner.type in _TEXTS and part.type in _TEXTS)
            return ((2, 2) if through_text else (0, 0) if same else (1, 2)), children
        case e.AnyArray():
            return (0.5, 50), children
        case e.InList(items=items):
            return (0.5 * len(items), len(items)), children
        case e.Call():
            return _call_cost(part, place)
        case e.Subquery():
            inside = [one for one in (part.condition, part.target, *part.parts) if one is not None]
            if any(e.depends_on_row(one) for one in inside):
                return _SUBPLAN, ()
            # Computed once; IN looks its value up in a hash table.
            return ((1, 3) if part.kind in ("any", "all") else (0, 0)), ()
        case e.Opaque():
            return (0, 10), children
    return (0, 0), children


def _call_cost(part: e.Call, place: Place) -> tuple[tuple[float, float], tuple[Expression, ...]]:
    symbol = place.catalog.symbol_functions.get(part.function)
    own = symbol.cost if symbol is not None else 1.0
    function = place.catalog.function(part.function) if part.user else None
    if part.inlined is None or function is None:
        return (own, own), part.arguments
    opened = function.language == "sql" and not (function.security_definer or function.settings or function.strict)
    if opened:
        return (0, 0), (part.inlined,)
    return (own, own), part.arguments
