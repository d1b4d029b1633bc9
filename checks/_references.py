"""Foreign keys between rows of tenants: what ties both ends to one tenant, and SQL that does."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlsaudit.checks._keys import Writer, anchors, foreign_keys, free_name, names

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.identifiers import quote, remark
from rlsaudit.catalog.outcome import Way
from rlsaudit.catalog.relations import Constraint, Relation, Trigger
from rlsaudit.check import Subject, kept

_WRITES = ("CASCADE", "SET NULL", "SET DEFAULT")


@kept
def _kept_pairs(subject: Subject) -> dict[int, tuple[tuple[str, str], ...]]:
    return {}


def pairs(subject: Subject, constraint: Constraint) -> tuple[tuple[str, str], ...]:
    """Each column of the foreign key with the one that it refers to."""
    known = _kept_pairs(subject)
    if constraint.oid not in known:
        child, parent = subject.catalog.relation(constraint.relation), subject.catalog.relation(constraint.referenced)
        there = names(parent, constraint.referenced_columns)
        known[constraint.oid] = tuple(zip(names(child, constraint.columns), there, strict=True))
    return known[constraint.oid]


def shared(subject: Subject, constraint: Constraint) -> tuple[tuple[str, str], ...]:
    """Columns at both ends that say whose the rows are and must agree: the tenant keys, or foreign keys to one
    relation; empty when there are none."""
    child, parent = subject.catalog.relation(constraint.relation), subject.catalog.relation(constraint.referenced)
    theirs = anchors(subject, parent)
    for ours in anchors(subject, child):
        for other in theirs:
            means = {meaning: name for name, meaning in other.items()}
            found = tuple((name, means[meaning]) for name, meaning in ours.items() if meaning in means)
            if found and len(found) == len(ours) == len(other):
                return found
    return ()


def tied(subject: Subject, constraint: Constraint) -> bool:
    """Whether the foreign key itself holds both ends to one tenant."""
    child, parent = subject.catalog.relation(constraint.relation), subject.catalog.relation(constraint.referenced)
    both = set(pairs(subject, constraint))
    own = {name for name, _ in both}
    for ours in anchors(subject, child):
        for other in anchors(subject, parent) if own.issuperset(ours) else ():
            means = {meaning: name for name, meaning in other.items()}
            wanted = {(name, means[meaning]) for name, meaning in ours.items() if meaning in means}
            if wanted and len(wanted) == len(ours) == len(other) and wanted <= both:
                return True
    return False


def tied_elsewhere(subject: Subject, constraint: Constraint) -> bool:
    """Whether another foreign key over the same columns holds both ends to one tenant."""
    child = subject.catalog.relation(constraint.relation)
    return any(
        other.oid != constraint.oid
        and other.referenced == constraint.referenced
        and set(constraint.columns) <= set(other.columns)
        and other.enforced
        and other.validated
        and tied(subject, other)
        for other in foreign_keys(subject, child)
    )


def verified(subject: Subject, writer: Writer, constraint: Constraint) -> bool:
    """Whether the policies, or a trigger, look at the row that the new one refers to."""
    columns = {ours for ours, _ in pairs(subject, constraint)}
    if all(_looks(way, columns, constraint) for use in writer.uses for way, _ in use.reaches):
        return True
    relation = subject.catalog.relation(constraint.relation)
    parent = subject.catalog.relation(constraint.referenced)
    return any(
        _fires(trigger, writer.command) and _reads(subject, trigger, parent, columns)
        for trigger in subject.catalog.triggers_of(relation.oid)
    )


def _looks(way: Way, columns: set[str], constraint: Constraint) -> bool:
    """Whether the way asks about the referred row, or the columns are NULL on it."""
    for condition in way:
        atom = condition.atom
        if condition.value is False or not e.columns(atom) & columns:
            continue
        if isinstance(atom, e.NullTest) and atom.is_null and condition.value is True:
            return True
        if constraint.referenced in e.subquery_relations(atom):
            return True
        if any(isinstance(part, e.Call) and part.user and e.columns(part) & columns for part in e.walk(atom)):
            return True
    return False


def _fires(trigger: Trigger, command: str) -> bool:
    return trigger.row_level and command in trigger.events and trigger.enabled in ("origin", "always")


def _reads(subject: Subject, trigger: Trigger, parent: Relation, columns: set[str]) -> bool:
    function = subject.catalog.function(trigger.function)
    if function is None:
        return False
    text = re.sub(r"--[^\n]*|/\*.*?\*/", " ", function.source, flags=re.DOTALL).lower()
    mentions = re.search(rf"\b(from|join)\s+(\w+\.)?\"?{re.escape(parent.name.lower())}\b", text)
    return mentions is not None and any(re.search(rf"\bnew\.\"?{re.escape(name.lower())}\b", text) for name in columns)


def dependants(subject: Subject, key: Constraint) -> tuple[Constraint, ...]:
    """Foreign keys that refer to the columns of a unique key."""
    return tuple(
        one for one in subject.catalog.references_to(key.relation) if set(one.referenced_columns) == set(key.columns)
    )


def recreated(subject: Subject, constraint: Constraint, scope: tuple[str, ...]) -> str:
    """The foreign key over the tenant's columns, too; a remark where the referring table has none."""
    child, parent = subject.catalog.relation(constraint.relation), subject.catalog.relation(constraint.referenced)
    both = shared(subject, constraint)
    if {theirs for _, theirs in both} != set(scope):
        return remark(
            f"{child.qualified} refers to {parent.qualified} by {listed_columns(o for o, _ in pairs(subject, constraint))}"
            f" and has no column for {', '.join(scope)}; add one and the foreign key over it"
        )
    return added(subject, constraint, both)


