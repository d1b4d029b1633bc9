"""Which columns say whose a row is, which values a client can guess, and who may choose them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Literal

from rlsaudit.checks._reading import Use, uses, uses_of

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.outcome import Way, ways
from rlsaudit.catalog.policies import check_predicate, default_expression, settings
from rlsaudit.catalog.relations import Column, Constraint, Relation
from rlsaudit.check import Subject, kept
from rlsaudit.tenancy import words
from rlsaudit.tenancy.model import ApplicationRole

Guess = Literal["natural", "foreign", "number", "random"]
"""``natural``: a value with a meaning.  ``foreign``: an id that another service or a user table gave.  ``number``: a
surrogate that counts.  ``random``: not to be guessed."""

_TEXT = frozenset({"text", "character varying", "character", "name", "citext", "public.citext", "extensions.citext"})


@dataclass(frozen=True)
class Writer:
    """A role that row security binds and that a policy lets write rows with one command."""

    role: ApplicationRole
    command: Literal["INSERT", "UPDATE"]
    columns: frozenset[str]
    """Columns that it may choose."""
    uses: tuple[Use, ...]


def writers(subject: Subject, relation: Relation) -> tuple[Writer, ...]:
    """Who may insert or update rows of the relation under row security."""
    return _writers(subject).get(relation.oid, ())


@kept
def _writers(subject: Subject) -> dict[int, tuple[Writer, ...]]:
    found: dict[int, list[Writer]] = {}
    # Uses stand in the order of relation, role and command.
    for (oid, role, command), group in groupby(uses(subject), attrgetter("relation.oid", "role.oid", "command")):
        if command not in ("INSERT", "UPDATE"):
            continue
        met = tuple([use for use in group if use.side == "new" and use.kinds])
        if not met or subject.visibility.exempt(role, met[0].relation) is not None:
            continue
        which: Literal["INSERT", "UPDATE"] = "INSERT" if command == "INSERT" else "UPDATE"
        columns = frozenset(subject.visibility.columns(role, met[0].relation, which))
        found.setdefault(oid, []).append(Writer(met[0].role, which, columns, met))
    return {oid: tuple(group) for oid, group in found.items()}


def read_by_all(subject: Subject, relation: Relation, role: int) -> bool:
    """Whether a policy shows the role rows of every tenant, so that they are no secret."""
    return (relation.oid, role) in _open(subject)


@kept
def _open(subject: Subject) -> frozenset[tuple[int, int]]:
    return frozenset((use.relation.oid, use.role.oid) for use in uses_of(subject, "open") if use.command == "SELECT")


def names(relation: Relation, numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple([column.name for number in numbers if (column := relation.column_number(number)) is not None])


def key_of(subject: Subject, relation: Relation) -> str | None:
    """The tenant key column when the relation itself has it."""
    classified = subject.tenancy.of(relation.oid)
    return None if classified.path or not classified.tenant_data else classified.key


def keyed(subject: Subject, oid: int) -> bool:
    """Whether every row of the relation belongs to one tenant, so that a reference to it names the tenant."""
    classified = subject.tenancy.relations.get(oid)
    return classified is not None and classified.tenant_data and classified.key is not None


def foreign_keys(subject: Subject, relation: Relation) -> tuple[Constraint, ...]:
    return subject.catalog.foreign_keys_of(relation.oid)


@kept
def _kept_anchors(subject: Subject) -> dict[int, tuple[Mapping[str, tuple[int, str]], ...]]:
    return {}


def anchors(subject: Subject, relation: Relation) -> tuple[Mapping[str, tuple[int, str]], ...]:
    """Sets of columns that say whose a row is, each with what its columns stand for: the tenant key, or a foreign
    key to rows of tenants."""
    known = _kept_anchors(subject)
    if relation.oid not in known:
        known[relation.oid] = _anchors(subject, relation)
    return known[relation.oid]


def _anchors(subject: Subject, relation: Relation) -> tuple[Mapping[str, tuple[int, str]], ...]:
    found: list[Mapping[str, tuple[int, str]]] = []
    key = key_of(subject, relation)
    if key is not None:
        found.append({key: (0, "")})
    for constraint in foreign_keys(subject, relation):
        if constraint.enforced and keyed(subject, constraint.referenced):
            parent = subject.catalog.relation(constraint.referenced)
            pairs = zip(names(relation, constraint.columns), names(parent, constraint.referenced_columns), strict=True)
            found.append({ours: (parent.oid, theirs) for ours, theirs in pairs})
    return tuple(found)


def guess(subject: Subject, relation: Relation, column: Column) -> Guess:
    """How a client comes by values of the column."""
    referenced = _referenced(subject, relation, column)
    if referenced is not None and not subject.tenancy.of(referenced.oid).tenant_data:
        return "natural"  # whoever may read the shared list knows them
    if column.identity or column.sequence:
        return "number"
    kind = column.base_type
    if kind in ("uuid", "bytea") or (kind in _TEXT and words.unguessable(relation.name, column.name)):
        return "random"
    if kind in _TEXT and _volatile_default(subject, relation, column):
        return "random"
    if referenced is not None:
        return "foreign"
    if column.category in ("N", "S") and words.own_id(relation.name, column.name):
        return "random" if kind in _TEXT else "number"
    if kind in _TEXT and words.given(column.name):
        return "foreign"
    return "natural"


def _referenced(subject: Subject, relation: Relation, column: Column) -> Relation | None:
    for constraint in foreign_keys(subject, relation):
        if constraint.columns == (column.number,) and constraint.referenced != relation.oid:
            return subject.catalog.find_relation(constraint.referenced)
    return None


def _volatile_default(subject: Subject, relation: Relation, column: Column) -> bool:
    default = default_expression(subject.catalog, relation, column)
    return default is not None and any(
        isinstance(part, e.Call) and part.volatility == "volatile" for part in e.walk(default)
    )


def filled(subject: Subject, relation: Relation, column: Column) -> bool:
    """Whether the column is never NULL: by NOT NULL, by a domain, or by a CHECK."""
    if column.not_null or any("VALUE IS NOT NULL" in check.upper() for check in column.domain_checks):
        return True
    for constraint in subject.catalog.constraints_of(relation.oid):
        predicate = check_predicate(subject.catalog, constraint)
        found = ways(predicate) if predicate is not None and constraint.enforced and constraint.validated else None
        if found and all(_tests(way, column.name) for way in found):
            return True
    return False


def _tests(way: Way, name: str) -> bool:
    """Whether the way asks for a value in the column; a CHECK whose answer is NULL asks for nothing."""
    return any(
        isinstance(condition.atom, e.NullTest)
        and condition.value is True
        and not condition.atom.is_null
        and isinstance(inner := e.bare(condition.atom.argument), e.Column)
        and inner.name == name
        for condition in way
    )


def key_settings(subject: Subject, relation: Relation) -> frozenset[str]:
    """Settings that the relation's policies hold its tenant key against."""
    key = key_of(subject, relation)
    return frozenset(
        name
        for use in _by_relation(subject).get(relation.oid, ())
        for comparison in e.comparisons(use.predicate)
        if comparison.column.name == key
        for name in settings(comparison.other, subject.catalog)
    )


@kept
def _by_relation(subject: Subject) -> dict[int, list[Use]]:
    found: dict[int, list[Use]] = {}
    for use in uses(subject):
        found.setdefault(use.relation.oid, []).append(use)
    return found


@kept
def referred(subject: Subject) -> frozenset[int]:
    """Relations that foreign keys refer to."""
    return frozenset(one.referenced for one in subject.catalog.constraints if one.kind == "foreign key")


@kept
def _index_names(subject: Subject) -> frozenset[str]:
    return frozenset(index.name for index in subject.catalog.indexes)


def free_name(subject: Subject, name: str) -> str:
    """The name, or one like it, that no index has."""
    taken = _index_names(subject)
    name = name[:58]
    while name in taken:
        name += "_2"
    return name
