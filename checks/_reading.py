"""Every policy as every application role meets it: which rows each way through it admits."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Literal

from rlsaudit.checks._binding import Kind, Place, Reach, Reached, reach
from rlsaudit.checks._guarded import guarded
from rlsaudit.checks._narrow import narrow

from rlsaudit.bulk import made_in_bulk
from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.outcome import Condition, Way, ways
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.relations import COMMANDS, Command, Policy, Relation
from rlsaudit.catalog.simplify import State
from rlsaudit.check import Subject, kept
from rlsaudit.tenancy import words
from rlsaudit.tenancy.model import ApplicationRole, Classified

Side = Literal["old", "new"]
Tree = Literal["using", "check"]
SIDES: dict[Command, tuple[Side, ...]] = {
    "SELECT": ("old",),
    "INSERT": ("new",),
    "UPDATE": ("old", "new"),
    "DELETE": ("old",),
}
STATES: tuple[tuple[State, str], ...] = (("null", "not set"), ("empty", "empty"))


@made_in_bulk
@dataclass(frozen=True, eq=False)
class Reading:
    """One permissive policy's condition together with the restrictive policies that apply beside it."""

    predicate: Expression
    place: Place
    look: int = 0
    """Among the places of one run equal for relations that look alike, see ``_look``."""
    shapes: dict[Hashable, Shape] = field(default_factory=dict, repr=False)
    """Those of one run: readings that are alike are examined once."""

    @cached_property
    def shape(self) -> Shape:
        """The same for readings that are the same but for which relations they are about: what is asked of one,
        relations of subqueries apart, holds of the other."""
        key = self._key()
        found = self.shapes.get(key)
        if found is None:
            found = self.shapes[key] = Shape(self)
        return found

    @cached_property
    def reaches(self) -> Reached:
        """Each way through the policy and whose rows it admits."""
        found = self.shape.reached
        numbers = self.numbers
        return _renumbered(found, {number: oid for oid, number in numbers.items()}) if numbers else found

    def shared(self, side: Side) -> Reached:
        """Rows of several tenants belong to each of them; new ones must name the session's in the same column always."""
        found, parties = self.reaches, self.place.parties
        if not parties or all(one.kind != "party" for _, one in found):
            return found
        named = parties.intersection(*(one.columns for _, one in found)) if found else parties
        if side == "new" and not named:
            return found
        return tuple(
            (way, replace(one, kind="tenant", detail="") if one.kind == "party" and one.columns & parties else one)
            for way, one in found
        )

    @property
    def missing(self) -> tuple[tuple[str, Reach], ...]:
        """What it admits only while the context is missing, with how it is missing."""
        return self.shape.missing

    @cached_property
    def numbers(self) -> dict[int, int]:
        """The relations that it reads, in order of appearance, each as ``shape`` has it: no relation's OID."""
        read = dict.fromkeys(oid for part in self._conjuncts for oid in e.relations_read(part))
        return {oid: -number for number, oid in enumerate(read, start=1)}

    @property
    def _conjuncts(self) -> tuple[Expression, ...]:
        return self.predicate.arguments if isinstance(self.predicate, e.And) else (self.predicate,)

    def _key(self) -> Hashable:
        numbers = self.numbers
        if not numbers:
            return self.predicate, self.look
        catalog, own = self.place.catalog, self.place.relation.oid
        parts = tuple(
            [(e.model(part), tuple([numbers[oid] for oid in e.relations_read(part)])) for part in self._conjuncts]
        )
        ties = tuple(
            [
                (numbers[one.referenced], one.columns)
                for one in catalog.foreign_keys_of(own)
                if one.referenced in numbers
            ]
        )
        return parts, self.look, tuple([self._foreign(oid) for oid in numbers]), ties, numbers.get(own)

    def _foreign(self, oid: int) -> Hashable:
        """What matters in a relation that is read."""
        relation = self.place.catalog.find_relation(oid)
        if relation is None:
            return None
        bound = relation.rls_enabled and self.place.visibility.exempt(self.place.role, relation) is None
        return bound, tuple([column.name for column in relation.columns])


@dataclass(frozen=True, eq=False)
class Shape:
    """What readings have in common that are the same but for which relations they are about."""

    example: Reading

    @cached_property
    def reached(self) -> Reached:
        """Each way through the policy and whose rows it admits; relations have the ``numbers`` of the reading."""
        return _renumbered(self._reached("any"), self.example.numbers)

    @cached_property
    def kinds(self) -> frozenset[Kind]:
        """Whose rows it admits, over all ways."""
        return frozenset(found.kind for _, found in self.reached)

    @cached_property
    def missing(self) -> tuple[tuple[str, Reach], ...]:
        """What it admits only while the context is missing, with how it is missing."""
        usual = {way for way, _ in self._reached("any")}
        return tuple(
            (said, found)
            for state, said in STATES
            for way, found in self._reached(state)
            if (found.kind == "open" and way not in usual and not narrow(way, self.example.place))
            or (found.kind == "shared" and "shared" not in self.kinds)
        )

    def _reached(self, state: State) -> Reached:
        found = ways(self.example.predicate, True, state)
        if found is None:
            return ((frozenset(), Reach("undecided", "too many alternatives")),)
        return tuple((way, reach(way, self.example.place)) for way in found)


