"""Whether a session can write rows that policies trust."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from rlsaudit.checks._binding import Place, Reach, reach
from rlsaudit.checks._openings import tenant_settings
from rlsaudit.checks._routines import tokens
from rlsaudit.checks._trust import Trusted

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.outcome import Condition, Way, ways
from rlsaudit.catalog.policies import policy_predicate, settings_read
from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Subject

Writing = Literal["INSERT", "UPDATE"]


@dataclass(frozen=True, slots=True)
class Forgery:
    """The role can give these columns of a trusted relation values of its own choice."""

    command: Writing
    columns: tuple[str, ...]
    whose: Literal["any", "person", "tenant"]
    """Which rows: any, those of the acting user, those of the session's tenant."""
    guard: str = ""
    """A trigger that may stop it."""


def forgeries(subject: Subject, trusted: Trusted, role: int) -> Iterator[Forgery]:
    """How the role can make a row of the trusted relation name somebody else's rows, or pass its tests."""
    relation = subject.catalog.find_relation(trusted.relation)
    if relation is None or not relation.holds_rows:
        return
    commands: tuple[Writing, ...] = ("INSERT", "UPDATE")
    for command in commands:
        if not subject.visibility.may(role, relation, command):
            continue
        columns = set(subject.visibility.columns(role, relation, command))
        guard = _guard(subject, relation, command, trusted.links | trusted.tests)
        for whose, free in _free(subject, trusted, relation, role, command, columns):
            chosen = tuple(sorted(free & columns))
            if chosen:
                yield Forgery(command, chosen, whose, guard)


def _free(
    subject: Subject, trusted: Trusted, relation: Relation, role: int, command: Writing, writable: set[str]
) -> Iterator[tuple[Literal["any", "person", "tenant"], frozenset[str]]]:
    """Columns that each way through the policies leaves free."""
    if subject.visibility.exempt(role, relation) is not None:
        yield "any", trusted.links or trusted.tests or trusted.anchors
        return
    for way in _admitted(subject, relation, role, command):
        place = _place(subject, relation, role)
        bound = {name for name in trusted.links if _binds(way, place, name)}
        bound |= _by_foreign_key(subject, relation, trusted.links, way, place)
        whose = _whose(way, place, trusted)
        if whose is None:
            continue
        if trusted.links & writable and not bound:
            if not _unique(subject, relation, trusted.links):
                yield whose, trusted.links
        else:
            free = frozenset(name for name in trusted.tests if not _binds(way, place, name))
            yield whose, free if trusted.links or trusted.tests else trusted.anchors


def _place(subject: Subject, relation: Relation, role: int, key: str | None = None) -> Place:
    classified = replace(subject.tenancy.of(relation.oid), key=key, path=())
    principals = frozenset(subject.tenancy.principal_columns.get(relation.oid, ()))
    return Place(subject.catalog, subject.visibility, relation, classified, role, principals)


def _admitted(subject: Subject, relation: Relation, role: int, command: Writing) -> Iterator[Way]:
    """Ways through WITH CHECK, restrictive policies included; none that cannot be followed."""
    policies = subject.visibility.policies(role, relation, command)

    def condition(which: int) -> Expression | None:
        check = policy_predicate(subject.catalog, policies[which], "check")
        return check if check is not None else policy_predicate(subject.catalog, policies[which], "using")

    conditions = {number: found for number in range(len(policies)) if (found := condition(number)) is not None}
    restrictive = [found for number, found in conditions.items() if not policies[number].permissive]
    for number, found in conditions.items():
        if policies[number].permissive:
            yield from ways(e.And((found, *restrictive)) if restrictive else found) or ()


def _binds(way: Way, place: Place, column: str) -> bool:
    """Whether the way holds the column against the session, or leaves that to something not followed."""
    if not any(column in e.columns(condition.atom) for condition in way):
        return False
    return _reach(way, place, column).kind not in ("open", "person", "party")


def _reach(way: Way, place: Place, column: str | None) -> Reach:
    return reach(way, replace(place, classified=replace(place.classified, key=column)))


def _whose(way: Way, place: Place, trusted: Trusted) -> Literal["any", "person", "tenant"] | None:
    """Whose rows the way lets a session write; None for those who pass a gate or a name."""
    if any(_gate(condition) for condition in way):
        return None
    if any(_binds(way, place, name) for name in place.principals - trusted.links):
        return "person"
    if any(e.columns(condition.atom) for condition in way):
        return "tenant"
    return "any" if _reach(way, place, "").kind == "open" else None


def _gate(condition: Condition) -> bool:
    """Something other than the row must hold, which a table or a function tells."""
    atom = condition.atom
    if e.depends_on_row(atom) or condition.value is not True:
        return False
    return (isinstance(atom, e.Subquery) and bool(atom.relations)) or (
        isinstance(atom, e.Call) and atom.user and atom.inlined is None
    )


def _by_foreign_key(
    subject: Subject, relation: Relation, links: frozenset[str], way: Way, place: Place
) -> frozenset[str]:
    """Links that a foreign key ties to a column that the way binds."""
    found: set[str] = set()
    for constraint in subject.catalog.constraints_of(relation.oid):
        if constraint.kind != "foreign key" or not constraint.enforced or len(constraint.columns) < 2:
            continue
        names = {column.name for n in constraint.columns if (column := relation.column_number(n)) is not None}
        if names & links and any(_binds(way, place, name) for name in names - links):
            found |= names & links
    return frozenset(found)


def _unique(subject: Subject, relation: Relation, links: frozenset[str]) -> bool:
    """Whether the links name one row: then no second row can claim to be it."""
    for index in subject.catalog.indexes_of(relation.oid):
        names = {column.name for n in index.columns if (column := relation.column_number(n)) is not None}
        if index.unique and index.predicate is None and 0 not in index.columns and names and names <= links:
            return True
    return False


def _guard(subject: Subject, relation: Relation, command: Writing, columns: frozenset[str]) -> str:
    """A trigger that reads the context, or looks at a new value that decides."""
    for trigger in subject.catalog.triggers_of(relation.oid):
        function = subject.catalog.function(trigger.function)
        if not trigger.row_level or command not in trigger.events or trigger.enabled not in ("origin", "always"):
            continue
        if settings_read(subject.catalog, trigger.function) & tenant_settings(subject):
            return trigger.name
        text = tokens(function.source) if function else ()
        new = {
            b.text
            for a, dot, b in zip(text, text[1:], text[2:], strict=False)
            if a.is_word("new") and dot.is_symbol(".")
        }
        if new & columns:
            return trigger.name
    return ""
