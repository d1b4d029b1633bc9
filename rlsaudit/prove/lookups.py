"""Rows that are looked up: witnesses of subqueries, rows behind foreign keys, and what their keys say of them.

A subquery that is true has a witness: rows for which its condition holds and which the policies of their relations
show.  Nothing is known of one that is false, except when a violation is looked for without opaque parts: then no row
may exist beside those that the violation needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, depends_on_row, outer_queries
from rlsaudit.prove import smt
from rlsaudit.prove.smt import FALSE, TRUE, Term
from rlsaudit.prove.tables import Key, Table
from rlsaudit.prove.values import Row, Value, kind_of, sort_of

if TYPE_CHECKING:
    from rlsaudit.prove.encode import Encoder


@dataclass(frozen=True, slots=True)
class Witness:
    """Rows that make a subquery true while ``active``."""

    root: str
    """The row under test that it was evaluated for; empty when that does not matter."""
    labels: tuple[tuple[str, int], ...]
    """Label of each row, with its relation."""
    active: Term


def subquery(encoder: Encoder, part: e.Subquery, row: Row) -> Value:
    kind = kind_of(part.type)
    if not part.plain or part.kind in ("all", "array"):
        return encoder.unknown("a subquery", kind)
    if not part.relations:
        return _without_relations(encoder, part, row, kind)
    encoder.fresh_count += 1
    label = f"witness {encoder.fresh_count}"
    inner = Row(row.label, (*row.witnesses, (part.query, label)))
    rows = tuple((f"{label}.{source}", oid) for source, oid in part.tables)
    encoder.relations.update(rows)
    root = encoder.roots.get(row.label, row.label) if depends_on_row(part) or outer_queries(part) else ""
    encoder.roots.update((one, root) for one, _ in rows)
    result = _result(encoder, part, kind)
    premise = result.is_known if part.kind == "scalar" else result.is_true
    encoder.witnesses.append(Witness(root, rows, premise))
    conclusions = [encoder.condition(x, inner).is_true for x in (part.condition, part.test) if x is not None]
    if part.kind == "scalar" and part.target is not None:
        target = encoder.encode(part.target, inner)
        conclusions.append(target.is_known)
        if target.kind == kind:
            conclusions.append(smt.equal(target.value, result.value))
    for one, oid in rows:
        conclusions += _shown(encoder, one, oid, part.definer)
    encoder.constraints.append(smt.implication(premise, smt.conjunction(conclusions)))
    return result


def _result(encoder: Encoder, part: e.Subquery, kind: str) -> Value:
    possible = all(oid in encoder.tables and encoder.tables[oid].rows for _, oid in part.tables)
    if encoder.opaque == "error" and possible:
        value = encoder.fresh(kind)
        null = encoder.fresh("boolean") if part.kind == "scalar" else FALSE
        if part.kind == "scalar":
            return Value(FALSE, null, value, kind)
        return Value(FALSE, FALSE, value, kind)
    result = encoder.unknown("a subquery", kind)
    return replace(result, null=FALSE) if part.kind == "exists" and encoder.opaque == "any" else result


def _shown(encoder: Encoder, label: str, oid: int, definer: bool) -> Iterator[Term]:
    """That the policies of the relation show the row."""
    table = encoder.tables.get(oid)
    if table is None or table.visible is None or definer:
        return
    if oid in encoder.reading:
        # The server refuses policies that read each other; a violation must not rest on what it would say.
        if encoder.opaque == "error":
            yield FALSE
        return
    encoder.reading.append(oid)
    yield encoder.condition(table.visible, Row(label)).is_true
    encoder.reading.pop()


def _without_relations(encoder: Encoder, part: e.Subquery, row: Row, kind: str) -> Value:
    """``(SELECT expression WHERE condition)``: one row or none."""
    condition = None if part.condition is None else encoder.condition(part.condition, row)
    met, failed = (TRUE, FALSE) if condition is None else (condition.is_true, condition.error)
    match part.kind:
        case "exists":
            return Value(failed, FALSE, met, kind)
        case "scalar" if part.target is not None:
            value = encoder.encode(part.target, row)
            empty = smt.conjunction([smt.negation(failed), smt.negation(met)])
            error = smt.disjunction([failed, smt.conjunction([met, value.error])])
            return Value(error, smt.disjunction([empty, value.null]), value.value, value.kind)
        case "any" if part.test is not None and part.condition is None:
            return encoder.encode(part.test, row)
    return encoder.unknown("a subquery", kind)


def tenant(encoder: Encoder, key: Key, row: Row) -> Value:
    """The tenant of a row: its own key, or that of the row its foreign keys lead to."""
    missing: list[Term] = []
    for number, hop in enumerate(key.hops, 1):
        there = Row(f"{row.label.split(' parent')[0]} parent {number}")
        encoder.relations[there.label] = hop.relation
        for ours, theirs in zip(hop.columns, hop.unique, strict=True):
            here, found = encoder.column(ours, row), encoder.column(theirs, there)
            missing.append(here.null)
            same = smt.conjunction([smt.negation(found.null), smt.equal(here.value, found.value)])
            encoder.constraints.append(smt.disjunction([here.null, same]))
        row = there
    value = encoder.column(key.column, row)
    return replace(value, null=smt.disjunction([*missing, value.null]))


def _at(relation: int, unique: tuple[int, ...], by: list[Value], column: e.Column) -> Value:
    """A column of the row of ``relation`` whose unique key has these values; NULL where one of them is."""
    kind, arguments = kind_of(column.type), [value.value for value in by]
    name = f"{relation} by {unique} {column.number}"
    null = FALSE if column.not_null else smt.function(f"{name} is null", "Bool", *arguments)
    missing = smt.disjunction(value.null for value in by)
    return Value(FALSE, smt.disjunction([missing, null]), smt.function(name, sort_of(kind), *arguments), kind)


def facts(encoder: Encoder) -> Iterator[Term]:
    """What unique and foreign keys say of all rows in the question, and which rows there may be."""
    if encoder.tables:
        yield from _keys(encoder)
    if encoder.opaque == "error":
        yield from _no_other_rows(encoder)


def _keys(encoder: Encoder) -> Iterator[Term]:
    labels = {**{label: encoder.relation for label, _ in encoder.columns}, **encoder.relations}
    for label, oid in labels.items():
        table = encoder.tables.get(oid)
        if table is None:
            continue
        row = Row(label)
        used = [number for one, number in list(encoder.columns) if one == label]
        # A row that is only being made is not among those that its policies look up.
        for unique in table.uniques if label not in encoder.new else ():
            by = [encoder.column(column, row) for column in unique]
            yield from _determined(encoder, oid, unique, by, label, used)
        for reference in table.references:
            yield from _referred(encoder, reference.relation, reference.columns, reference.referenced, row)


def _determined(
    encoder: Encoder, oid: int, unique: tuple[e.Column, ...], by: list[Value], label: str, used: list[int]
) -> Iterator[Term]:
    """Rows with the same unique key are one row."""
    numbers = tuple(column.number for column in unique)
    known = smt.negation(smt.disjunction(value.null for value in by))
    for number in used:
        if number in numbers:
            continue
        value = encoder.columns[label, number]
        column = e.Column("", number, 0, value.kind, False)
        there = _at(oid, numbers, by, column)
        same = smt.disjunction([value.null, smt.equal(there.value, value.value)])
        yield smt.implication(known, smt.conjunction([smt.equal(there.null, value.null), same]))


def _referred(
    encoder: Encoder, oid: int, columns: tuple[e.Column, ...], referenced: tuple[int, ...], row: Row
) -> Iterator[Term]:
    """The row that a foreign key of several columns refers to, found by some of them, has the others."""
    table: Table | None = encoder.tables.get(oid)
    for unique in table.uniques if table is not None else ():
        numbers = tuple(column.number for column in unique)
        if not set(numbers) < set(referenced):
            continue
        ours = {there: encoder.column(here, row) for here, there in zip(columns, referenced, strict=True)}
        known = smt.negation(smt.disjunction(value.null for value in ours.values()))
        by = [ours[number] for number in numbers]
        for number in set(referenced) - set(numbers):
            there = _at(oid, numbers, by, e.Column("", number, 0, ours[number].kind, False))
            same = [smt.negation(there.null), smt.equal(there.value, ours[number].value)]
            yield smt.implication(known, smt.conjunction(same))


def _no_other_rows(encoder: Encoder) -> Iterator[Term]:
    """A subquery that finds nothing reads relations of which the violation needs no row."""
    for one in encoder.witnesses:
        read = {oid for _, oid in one.labels}
        others = [w.active for w in encoder.witnesses if w is not one and not read.isdisjoint(o for _, o in w.labels)]
        needed = TRUE if read & encoder.needed else smt.disjunction(others)
        yield smt.implication(needed, one.active)


def replacing(encoder: Encoder, replaced: Expression) -> Iterator[Term]:
    """A row that has the unique key of a new one, and was there before, is one of those that are being changed."""
    table = encoder.tables.get(encoder.relation)
    found = [label for label, oid in encoder.relations.items() if oid == encoder.relation]
    for unique in table.uniques if table is not None else ():
        for label in found:
            for new in sorted(encoder.new):
                pairs = [(encoder.column(c, Row(label)), encoder.column(c, Row(new))) for c in unique]
                same = [term for one, other in pairs for term in (one.is_known, smt.equal(one.value, other.value))]
                changed = encoder.condition(replaced, Row(label)).is_true
                yield smt.implication(smt.conjunction(same), changed)


def users(encoder: Encoder, key: Value, label: str) -> Iterator[tuple[Term, Value]]:
    """Ways in which a row with this key is that of a member: the condition, and the member."""
    for witness in encoder.witnesses:
        if witness.root not in ("", label):
            continue
        for one, oid in witness.labels:
            for theirs, user in encoder.members.get(oid, ()):
                place, who = encoder.columns.get((one, theirs.number)), encoder.columns.get((one, user.number))
                if place is None or who is None or place.kind != key.kind:
                    continue
                same = [witness.active, place.is_known, who.is_known, smt.equal(place.value, key.value)]
                yield smt.conjunction(same), who


def holders(encoder: Encoder, key: Value, label: str) -> Iterator[Term]:
    """Ways in which a row that was looked up holds the key in some column."""
    for witness in encoder.witnesses:
        labels = {one for one, _ in witness.labels}
        for (one, _), value in encoder.columns.items():
            if witness.root in ("", label) and one in labels and value.kind == key.kind:
                yield smt.conjunction([witness.active, value.is_known, smt.equal(value.value, key.value)])