@made_in_bulk
@dataclass(frozen=True, eq=False, slots=True)
class Use:
    """A reading for one role's command."""

    relation: Relation
    classified: Classified
    role: ApplicationRole
    command: Command
    side: Side
    policy: Policy
    place: Place
    reading: Reading

    @property
    def predicate(self) -> Expression:
        return self.reading.predicate

    @property
    def reaches(self) -> Reached:
        """Each way through the policy and whose rows it admits."""
        return self.reading.shared(self.side) if self.place.parties else self.reading.reaches

    @property
    def kinds(self) -> frozenset[Kind]:
        """Whose rows the policy admits, over all ways."""
        if self.place.parties:
            return frozenset(found.kind for _, found in self.reading.shared(self.side))
        return self.reading.shape.kinds

    @property
    def missing(self) -> tuple[tuple[str, Reach], ...]:
        """What it admits only while the context is missing, with how it is missing."""
        return self.reading.missing

    def falls_open(self, way: Way) -> bool:
        """Whether the way is taken because the context is missing."""
        whole = e.And(tuple(_expression(condition) for condition in way))
        return any(
            reach(one, self.place).kind == "open" and not narrow(one, self.place)
            for state, _ in STATES
            for one in ways(whole, True, state) or ()
        )


def _renumbered(reached: Reached, relations: Mapping[int, int]) -> Reached:
    """The atoms remember what they are copies of, see ``expression.model``."""
    if not relations:
        return reached
    return tuple(
        (frozenset([Condition(e.copied(one.atom, relations), one.value) for one in way]), found)
        for way, found in reached
    )


def _expression(condition: Condition) -> Expression:
    if condition.value is None:
        return e.NullTest(condition.atom, True)
    return condition.atom if condition.value else e.Not(condition.atom)


@kept
def uses(subject: Subject) -> tuple[Use, ...]:
    """All uses of policies on tenant data under row security, for commands that the role has the privilege for."""
    return tuple(_uses(subject))


@kept
def _by_kinds(subject: Subject) -> dict[frozenset[Kind], list[tuple[int, Use]]]:
    found: dict[frozenset[Kind], list[tuple[int, Use]]] = {}
    known: dict[tuple[Reading, Side], list[tuple[int, Use]]] = {}
    for number, use in enumerate(uses(subject)):
        same = (use.reading, use.side)
        group = known.get(same)
        if group is None:
            group = known[same] = found.setdefault(use.kinds, [])
        group.append((number, use))
    return found


def uses_of(subject: Subject, *kinds: Kind) -> list[Use]:
    """Uses that admit rows of one of these kinds, in the order of all."""
    groups = [group for present, group in _by_kinds(subject).items() if not present.isdisjoint(kinds)]
    return [use for _, use in sorted(chain.from_iterable(groups), key=itemgetter(0))]


@kept
def one_of_each_reading(subject: Subject) -> tuple[Use, ...]:
    """Uses without those that only repeat a reading for another command."""
    return tuple({use.reading: use for use in uses(subject)}.values())


@kept
def one_of_each_shape(subject: Subject) -> tuple[Use, ...]:
    """Enough of them to see everything that readings say of anything but relations."""
    return tuple({use.reading.shape: use for use in one_of_each_reading(subject)}.values())


