"""Subqueries that a policy runs for every row."""

from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED
from rlsaudit.checks._fixes import several
from rlsaudit.checks._planner import indexed, once
from rlsaudit.checks._speed import Filter, filters, only, small

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check, quote

_MEMBERS = PROTECTED + (
    "CREATE TABLE members (tenant_id int NOT NULL, member text NOT NULL);\nGRANT SELECT ON members TO app;\n"
)
_POLICY = (
    "CREATE POLICY tenant ON invoices USING (EXISTS (SELECT FROM members m\n"
    "  WHERE m.tenant_id = invoices.tenant_id AND m.member = current_setting('app.user', true)));"
)


@check(
    "RLS606",
    title="A policy searches another table for every row",
    severity="low",
    rationale=(
        "A subquery that mentions the row is run for each row that the policy tests. With an index that starts with a"
        " column it compares that is a short lookup; without one the whole other table is read each time, so the cost"
        " grows with the product of both."
    ),
    standards=("ISO 27001 A.8.6", "NIST 800-53 SC-5", "CWE-405"),
    examples=(
        Example(setup=_MEMBERS, bad=_POLICY, good="CREATE INDEX ON members (member);\n" + _POLICY),
        Example(
            setup=_MEMBERS,
            bad=_POLICY,
            good=(
                "CREATE POLICY tenant ON invoices USING (tenant_id IN (SELECT m.tenant_id FROM members m\n"
                "  WHERE m.member = current_setting('app.user', true)));"
            ),
        ),
    ),
)
def subquery_per_row(subject: Subject) -> Iterator[Hit]:
    found: dict[tuple[int, tuple[str, ...]], dict[int, Filter]] = {}
    for one in filters(subject):
        for part in e.walk(one.predicate) if e.subquery_relations(one.predicate) else ():
            if isinstance(part, e.Subquery) and part.plain and not once(part):
                for inner, columns in _searched(subject, part):
                    found.setdefault((inner.oid, columns), {})[one.policy.oid] = one
    for (oid, columns), by_policy in found.items():
        inner, users = subject.catalog.relation(oid), by_policy.values()
        tables = several(one.relation.qualified for one in users)
        yield Hit(
            inner.qualified,
            f"{several(one.name for one in users)} look through {inner.qualified} for every row of {tables}, and no index of"
            f" {inner.qualified} starts with {' or '.join(map(quote, columns))}.",
            f"CREATE INDEX ON {inner.qualified} ({', '.join(map(quote, columns))});",
            relation=only(one.relation for one in users),
        )


def _searched(subject: Subject, subquery: e.Subquery) -> Iterator[tuple[Relation, tuple[str, ...]]]:
    """Tables of a correlated subquery that are read whole each time, with the columns that it compares."""
    given = tuple(dict.fromkeys(_given(subquery)))
    for oid in subquery.relations:
        inner = subject.catalog.find_relation(oid)
        if inner is None or not inner.holds_rows or inner.kind == "foreign table" or small(inner):
            continue
        columns = tuple(name for name in given if inner.column(name) is not None)
        if columns and not any(indexed(subject.catalog, inner, name) for name in columns):
            yield inner, columns


def _given(subquery: e.Subquery) -> Iterator[str]:
    """The subquery's own columns that must equal something: the row, the session, or a column it joins."""
    condition = subquery.condition
    parts = condition.arguments if isinstance(condition, e.And) else () if condition is None else (condition,)
    for part in (*parts, *(() if subquery.test is None else (subquery.test,))):
        if isinstance(part, (e.Compare)) and part.operator == "=":
            for side, other in ((part.left, part.right), (part.right, part.left)):
                if isinstance(side, e.Column) and side.query == subquery.query and not _same_row(side, other):
                    yield side.name


def _same_row(column: e.Column, other: Expression) -> bool:
    """Whether the other side is of the same table of the subquery."""
    return any(
        isinstance(part, e.Column) and (part.query, part.source) == (column.query, column.source)
        for part in e.walk(other)
    )
