"""Every policy as every application role meets it: which rows each way through it admits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from weakref import WeakKeyDictionary

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.model import COMMANDS, Command, Policy, Relation
from rlsaudit.catalog.outcome import Condition, State, Way, ways
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.check import Subject
from rlsaudit.checks._binding import Place, Reach, reach
from rlsaudit.tenancy.model import ApplicationRole, Classified

Side = Literal["old", "new"]
SIDES: dict[Command, tuple[Side, ...]] = {
    "SELECT": ("old",),
    "INSERT": ("new",),
    "UPDATE": ("old", "new"),
    "DELETE": ("old",),
}
STATES: tuple[tuple[State, str], ...] = (("null", "not set"), ("empty", "empty"))


@dataclass(frozen=True)
class Use:
    """One permissive policy, applied to one role's command, together with the restrictive policies there."""

    relation: Relation
    classified: Classified
    role: ApplicationRole
    command: Command
    side: Side
    policy: Policy
    predicate: Expression
    place: Place

    @cached_property
    def reaches(self) -> tuple[tuple[Way, Reach], ...]:
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

    def falls_open(self, way: Way) -> bool:
        """Whether the way is taken because the context is missing."""
        whole = e.And(tuple(_expression(condition) for condition in way))
        return any(
            reach(one, self.place).kind == "open" for state, _ in STATES for one in ways(whole, True, state) or ()
        )

    def _reaches(self, state: State) -> tuple[tuple[Way, Reach], ...]:
        found = ways(self.predicate, True, state)
        if found is None:
            return ((frozenset(), Reach("undecided", "too many alternatives")),)
        return tuple((way, reach(way, self.place)) for way in found)


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
    for oid in subject.tenancy.tenant_data():
        relation, classified = catalog.relation(oid), subject.tenancy.of(oid)
        if not relation.holds_rows or not relation.rls_enabled:
            continue
        principals = frozenset(subject.tenancy.principal_columns.get(oid, ()))
        for role in subject.tenancy.roles:
            place = Place(catalog, visibility, relation, classified, role.oid, principals)
            for command in COMMANDS:
                if visibility.may(role.oid, relation, command):
                    policies = visibility.policies(role.oid, relation, command)
                    for side in SIDES[command]:
                        yield from _applied(subject, place, role, command, side, policies)


def _applied(
    subject: Subject, place: Place, role: ApplicationRole, command: Command, side: Side, policies: Iterable[Policy]
) -> Iterator[Use]:
    policies = tuple(policies)
    restrictive = [_predicate(subject, policy, side) for policy in policies if not policy.permissive]
    also = tuple(predicate for predicate in restrictive if predicate is not None)
    for policy in policies:
        predicate = _predicate(subject, policy, side) if policy.permissive else None
        if predicate is not None:
            whole = e.And((predicate, *also)) if also else predicate
            yield Use(place.relation, place.classified, role, command, side, policy, whole, place)


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
