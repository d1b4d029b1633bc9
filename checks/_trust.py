"""The relations that a policy reads to decide, and which of their columns decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rlsaudit.checks._trust_text import read_in_function

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, bare, walk
from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Subject, kept


@dataclass(frozen=True, slots=True)
class Trusted:
    """One relation read by a condition."""

    relation: int
    links: frozenset[str]
    """Columns that say which rows of the policy's own relation are meant, directly or by way of other relations read."""
    anchors: frozenset[str]
    """Columns held against the session."""
    tests: frozenset[str]
    """Other columns that the condition looks at."""
    function: int = 0
    """The function that reads it, 0 for the policy itself."""
    tied: frozenset[str] = frozenset()
    """Columns of the policy's own relation that the condition holds against the session whatever the rows read say."""


@kept
def _kept_answers(subject: Subject) -> dict[Expression, tuple[tuple[int, ...], tuple[Trusted, ...]]]:
    """By the model of a condition: the relations that one of its copies reads, and what that one trusts."""
    return {}


def trusted(subject: Subject, atom: Expression) -> tuple[Trusted, ...]:
    """What the condition reads, in its subqueries and in the functions that it calls."""
    known, model, here = _kept_answers(subject), e.model(atom), e.relations_read(atom)
    if model not in known:
        known[model] = here, (*_in_subqueries(subject, atom), *_in_functions(subject, atom))
    there, found = known[model]
    if not found or here == there:
        return found
    moved = dict(zip(there, here, strict=True))
    return tuple(
        [one if one.function else replace(one, relation=moved.get(one.relation, one.relation)) for one in found]
    )


def _in_functions(subject: Subject, atom: Expression) -> Iterator[Trusted]:
    """What functions read whose bodies are text: by names, so with less certainty."""
    called = {part.function for part in walk(atom) if isinstance(part, e.Call) and part.user and part.inlined is None}
    for function in sorted(called):
        for one in read_in_function(subject, function):
            yield Trusted(one.relation, one.links, one.anchors, one.tests, function)


Row = tuple[int, int]
"""Query and range table index."""


def _in_subqueries(subject: Subject, atom: Expression) -> Iterator[Trusted]:
    subqueries = {part.query: part for part in walk(atom) if isinstance(part, e.Subquery) and part.relations}
    if not subqueries:
        return
    columns = [part for part in walk(atom) if isinstance(part, e.Column) and part.level > 0]
    rows: dict[Row, Relation] = {}
    for column in columns:
        subquery = subqueries.get(column.query)
        relation = _relation_of(subject, column, subquery) if subquery else None
        if relation is not None:
            rows[column.query, column.source] = relation
    classes = _classes(atom)
    aims = {part.target for part in subqueries.values() if part.kind in ("exists", "any") and part.target is not None}
    tied = frozenset(
        one.name
        for members in classes
        if any(of_session(member) for member in members)
        for one in members
        if isinstance(one, e.Column) and one.level == 0
    )
    looked_at = {part for part in _inside(atom, aims) if isinstance(part, e.Column)}
    for row, relation in rows.items():
        own = {column for column in columns if (column.query, column.source) == row}
        links: set[str] = set()
        anchors: set[str] = set()
        for members in classes:
            mine = [column.name for column in own if column in members]
            if any(of_session(one) for one in members):
                anchors.update(mine)
            elif any(isinstance(one, e.Column) and (one.query, one.source) != row for one in members):
                links.update(mine)
        tests = {column.name for column in own & looked_at} - links - anchors
        yield Trusted(relation.oid, frozenset(links), frozenset(anchors), frozenset(tests), tied=tied)
    seen = {relation.oid for relation in rows.values()}
    for subquery in subqueries.values():
        for oid in subquery.relations:
            if oid not in seen and not subquery.plain:
                yield Trusted(oid, frozenset(), frozenset(), frozenset())


def _relation_of(subject: Subject, column: e.Column, subquery: e.Subquery) -> Relation | None:
    for oid in subquery.relations:
        relation = subject.catalog.find_relation(oid)
        found = relation.column(column.name) if relation else None
        if relation is not None and found is not None and found.number == column.number:
            return relation
    return None


def _inside(part: Expression, left_out: set[Expression]) -> Iterator[Expression]:
    """Every part, select lists that decide nothing left out."""
    yield part
    for child in e.children(part):
        if not (isinstance(part, e.Subquery) and child in left_out and child is part.target):
            yield from _inside(child, left_out)


def of_session(part: Expression) -> bool:
    """Whether a value is the session's and no row's."""
    parts = tuple(walk(part))
    return any(
        isinstance(one, (e.Setting, e.SessionRole)) or (isinstance(one, e.Call) and one.user) for one in parts
    ) and not any(isinstance(one, e.Column) for one in parts)


def _classes(atom: Expression) -> list[set[Expression]]:
    """Expressions that the condition holds equal, anywhere in it."""
    found: list[set[Expression]] = []
    for part in walk(atom):
        for left, right in _equated(part):
            pair = {_value(left), _value(right)}
            touched = [members for members in found if members & pair]
            found = [members for members in found if not members & pair]
            found.append(pair.union(*touched))
    return found


def _equated(part: Expression) -> Iterator[tuple[Expression, Expression]]:
    match part:
        case e.Compare(operator="="):
            yield part.left, part.right
        case e.Distinct():
            yield part.left, part.right
        case e.AnyArray(operator="=", any=True):
            yield part.operand, part.array
        case e.InList(operator="=", any=True):
            yield from ((part.operand, item) for item in part.items)
        case _:
            return


def _value(part: Expression) -> Expression:
    """Of a subquery that gives a value, what it selects."""
    part = bare(part)
    if isinstance(part, (e.Cast, e.Coalesce, e.NullIf)):
        inner = [one for one in walk(part) if isinstance(one, e.Subquery) and one.target is not None]
        part = inner[0] if len(inner) == 1 else part
    if isinstance(part, e.Subquery) and part.kind in ("scalar", "array") and part.target is not None:
        return bare(part.target)
    return part
