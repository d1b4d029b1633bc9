"""Proves, for each tenant relation, application role and command, that one session reaches rows of one tenant
only.

The goal has two parts.  Any two rows that pass the policies in one session have the same tenant key, not
NULL; and with every setting unset, or every setting ``''``, no row passes.  For INSERT the rows are those
WITH CHECK admits, for UPDATE the old rows and the new ones and each against the other.  Only the command's
own policies count, since a statement that reads no column is not bound by the SELECT policies.

Sound for what is modelled: direct access under row security.  Views, functions, triggers and foreign keys are
not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import (
    Expression,
    columns,
    comparisons,
    renumbered,
    subquery_relations,
    walk,
)
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import policy_predicate, settings
from rlsaudit.catalog.relations import COMMANDS, Command, Relation
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.prove.constraints import checks_on, rewritten
from rlsaudit.prove.goals import Side
from rlsaudit.prove.judge import Bound, Question, Result, Verdict, judge
from rlsaudit.prove.own_rows import names_user, ties, without_own
from rlsaudit.prove.tables import Key, Reader, anonymous, anonymous_key, combined, key_of
from rlsaudit.prove.witness import Witness
from rlsaudit.tenancy.model import ApplicationRole, Classified, Tenancy

SIDES: dict[Command, tuple[Side, ...]] = {
    "SELECT": ("old",),
    "INSERT": ("new",),
    "UPDATE": ("old", "new"),
    "DELETE": ("old",),
}
_WRITES: tuple[Command, ...] = ("INSERT", "UPDATE")
_ROWS = {
    "SELECT": "rows that a session sees",
    "INSERT": "rows that a session may create",
    "UPDATE": "rows that a session may change, and what they become,",
    "DELETE": "rows that a session may delete",
}


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of one relation × role × command."""

    relation: int
    role: int
    command: Command
    verdict: Verdict
    reason: str
    """Why, in a sentence; for ``refuted`` with the rows and settings that the solver found."""
    goal: str
    witness: Witness | None = None
    """Of ``refuted``; relations by OID, 0 for this one."""


def prove(catalog: Catalog, tenancy: Tenancy, visibility: Visibility) -> tuple[Proof, ...]:
    """One Proof for each tenant relation whose key is known × application role that row security binds × command, in
    catalog order."""
    answers: dict[Question, Result] = {}
    asked: list[_Asked] = []
    compared = _tenant_settings(catalog, tenancy)
    for oid in tenancy.tenant_data():
        classified, relation = tenancy.of(oid), catalog.relation(oid)
        key = key_of(catalog, classified)
        if key is None or not relation.holds_rows:
            continue
        for role in tenancy.roles:
            if visibility.exempt(role.oid, relation) is not None:
                continue
            subject = _Subject(catalog, tenancy, visibility, classified, relation, key, role, compared)
            for command in COMMANDS:
                asked.append(_answer(subject, command, answers))
    return _one_context(_protected(asked, catalog, visibility))


@dataclass(frozen=True, slots=True)
class _Asked:
    proof: Proof
    context: frozenset[str]
    relies: tuple[int, ...]
    """Relations of members that the proof rests on."""


def _answer(subject: _Subject, command: Command, answers: dict[Question, Result]) -> _Asked:
    exact = subject.question(command)
    question, oids = _anonymous(exact)
    if question not in answers:
        answers[question] = judge(question)
    result = answers[question]
    reason = result.reason
    for name, (placeholder, _) in zip(exact.world.names, question.world.tables, strict=True):
        reason = reason.replace(_placeholder(placeholder), name)
    key = exact.key.name if not exact.key.hops else f"{exact.key.name} by way of a foreign key"
    goal = f"all {_ROWS[command]} have one {key}; there are none while the context is missing"
    if result.listed:
        goal = f"all {_ROWS[command]} are of tenants that {result.listed} lists; there are none while the context is missing"
    if result.relies:
        goal = f"all {_ROWS[command]} are of tenants of the acting user; there are none while the context is missing"
    witness = result.witness
    if witness is not None:
        rows = tuple((label, oids.get(number, 0), columns) for label, number, columns in witness.rows)
        witness = replace(witness, rows=rows)
    proof = Proof(subject.relation.oid, subject.role.oid, command, result.verdict, reason, goal, witness)
    return _Asked(proof, exact.context, tuple(oids[number] for number in result.relies))


