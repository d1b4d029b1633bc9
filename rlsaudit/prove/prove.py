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
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, comparisons, renumbered, subquery_relations, walk
from rlsaudit.catalog.model import COMMANDS, Catalog, Column, Command, Policy, Relation
from rlsaudit.catalog.policies import policy_predicate, settings
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.prove.judge import Bound, Question, Result, Side, Verdict, judge
from rlsaudit.tenancy.model import ApplicationRole, Classified, Tenancy

_SIDES: dict[Command, tuple[Side, ...]] = {
    "SELECT": ("old",),
    "INSERT": ("new",),
    "UPDATE": ("old", "new"),
    "DELETE": ("old",),
}
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


def prove(catalog: Catalog, tenancy: Tenancy, visibility: Visibility) -> tuple[Proof, ...]:
    """One Proof for each tenant relation with a key column of its own × application role that row security
    binds × command, in catalog order."""
    answers: dict[Question, Result] = {}
    asked: list[tuple[Proof, Question]] = []
    compared = _tenant_settings(catalog, tenancy)
    for oid in tenancy.tenant_data():
        classified, relation = tenancy.of(oid), catalog.relation(oid)
        key = relation.column(classified.key) if classified.key and not classified.path else None
        if key is None or not relation.holds_rows:
            continue
        for role in tenancy.roles:
            if visibility.exempt(role.oid, relation) is not None:
                continue
            subject = _Subject(catalog, tenancy, visibility, classified, relation, key, role, compared)
            for command in COMMANDS:
                question, names = _anonymous(subject.question(command))
                if question not in answers:
                    answers[question] = judge(question)
                result = answers[question]
                for placeholder, name in names.items():
                    result = replace(result, reason=result.reason.replace(placeholder, name))
                goal = f"all {_ROWS[command]} have one {key.name}; there are none while the context is missing"
                asked.append((Proof(oid, role.oid, command, result.verdict, result.reason, goal), question))
    return _one_context(asked)


def _anonymous(question: Question) -> tuple[Question, dict[str, str]]:
    """The question without the identity of the relations it reads through, and the names to put back into answers.

    A thousand tables whose policies look up as many parents ask the same thing.
    """
    if not question.through:
        return question, {}
    oids = sorted({oid for _, predicate in question.bounds for oid in subquery_relations(predicate)})
    numbers = {oid: -1 - rank for rank, oid in enumerate(oids)}
    names = {f"\x00{rank}\x00": name for rank, name in enumerate(question.through)}
    bounds = tuple((side, renumbered(predicate, numbers)) for side, predicate in question.bounds)
    return replace(question, bounds=bounds, through=tuple(names)), names


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


def _one_context(asked: list[tuple[Proof, Question]]) -> tuple[Proof, ...]:
    """The proofs, less those that bind rows to other settings than as many of the role's other proofs do: one
    tenant, but perhaps another one than the session acts for."""
    usual: dict[int, Counter[frozenset[str]]] = {}
    for proof, question in asked:
        if proof.verdict == "proven" and question.context:
            usual.setdefault(proof.role, Counter())[question.context] += 1
    return tuple(_unless_alone(proof, question.context, usual.get(proof.role, Counter())) for proof, question in asked)


def _unless_alone(proof: Proof, context: frozenset[str], usual: Counter[frozenset[str]]) -> Proof:
    if proof.verdict != "proven" or not context:
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
    key: Column
    role: ApplicationRole
    tenant_settings: frozenset[str]
    """Settings that some policy compares with a tenant key; others may say which user acts."""

    def question(self, command: Command) -> Question:
        catalog = self.catalog
        bounds = self._bounds(command)
        predicates = [predicate for _, predicate in bounds]
        reads_role = any(isinstance(part, e.SessionRole) for predicate in predicates for part in walk(predicate))
        context = frozenset(name for predicate in predicates for name in settings(predicate, catalog))
        through = {oid for predicate in predicates for oid in subquery_relations(predicate)}
        relations = (catalog.find_relation(oid) for oid in sorted(through))
        return Question(
            bounds=bounds,
            key=e.Column(self.key.name, self.key.number, 0, self.key.base_type, self.key.not_null, 1),
            role=self.role.name if reads_role else None,
            null_allowed=self.classified.shared_rows and command == "SELECT",
            constrained=self._constrained("check", "foreign key") or bool(self.key.domain_checks),
            guarded=self._guard(command),
            principals=self._principals(predicates),
            context=context,
            defaults=context & self._defaults(),
            through=tuple(relation.qualified for relation in relations if relation is not None),
        )

    def _bounds(self, command: Command) -> tuple[Bound, ...]:
        policies = self.visibility.policies(self.role.oid, self.relation, command)
        sides = _SIDES[command]
        if command == "UPDATE":
            updatable = self.visibility.columns(self.role.oid, self.relation, "UPDATE")
            if updatable and self.key.name not in updatable:
                sides = ("old",)  # the new row keeps the old one's key
        bounds = [(side, combined(self.catalog, policies, side)) for side in sides]
        if any(side == "old" and predicate is None for side, predicate in bounds):
            return ()  # nothing to start from
        return tuple((side, predicate) for side, predicate in bounds if predicate is not None)

    def _constrained(self, *kinds: str) -> bool:
        constraints = self.catalog.constraints_of(self.relation.oid)
        return any(c.kind in kinds and self.key.number in c.columns for c in constraints)

    def _guard(self, command: Command) -> str:
        """What besides policies may refuse or rewrite a new row."""
        for trigger in self.catalog.triggers_of(self.relation.oid):
            if trigger.row_level and trigger.enabled != "disabled" and command in trigger.events:
                return f"the trigger {trigger.name}"
        return "a CHECK constraint" if self._constrained("check") or self.key.domain_checks else ""

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


def combined(catalog: Catalog, policies: Iterable[Policy], side: Side) -> Expression | None:
    """The condition that the server applies: permissive policies ORed, restrictive ones ANDed; None admits no
    row.

    New rows are held against WITH CHECK, or USING where there is none.  A policy without either bounds
    nothing.
    """
    permissive: list[Expression] = []
    restrictive: list[Expression] = []
    for policy in policies:
        predicate = policy_predicate(catalog, policy, "check") if side == "new" else None
        if predicate is None:
            predicate = policy_predicate(catalog, policy, "using")
        if predicate is not None:
            (permissive if policy.permissive else restrictive).append(predicate)
    if not permissive:
        return None
    allowed = permissive[0] if len(permissive) == 1 else e.Or(tuple(permissive))
    return e.And((allowed, *restrictive)) if restrictive else allowed
