"""Columns that say whether a membership, a share or an account still counts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import bare, walk
from rlsaudit.catalog.identifiers import literal, quote
from rlsaudit.catalog.policies import check_predicate
from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.check import Subject

_OVER = "revoked|removed|left|disabled|deactivated|suspended|banned|blocked|withdrawn|terminated|declined|rejected"
_GONE = "deleted|archived|cancell?ed|ended|closed|inactive"
_NOT_YET = "pending|invited|unconfirmed|unverified|requested|expired|former"
_WHEN = r"(?:_(?:at|on|date|time|ts|timestamp))?"
_REVOKED = re.compile(rf"(?:\w+_)?(?:is_)?(?:{_OVER}){_WHEN}\Z")
_ENDED = re.compile(rf"(?:\w+_)?(?:is_)?(?:{_GONE}){_WHEN}\Z")
_LIMIT = re.compile(
    rf"(?:\w+_)?(?:expire[sd]?|expiry|expiration|expiring){_WHEN}\Z|(?:\w+_)?(?:valid|active|access|granted)_(?:until|to|till|thru|through)\Z"
)
_PERIOD_END = re.compile(r"(?:end_date|ends_(?:at|on)|end_(?:at|on|time))\Z")
_IN_FORCE = re.compile(r"(?:is_|member_|membership_)?(?:active|enabled|accepted|confirmed|approved)(?:_at|_on)?\Z")
_STATUS = re.compile(r"(?:\w+_)?status\Z|(?:membership_|member_)?state\Z")
_NEGATIVE = re.compile(rf"(?:{_OVER}|{_GONE}|{_NOT_YET}|deactive|paused)\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class State:
    """A column, and the SQL that is true of rows that count."""

    column: str
    in_force: str


def states(subject: Subject, relation: Relation, *, narrow: bool) -> tuple[State, ...]:
    """State columns of the relation; ``narrow``: only those that can hardly mean the business of the row itself."""
    found = (_state(subject, relation, column, narrow) for column in relation.columns)
    return tuple(one for one in found if one is not None)


def _state(subject: Subject, relation: Relation, column: Column, narrow: bool) -> State | None:
    name, sql = column.name.lower(), quote(column.name)
    if column.generated:
        return None
    if column.category == "D":
        if _LIMIT.match(name) or (not narrow and _PERIOD_END.match(name)):
            return State(column.name, f"({sql} IS NULL OR {sql} > now())")
        if _REVOKED.match(name) or (not narrow and _ENDED.match(name)):
            return State(column.name, f"{sql} IS NULL")
        return State(column.name, f"{sql} IS NOT NULL") if _IN_FORCE.match(name) and not narrow else None
    if column.category == "B":
        if _IN_FORCE.match(name):
            return State(column.name, sql)
        over = _REVOKED.match(name) or name in ("expired", "is_expired", "pending", "is_pending")
        return State(column.name, f"NOT {sql}") if over or (not narrow and _ENDED.match(name)) else None
    if not _STATUS.match(name) or narrow:
        return None
    return _of_labels(sql, column, column.enum_labels or _listed(subject, relation, column))


def _of_labels(sql: str, column: Column, labels: tuple[str, ...]) -> State | None:
    if not labels:
        known = column.category == "S" and column.name.lower().endswith("status")
        return State(column.name, f"{sql} = 'active'") if known else None
    good = [label for label in labels if not _NEGATIVE.match(label)]
    if not good or len(good) == len(labels):
        return None
    return State(column.name, f"{sql} IN ({', '.join(map(literal, good))})")


def _listed(subject: Subject, relation: Relation, column: Column) -> tuple[str, ...]:
    """The values that a CHECK lists for the column."""
    for constraint in subject.catalog.constraints_of(relation.oid):
        predicate = check_predicate(subject.catalog, constraint) if constraint.kind == "check" else None
        for part in walk(predicate) if predicate is not None else ():
            if isinstance(part, e.InList) and part.any and isinstance(inner := bare(part.operand), e.Column):
                values = [item.value for item in part.items if isinstance(item, e.Constant) and item.value]
                if inner.name == column.name and len(values) == len(part.items):
                    return tuple(values)
    return ()