def listed_columns(found: Iterator[str]) -> str:
    return ", ".join(quote(name) for name in found)


def added(subject: Subject, constraint: Constraint, both: tuple[tuple[str, str], ...]) -> str:
    """ADD CONSTRAINT of the foreign key with the tenant's columns before its own."""
    child, parent = subject.catalog.relation(constraint.relation), subject.catalog.relation(constraint.referenced)
    own = tuple(pair for pair in pairs(subject, constraint) if pair not in both)
    every = (*both, *own)
    taken = {one.name for one in subject.catalog.constraints_of(child.oid)}
    name = f"{child.name}_{'_'.join(ours for ours, _ in every)}_fkey"[:60]
    while name in taken:
        name += "_2"
    return (
        f"ALTER TABLE {child.qualified} ADD CONSTRAINT {quote(name)}"
        f" FOREIGN KEY ({listed_columns(ours for ours, _ in every)})"
        f" REFERENCES {parent.qualified} ({listed_columns(theirs for _, theirs in every)})"
        f"{actions(constraint, tuple(ours for ours, _ in own))};"
    )


def actions(constraint: Constraint, own: tuple[str, ...]) -> str:
    """Its referential actions, those that empty columns for its own columns only."""
    said = ""
    if constraint.on_update in ("RESTRICT", "CASCADE"):
        said += f" ON UPDATE {constraint.on_update}"
    if constraint.on_delete in ("RESTRICT", "CASCADE"):
        said += f" ON DELETE {constraint.on_delete}"
    elif constraint.on_delete in _WRITES:
        said += f" ON DELETE {constraint.on_delete} ({', '.join(quote(name) for name in own)})"
    if constraint.deferrable:
        said += " DEFERRABLE INITIALLY DEFERRED" if "INITIALLY DEFERRED" in constraint.definition else " DEFERRABLE"
    return said


def unique_over(subject: Subject, relation: Relation, columns: tuple[str, ...]) -> bool:
    """Whether a unique index that a foreign key can use covers exactly these columns."""
    wanted = {column.number for name in columns if (column := relation.column(name))}
    return any(
        index.unique and index.valid and index.predicate is None and set(index.columns) == wanted
        for index in subject.catalog.indexes_of(relation.oid)
    )


def target_key(subject: Subject, relation: Relation, columns: tuple[str, ...]) -> str | None:
    """ADD CONSTRAINT … UNIQUE for a foreign key to refer to; None when there is one."""
    if unique_over(subject, relation, columns):
        return None
    name = free_name(subject, f"{relation.name}_{'_'.join(columns)}_key")
    return f"ALTER TABLE {relation.qualified} ADD CONSTRAINT {quote(name)} UNIQUE ({listed_columns(iter(columns))});"