def _anonymous(question: Question) -> tuple[Question, Mapping[int, int]]:
    """The question without the identity of the relations it is about, and what its numbers stand for.

    A thousand tables whose policies look up as many parents ask the same thing.
    """
    oids = [oid for oid, _ in question.world.tables]
    if not oids:
        return question, {}
    numbers = {oid: rank - len(oids) for rank, oid in enumerate(oids)}
    names = tuple(_placeholder(number) for number in numbers.values())
    through = tuple(names[question.world.names.index(name)] for name in question.through)
    bounds = tuple((side, renumbered(predicate, numbers)) for side, predicate in question.bounds)
    others = tuple((side, renumbered(predicate, numbers)) for side, predicate in question.others)
    world = anonymous(question.world, numbers, names)
    key = anonymous_key(question.key, numbers)
    return replace(question, bounds=bounds, others=others, through=through, world=world, key=key), dict(
        zip(numbers.values(), oids, strict=True)
    )


def _placeholder(number: int) -> str:
    return f"\x00{number}\x00"


def _protected(asked: list[_Asked], catalog: Catalog, visibility: Visibility) -> list[_Asked]:
    """The answers, less proofs that rest on rows of members which the role may write as it likes.

    A relation of members may rest on itself: whoever is a member may make others members.
    """
    while True:
        verdicts = {(a.proof.relation, a.proof.role, a.proof.command): a.proof.verdict for a in asked}
        kept = [_on_protected(one, catalog, visibility, verdicts) for one in asked]
        if kept == asked:
            return kept
        asked = kept


def _on_protected(
    one: _Asked, catalog: Catalog, visibility: Visibility, verdicts: Mapping[tuple[int, int, Command], Verdict]
) -> _Asked:
    role = one.proof.role
    for oid in one.relies if one.proof.verdict == "proven" else ():
        relation = catalog.relation(oid)
        for command in _WRITES:
            verdict = verdicts.get((oid, role, command), "refuted")
            if not visibility.may(role, relation, command) or verdict == "proven":
                continue
            if verdict == "refuted":
                why = f"rows are bounded through {relation.qualified}, to which {command} is open"
                return replace(one, proof=replace(one.proof, verdict="unknown", reason=why))
            note = f" (what {command} makes of {relation.qualified} is not proven)"
            if note not in one.proof.reason:
                one = replace(one, proof=replace(one.proof, reason=one.proof.reason + note))
    return one


def _tenant_settings(catalog: Catalog, tenancy: Tenancy) -> frozenset[str]:
    """Settings that policies compare with a tenant key, not by way of another relation."""
    found: set[str] = set()
    for policy in catalog.policies:
        classified = tenancy.relations.get(policy.relation)
        sides = (policy_predicate(catalog, policy, "using"), policy_predicate(catalog, policy, "check"))
        for predicate in sides:
            if predicate is None or classified is None or classified.path:
                continue
            for comparison in comparisons(predicate):
                if comparison.column.name == classified.key and not _indirect(comparison.other):
                    found |= settings(comparison.other, catalog)
    return frozenset(found)


def _indirect(expression: Expression) -> bool:
    """Whether it looks something up: a relation, or code that is not read."""
    return any(
        isinstance(part, e.Opaque)
        or (isinstance(part, e.Subquery) and (bool(part.relations) or not part.plain))
        or (isinstance(part, e.Call) and part.user and part.inlined is None)
        for part in walk(expression)
    )


def _one_context(asked: list[_Asked]) -> tuple[Proof, ...]:
    """The proofs, less those that bind rows to other settings than as many of the role's other proofs do: one
    tenant, but perhaps another one than the session acts for."""
    usual: dict[int, Counter[frozenset[str]]] = {}
    for one in asked:
        if one.proof.verdict == "proven" and one.context and not one.relies:
            usual.setdefault(one.proof.role, Counter())[one.context] += 1
    return tuple(_unless_alone(one, usual.get(one.proof.role, Counter())) for one in asked)


def _unless_alone(one: _Asked, usual: Counter[frozenset[str]]) -> Proof:
    proof, context = one.proof, one.context
    if proof.verdict != "proven" or not context or one.relies:
        return proof
    for other, count in usual.most_common():
        if count >= usual[context] and not other & context:
            names, others = ", ".join(sorted(context)), ", ".join(sorted(other))
            return replace(proof, verdict="unknown", reason=f"rows are bound to {names}, those of others to {others}")
    return proof


