"""Every policy as every application role meets it: which rows each way through it admits."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from weakref import WeakKeyDictionary

from rlsaudit.checks._binding import Place, Reach, Reached, reach

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.model import COMMANDS, Command, Policy, Relation
from rlsaudit.catalog.outcome import Condition, Way, ways
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.simplify import State
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.check import Subject
from rlsaudit.tenancy.model import ApplicationRole, Classified

Side = Literal["old", "new"]
SIDES: dict[Command, tuple[Side, ...]] = {
    "SELECT": ("old",),
    "INSERT": ("new",),
    "UPDATE": ("old", "new"),
    "DELETE": ("old",),
}
STATES: tuple[tuple[State, str], ...] = (("null", "not set"), ("empty", "empty"))


@dataclass(frozen=True, eq=False)
class Reading:
    """One permissive policy's condition together with the restrictive policies that apply beside it."""

    predicate: Expression
    place: Place

    @cached_property
    def reaches(self) -> Reached:
        """Each way through the policy and whose rows it admits."""
        return self._reaches("any")

    @cached_property
    def missing(self) -> tuple[tuple[str, Reach], ...]:
        """What it admits only while the context is missing, with how it is missing."""
        usual = {way for way, _ in self.reaches}
        kinds = {found.kind for _, found in self.reaches}
        return tuple(
            (said, found)
            for state, said in STATES
            for way, found in self._reaches(state)
            if (found.kind == "open" and way not in usual) or (found.kind == "shared" and "shared" not in kinds)
        )

    @cached_property
    def alike(self) -> object:
        """What besides the predicate the answers depend on."""
        place = self.place
        if place.classified.path or any(isinstance(part, e.Subquery) for part in e.walk(self.predicate)):
            return place.relation.oid, place.role
        return place.key, place.principals

    def _reaches(self, state: State) -> Reached:
        known: Hashable = (self.predicate, state, self.alike)
        found = self.place.memo.get(known)
        if found is None:
            found = self.place.memo[known] = _reached(self.predicate, state, self.place)
        return found


@dataclass(frozen=True, eq=False)
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
        return self.reading.reaches

    @property
    def missing(self) -> tuple[tuple[str, Reach], ...]:
        """What it admits only while the context is missing, with how it is missing."""
        return self.reading.missing

    def falls_open(self, way: Way) -> bool:
        """Whether the way is taken because the context is missing."""
        whole = e.And(tuple(_expression(condition) for condition in way))
        return any(
            reach(one, self.place).kind == "open" for state, _ in STATES for one in ways(whole, True, state) or ()
        )


def _reached(predicate: Expression, state: State, place: Place) -> Reached:
    found = ways(predicate, True, state)
    if found is None:
        return ((frozenset(), Reach("undecided", "too many alternatives")),)
    return tuple((way, reach(way, place)) for way in found)


def _expression(condition: Condition) -> Expression:
    if condition.value is None:
        return e.NullTest(condition.atom, True)
    return condition.atom if condition.value else e.Not(condition.atom)


_USES: WeakKeyDictionary[Visibility, tuple[Use, ...]] = WeakKeyDictionary()


def uses(subject: Subject) -> tuple[Use, ...]:
    """All uses of policies on tenant data under row security, for commands that the role has the privilege for."""
    found = _USES.get(subject.visibility)
    if found is None:
        found = _USES[subject.visibility] = tuple(_uses(subject))
    return found


def _uses(subject: Subject) -> Iterator[Use]:
    catalog, visibility = subject.catalog, subject.visibility
    memo: dict[Hashable, Reached] = {}
    for oid in subject.tenancy.tenant_data():
        relation, classified = catalog.relation(oid), subject.tenancy.of(oid)
        if not relation.holds_rows or not relation.rls_enabled:
            continue
        principals = frozenset(subject.tenancy.principal_columns.get(oid, ()))
        for role in subject.tenancy.roles:
            place = Place(catalog, visibility, relation, classified, role.oid, principals, memo)
            readings: dict[tuple[int, ...], Reading] = {}
            for command in COMMANDS:
                if visibility.may(role.oid, relation, command):
                    policies = visibility.policies(role.oid, relation, command)
                    for side in SIDES[command]:
                        for policy, reading in _applied(subject, place, side, policies, readings):
                            yield Use(relation, classified, role, command, side, policy, place, reading)


def _applied(
    subject: Subject, place: Place, side: Side, policies: tuple[Policy, ...], readings: dict[tuple[int, ...], Reading]
) -> Iterator[tuple[Policy, Reading]]:
    """Permissive policies, each read with the restrictive ones; ``readings`` are shared by commands."""
    restrictive = [policy for policy in policies if not policy.permissive]
    for policy in policies:
        together = [policy, *restrictive] if policy.permissive else []
        # Which tree of each policy counts for this side says what is read.
        known = tuple(one.oid if side == "new" and one.check_tree else -one.oid for one in together)
        if known and known not in readings:
            predicates = [found for one in together if (found := _predicate(subject, one, side)) is not None]
            if _predicate(subject, policy, side) is None:
                continue
            whole = predicates[0] if len(predicates) == 1 else e.And(tuple(predicates))
            readings[known] = Reading(whole, place)
        if known:
            yield policy, readings[known]


def _predicate(subject: Subject, policy: Policy, side: Side) -> Expression | None:
    """New rows are held against WITH CHECK, or against USING where there is none."""
    check = policy_predicate(subject.catalog, policy, "check") if side == "new" else None
    return check if check is not None else policy_predicate(subject.catalog, policy, "using")


def same_condition(policy: Policy) -> bool:
    """Whether new rows are held against the condition that old rows are held against."""
    return policy.check is None or policy.check == policy.using


def bound(use: Use) -> bool:
    """Whether every row that the policy admits is the session's tenant's, whatever is set."""
    return all(found.kind == "tenant" for _, found in use.reaches) and not use.missing