def _uses(subject: Subject) -> Iterator[Use]:
    catalog, visibility = subject.catalog, subject.visibility
    shapes: dict[Hashable, Shape] = {}
    looks: dict[Hashable, int] = {}
    plans: dict[tuple[int, frozenset[str], int], _Plan] = {}
    for relation in guarded(subject):
        oid, classified = relation.oid, subject.tenancy.of(relation.oid)
        principals = frozenset(subject.tenancy.principal_columns.get(oid, ()))
        parties = _parties(subject, relation, classified)
        look = looks.setdefault(_look(subject, relation, classified, principals), len(looks))
        policies = catalog.policies_of(oid)
        kinds = tuple(
            [
                (one.command, one.roles, one.permissive, one.using_tree is None, one.check_tree is None)
                for one in policies
            ]
        )
        alike = looks.setdefault(kinds, len(looks))
        for role in subject.tenancy.roles:
            place = Place(catalog, visibility, relation, classified, role.oid, principals, parties)
            met = role.oid, visibility.allowed(role.oid, relation), alike
            plan = plans.get(met)
            if plan is None:
                plan = plans[met] = _plan(subject, role, relation, policies)
            readings = [_reading(subject, policies, parts, place, look, shapes) for parts in plan.readings]
            for command, side, position, number in plan.steps:
                yield Use(relation, classified, role, command, side, policies[position], place, readings[number])


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a role meets the policies of a relation: the same wherever policies differ in their expressions only."""

    readings: tuple[tuple[tuple[int, Tree], ...], ...]
    """Positions of policies, each with the expression that counts: a permissive one and the restrictive ones."""
    steps: tuple[tuple[Command, Side, int, int], ...]
    """With the position of the permissive policy and the number of the reading."""


def _plan(subject: Subject, role: ApplicationRole, relation: Relation, policies: tuple[Policy, ...]) -> _Plan:
    allowed = subject.visibility.allowed(role.oid, relation)
    positions = {one.oid: position for position, one in enumerate(policies)}
    readings: dict[tuple[tuple[int, Tree], ...], int] = {}
    steps: list[tuple[Command, Side, int, int]] = []
    for command in COMMANDS:
        if command not in allowed:
            continue
        applied = subject.visibility.policies(role.oid, relation, command)
        for side in SIDES[command]:
            trees = [(one, (positions[one.oid], tree)) for one in applied if (tree := _tree(one, side)) is not None]
            beside = [part for one, part in trees if not one.permissive]
            for policy, part in trees:
                if policy.permissive:
                    number = readings.setdefault((part, *beside), len(readings))
                    steps.append((command, side, part[0], number))
    return _Plan(tuple(readings), tuple(steps))


def _tree(policy: Policy, side: Side) -> Tree | None:
    """New rows are held against WITH CHECK, or against USING where there is none."""
    if side == "new" and policy.check_tree is not None:
        return "check"
    return "using" if policy.using_tree is not None else None


def _reading(
    subject: Subject, policies: tuple[Policy, ...], parts: tuple[tuple[int, Tree], ...], place: Place, look: int,
    shapes: dict[Hashable, Shape],
) -> Reading:  # fmt: skip
    """A permissive policy, read with the restrictive ones; commands share it."""
    found = [policy_predicate(subject.catalog, policies[position], tree) for position, tree in parts]
    predicates = tuple([one for one in found if one is not None])
    return Reading(predicates[0] if len(predicates) == 1 else e.And(predicates), place, look, shapes)


def _parties(subject: Subject, relation: Relation, classified: Classified) -> frozenset[str]:
    """Columns that refer to the tenants; where the key is only known from comparisons, all that are compared as it is."""
    if classified.path or classified.key is None or classified.kind != "tenant":
        return frozenset()
    found = {
        column.name
        for constraint in subject.catalog.foreign_keys_of(relation.oid)
        if constraint.referenced == subject.tenancy.registry
        and len(constraint.columns) == 1
        and (column := relation.column_number(constraint.columns[0])) is not None
    }
    if classified.key in found and len(found) > 1:
        return frozenset(found)
    usual = subject.tenancy.key_columns[:1]
    if found or classified.key in usual or not words.tenant_like(classified.key):
        return frozenset()
    kind = next(column.base_type for column in relation.columns if column.name == classified.key)
    alike = {one.name for one in relation.columns if one.base_type == kind and words.tenant_like(one.name)}
    return frozenset(alike) if len(alike) > 1 else frozenset()


def _look(subject: Subject, relation: Relation, classified: Classified, principals: frozenset[str]) -> Hashable:
    """What besides a predicate and the relations that it reads its answers depend on."""
    if relation.parents:
        return relation.oid
    columns = tuple(
        [
            (one.name, one.type, one.domain_checks if one.name == classified.key else (), one.default)
            for one in relation.columns
            if one.generated or one.name == classified.key
        ]
    )
    key = relation.column(classified.key) if classified.key else None
    constraints = tuple(
        [
            (one.definition, one.columns, one.validated, one.enforced)
            for one in subject.catalog.constraints_of(relation.oid)
            if one.kind == "check" or (one.kind == "foreign key" and key is not None and key.number in one.columns)
        ]
    )
    indexes = tuple(
        [
            (one.columns, one.unique, one.valid, one.expressions_tree, one.predicate_tree)
            for one in subject.catalog.indexes_of(relation.oid)
            if one.expressions_tree is not None
        ]
    )
    path = classified.path[0].columns if classified.path else None
    return classified.key, path, classified.kind, principals, columns, constraints, indexes


def same_condition(policy: Policy) -> bool:
    """Whether new rows are held against the condition that old rows are held against."""
    return policy.check is None or policy.check == policy.using


def bound(use: Use) -> bool:
    """Whether every row that the policy admits is the session's tenant's, whatever is set."""
    return use.kinds <= {"tenant"} and not use.missing