@dataclass(frozen=True)
class _Subject:
    """One relation as one role sees it."""

    catalog: Catalog
    tenancy: Tenancy
    visibility: Visibility
    classified: Classified
    relation: Relation
    key: Key
    role: ApplicationRole
    tenant_settings: frozenset[str]
    """Settings that some policy compares with a tenant key; others may say which user acts."""

    def question(self, command: Command) -> Question:
        catalog = self.catalog
        bounds = self._bounds(command)
        predicates = [predicate for _, predicate in bounds]
        parts = [part for predicate in predicates for part in walk(predicate)]
        has_role = any(isinstance(part, e.Call) and part.name == "pg_has_role" for part in parts)
        reads_role = has_role or any(isinstance(part, e.SessionRole) for part in parts)
        held = self.visibility.inherits(self.role.oid) if has_role else frozenset[int]()
        context = frozenset(name for predicate in predicates for name in settings(predicate, catalog))
        through = {oid for predicate in predicates for oid in subquery_relations(predicate)}
        relations = (catalog.find_relation(oid) for oid in sorted(through))
        return Question(
            bounds=bounds,
            others=self._others(command, bounds),
            key=self.key,
            role=self.role.name if reads_role else None,
            held=frozenset(one.name for one in catalog.roles if one.oid in held),
            null_allowed=self.classified.shared_rows and command == "SELECT",
            constrained=self._constrained("check", "foreign key") or self._checked(),
            checks=checks_on(catalog, self.relation, {self.key.column.name, *chain(*map(columns, predicates))}),
            rewritten=rewritten(catalog, self.relation),
            guarded=self._guard(command),
            principals=self._principals(predicates),
            context=context,
            defaults=context & self._defaults(),
            through=tuple(relation.qualified for relation in relations if relation is not None),
            world=Reader(catalog, self.tenancy, self.visibility, self.role).world(self.key, self.relation, predicates),
        )

    def _bounds(self, command: Command) -> tuple[Bound, ...]:
        policies = self.visibility.policies(self.role.oid, self.relation, command)
        sides = SIDES[command]
        if command == "UPDATE":
            updatable = self.visibility.columns(self.role.oid, self.relation, "UPDATE")
            fixed = {column.name for column in (self.key.hops[0].columns if self.key.hops else (self.key.column,))}
            if self.classified.kind == "membership":  # a row of another's may become the user's own
                fixed |= set(self.tenancy.principal_columns.get(self.relation.oid, ()))
            if updatable and not fixed & set(updatable):
                sides = ("old",)  # the new row keeps the old one's key
        bounds = [(side, combined(self.catalog, policies, side)) for side in sides]
        if any(side == "old" and predicate is None for side, predicate in bounds):
            return ()  # nothing to start from
        return tuple((side, predicate) for side, predicate in bounds if predicate is not None)

    def _others(self, command: Command, bounds: tuple[Bound, ...]) -> tuple[Bound, ...]:
        """The bounds of SELECT without rows that say of the acting user to which tenants it belongs.  Empty where there
        are none: what is the user's to see is not the user's to change."""
        if command != "SELECT":
            return ()
        found = tuple((side, without_own(one, self._own)) for side, one in bounds)
        return found if found != bounds else ()

    def _own(self, column: e.Column, other: Expression) -> bool:
        """Whether it is a column for users that ties them to tenants, held against the user of the session."""
        named = self.tenancy.principal_columns.get(self.relation.oid, ())
        user = names_user(other) and not settings(other, self.catalog) & self.tenant_settings
        tie = column.name in named and column.name != self.key.name
        return user and tie and ties(self.catalog, self.relation, self.classified, column)

    def _constrained(self, *kinds: str) -> bool:
        constraints = self.catalog.constraints_of(self.relation.oid)
        return any(c.kind in kinds and self.key.number in c.columns for c in constraints)

    def _guard(self, command: Command) -> str:
        """What besides policies may refuse or rewrite a new row."""
        for trigger in self.catalog.triggers_of(self.relation.oid):
            if trigger.row_level and trigger.enabled != "disabled" and command in trigger.events:
                return f"the trigger {trigger.name}"
        return "a CHECK constraint" if self._constrained("check") or self._checked() else ""

    def _checked(self) -> bool:
        column = self.relation.column_number(self.key.number)
        return column is not None and bool(column.domain_checks)

    def _principals(self, predicates: list[Expression]) -> tuple[e.Column, ...]:
        named = self.tenancy.principal_columns.get(self.relation.oid, ())
        personal = self.classified.kind in ("membership", "principal")
        found: dict[str, e.Column] = {}
        for comparison in (c for predicate in predicates for c in comparisons(predicate) if c.exact):
            context = settings(comparison.other, self.catalog)
            users = bool(context) and not context & self.tenant_settings
            if comparison.column.name != self.key.name and (personal or users or comparison.column.name in named):
                found[comparison.column.name] = comparison.column
        return tuple(column for _, column in sorted(found.items()))

    def _defaults(self) -> frozenset[str]:
        database = self.catalog.server.database
        return frozenset(
            setting.name.lower()
            for setting in self.catalog.settings
            if setting.role in (0, self.role.oid) and setting.database in ("", database) and setting.value
        )
