"""Policies whose errors print values of rows that the session may not see."""

from __future__ import annotations

from collections.abc import Iterator

from rlsaudit.checks._binding import Place
from rlsaudit.checks._examples import PROTECTED, TENANT
from rlsaudit.checks._fixes import in_order, listed, policy_name, tenant_predicate
from rlsaudit.checks._order import Clause, clauses
from rlsaudit.checks._raising import Risk, could_raise, risks
from rlsaudit.checks._reading import one_of_each_shape, uses

from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.relations import Policy, Relation
from rlsaudit.check import Example, Hit, Subject, check, quote, remark
from rlsaudit.finding import SEVERITIES, Severity

_LEVELS = PROTECTED + "ALTER TABLE invoices ADD level text;\n"


@check(
    "RLS111",
    title="An error in a policy prints other tenants' values",
    severity="high",
    rationale=(
        "The server evaluates the conditions of a policy cheapest first, whatever their order in the text. A cast or a"
        " function that fails on a value and prints it ('invalid input syntax for type integer: \"…\"') then runs on"
        " rows of other tenants before the tenant is compared. CASE fixes the order."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.28", "NIST 800-53 SI-11", "CWE-209"),
    examples=(
        Example(
            setup=_LEVELS,
            bad=f"CREATE POLICY tenant ON invoices USING ({TENANT} AND level::int > 2);",
            good=(
                f"CREATE POLICY tenant ON invoices USING\n  (CASE WHEN {TENANT} THEN level::int > 2 ELSE false END);"
            ),
        ),
        Example(
            setup=_LEVELS,
            bad=(
                f"CREATE POLICY tenant ON invoices USING ({TENANT});\n"
                "CREATE POLICY high ON invoices AS RESTRICTIVE FOR SELECT USING (level::int > 2);"
            ),
            good=(
                "ALTER TABLE invoices ADD CHECK (level ~ '^[0-9]+$');\n"
                f"CREATE POLICY tenant ON invoices USING ({TENANT});\n"
                "CREATE POLICY high ON invoices AS RESTRICTIVE FOR SELECT USING (level::int > 2);"
            ),
        ),
    ),
)
def policy_error_prints_row(subject: Subject) -> Iterator[Hit]:
    found: dict[int, list[tuple[Severity, Risk, Place, str, str]]] = {}
    policies: dict[int, Policy] = {}
    done: set[tuple[int, int, str]] = set()
    raising = {use.reading.shape for use in one_of_each_shape(subject) if could_raise(use.predicate)}
    for use in uses(subject):
        if (
            use.reading.shape not in raising
            or use.side != "old"
            or (use.relation.oid, use.role.oid, use.command) in done
        ):
            continue
        done.add((use.relation.oid, use.role.oid, use.command))
        applied = [
            (policy, predicate)
            for policy in subject.visibility.policies(use.role.oid, use.relation, use.command)
            if (predicate := policy_predicate(subject.catalog, policy, "using")) is not None
        ]
        for policy, risk, severity in _early(clauses(applied, use.place), use.place):
            policies[policy.oid] = policy
            found.setdefault(policy.oid, []).append((severity, risk, use.place, use.command, use.role.name))
    for oid, ones in found.items():
        severity, risk, place, *_ = min(ones, key=lambda one: SEVERITIES.index(one[0]))
        commands = listed(in_order({command for *_, command, _ in ones}))
        roles = listed(role for *_, role in ones)
        yield Hit(
            policy_name(policies[oid], place.relation),
            f"The policy can apply {risk.what} to {listed(sorted(risk.columns))} of {place.relation.qualified} before it"
            f" has compared the tenant: a value that does not fit is printed in the error that {roles} gets"
            f" ({commands}).",
            _guarded(subject, policies[oid], place.relation),
            severity,
            relation=place.relation.qualified,
            command=commands,
            role=roles,
        )


def _early(ordered: tuple[Clause, ...], place: Place) -> Iterator[tuple[Policy, Risk, Severity]]:
    """What may raise on a row before a condition has told it to be the session's."""
    alone = sum(one.policy.permissive for one in {clause.policy.oid: clause for clause in ordered}.values()) < 2
    # Of several permissive policies each is tried on the rows that the others have turned down.
    bound = [one for one in ordered if one.binds and (alone or not one.policy.permissive)]
    for clause in ordered:
        for risk in risks(clause.condition, place):
            if risk.columns == {place.key}:
                continue  # a key that is no such value would stop its own tenant too
            order = [clause.before(one) for one in bound if one is not clause]
            if any(one is False for one in order):
                continue
            certain = bool(order) and all(order)
            yield clause.policy, risk, "high" if certain else "medium"


def _guarded(subject: Subject, policy: Policy, relation: Relation) -> str:
    predicate = tenant_predicate(subject, relation, subject.tenancy.of(relation.oid))
    if predicate is None or policy.using is None:
        return remark(f"compare the tenant in CASE WHEN … THEN … ELSE false END around {policy_name(policy, relation)}")
    return (
        f"ALTER POLICY {quote(policy.name)} ON {relation.qualified}"
        f" USING (CASE WHEN {predicate} THEN {policy.using} ELSE false END);"
    )
