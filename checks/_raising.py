"""What in a policy may raise an error that prints values of the row, and in which order the server evaluates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from rlsaudit.checks._apart import origins
from rlsaudit.checks._binding import Place
from rlsaudit.checks._order import binds

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, walk
from rlsaudit.catalog.policies import check_predicate

_TEXTS = frozenset({"text", "character varying", "character", "name"})
_FREE = frozenset({*_TEXTS, "citext", "bytea", "char", "unknown"})
"""Types that take any text."""
_WIDER = {"smallint": 1, "integer": 2, "bigint": 3, "numeric": 4, "double precision": 5}
_PARSERS = frozenset(
    "to_date to_timestamp to_number decode make_date make_time make_timestamp make_interval current_setting jsonb_path_query"
    " jsonb_path_exists regclassin xmlparse parse_ident".split()
)
_VALIDATORS = frozenset({"pg_input_is_valid", "jsonb_typeof", "json_typeof", "regexp_like", "starts_with"})
_PATTERNS = frozenset({"~", "~*", "!~", "!~*", "=", "<@"})
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_SAYS = re.compile(r"\braise\s+(?!debug|log)\w*\s*(?:'(?:[^']|'')*%|using\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Risk:
    """``columns`` of the row end up in an error message, by ``what``."""

    what: str
    columns: frozenset[str]


@lru_cache(maxsize=65536)
def could_raise(part: Expression) -> bool:
    """Whether there is anything in it at all that raises because of a row."""
    return any(
        (isinstance(one, e.Cast) and _may_fail(one) and e.depends_on_row(one))
        or (isinstance(one, e.Call) and (one.user or one.name in _PARSERS) and e.depends_on_row(one))
        for one in walk(part)
    )


def risks(part: Expression, place: Place) -> Iterator[Risk]:
    """What may raise before anything in the condition itself has told the row to be the session's."""
    match part:
        case e.And(arguments=arguments):
            for number, one in enumerate(arguments):
                before = arguments[:number]
                if any(binds(earlier, place) for earlier in before):
                    return
                yield from (risk for risk in risks(one, place) if not _validated(before, risk))
        case e.Case(branches=branches, default=default):
            yield from _case_risks(branches, default, place)
        case e.Call(inlined=body) if body is not None:
            yield from risks(body, place)
        case _:
            own = _own_risk(part, place)
            if own is not None and not _constrained(own, place):
                yield own
            for child in e.children(part):
                yield from risks(child, place)


def _case_risks(
    branches: tuple[tuple[Expression, Expression], ...], default: Expression, place: Place
) -> Iterator[Risk]:
    for condition, result in branches:
        yield from risks(condition, place)
        if not binds(condition, place):
            yield from (risk for risk in risks(result, place) if not _validated((condition,), risk))
    earlier = tuple(condition for condition, _ in branches)
    if not any(binds(e.Not(condition), place) for condition in earlier):
        yield from (risk for risk in risks(default, place) if not _validated(earlier, risk))


def _validated(conditions: tuple[Expression, ...], risk: Risk) -> bool:
    """Whether an earlier condition looks at what the column holds."""
    return any(_looks_at(part, risk.columns) for condition in conditions for part in walk(condition))


def _looks_at(part: Expression, columns: frozenset[str]) -> bool:
    if isinstance(part, e.Compare) and part.operator in _PATTERNS:
        return bool(e.columns(part) & columns) and not any(isinstance(one, e.Setting) for one in walk(part))
    if isinstance(part, e.InList):
        return bool(e.columns(part) & columns)
    return isinstance(part, e.Call) and part.name in _VALIDATORS and bool(e.columns(part) & columns)


def _own_risk(part: Expression, place: Place) -> Risk | None:
    if not e.depends_on_row(part):
        return None
    columns = e.columns(part)
    if isinstance(part, e.Cast):
        return Risk(f"a cast to {part.type}", columns) if _may_fail(part) else None
    if not isinstance(part, e.Call):
        return None
    if not part.user and part.name in _PARSERS:
        return Risk(f"{part.name}()", columns)
    function = place.catalog.function(part.function) if part.user else None
    if function is not None and part.inlined is None and _SAYS.search(_COMMENT.sub(" ", function.source)):
        return Risk(f"the function {function.qualified}()", columns)
    return None


def _may_fail(cast: e.Cast) -> bool:
    """Whether the row's text may be no value of the type."""
    if cast.argument.type not in _TEXTS or cast.type in _FREE:
        return False
    inner = cast.argument
    while isinstance(inner, e.Cast) and inner.type in _TEXTS:
        inner = inner.argument
    if inner.type == cast.type:
        return False
    narrower = inner.type in _WIDER and cast.type in _WIDER
    return not (narrower and _WIDER[inner.type] <= _WIDER[cast.type])


def _constrained(risk: Risk, place: Place) -> bool:
    """Whether constraints look at what every one of the columns holds."""
    return all(_column_constrained(name, place) for name in risk.columns)


def _column_constrained(name: str, place: Place) -> bool:
    column = place.relation.column(name)
    if column is None:
        return False
    for relation, one in origins(place.catalog, place.relation, column):
        if any("~" in text or "::" in text for text in one.domain_checks):
            return True
        for constraint in place.catalog.constraints_of(relation.oid):
            said = check_predicate(place.catalog, constraint) if constraint.validated else None
            if said is not None and one.name in e.columns(said):
                casts = any(isinstance(part, e.Cast) and _may_fail(part) for part in walk(said))
                if casts or any(_looks_at(part, frozenset({one.name})) for part in walk(said)):
                    return True
    return False
