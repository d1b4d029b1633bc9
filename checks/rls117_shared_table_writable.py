"""Tables without a tenant key that every tenant may change."""

from __future__ import annotations

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import in_order, listed, revoke, several
from rlsaudit.checks._trust import of_session
from rlsaudit.checks._trusts import trusts

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.outcome import ways
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.relations import COMMANDS, Command, Relation
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity
from rlsaudit.tenancy import words
from rlsaudit.tenancy.model import ApplicationRole

_RATES = "CREATE TABLE tax_rates (country text PRIMARY KEY, percent numeric NOT NULL);\n"


@check(
    "RLS117",
    title="Every tenant may change a table that all tenants share",
    severity="high",
    rationale=(
        "Reference data has no tenant key because it is the same for everybody; then what one tenant writes there, all"
        " others read. Tenants should only read it, and whoever maintains it use another role. If the rows are"
        " tenants' after all, the table lacks its key."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-6", "CWE-732"),
    examples=(
        Example(
            setup=SOUND + _RATES,
            bad="GRANT SELECT, INSERT, UPDATE, DELETE ON tax_rates TO app;",
            good="GRANT SELECT ON tax_rates TO app;",
        ),
        Example(
            setup=SOUND + _RATES + "ALTER TABLE tax_rates ENABLE ROW LEVEL SECURITY;\n",
            bad="CREATE POLICY everybody ON tax_rates USING (true);\nGRANT SELECT, UPDATE ON tax_rates TO app;",
            good=(
                "CREATE POLICY everybody ON tax_rates FOR SELECT USING (true);\n"
                "GRANT SELECT, UPDATE ON tax_rates TO app;"
            ),
        ),
    ),
)
def shared_table_writable(subject: Subject) -> Iterator[Hit]:
    if not any(one.kind == "tenant" for one in subject.tenancy.relations.values()):
        return
    believed = {one.trusted.relation for one in trusts(subject)}
    for relation in subject.catalog.relations:
        classified = subject.tenancy.of(relation.oid)
        if classified.kind not in ("unclassified", "global") or not relation.holds_rows or relation.is_partition:
            continue
        if relation.oid in believed:
            continue
        writers = [(role, found) for role in subject.tenancy.roles if (found := _writes(subject, relation, role))]
        if writers:
            yield _hit(subject, relation, writers)


def _hit(subject: Subject, relation: Relation, writers: list[tuple[ApplicationRole, tuple[str, ...]]]) -> Hit:
    commands = in_order({command for _, found in writers for command in found})
    readers = [role.name for role in subject.tenancy.roles if subject.visibility.may(role.oid, relation, "SELECT")]
    who = listed(f"{role.name} ({', '.join(found)})" for role, found in writers)
    detail = f"{relation.qualified} has no tenant key, and {who} may change it in sessions of every tenant: "
    detail += "one tenant decides what all others read there." if readers else "no application role reads it."
    if lost := _cascades(subject, relation) if "DELETE" in commands else []:
        detail += f" Deleting a row there also changes rows of {several(lost)}, of every tenant."
    severity = _severity(relation, commands, bool(readers), bool(lost))
    if severity == "low":
        detail += " It looks like a table that rows only pass through."
    return Hit(
        relation.qualified,
        detail,
        "\n".join(revoke(subject, relation, role.oid, found) for role, found in writers),
        severity,
        relation=relation.qualified,
        command=listed(commands),
        role=listed(role.name for role, _ in writers),
    )


def _severity(relation: Relation, commands: tuple[str, ...], read: bool, cascades: bool) -> Severity:
    if cascades:
        return "high"
    if not read or words.passing(relation.name):
        return "low"
    return "medium" if commands == ("INSERT",) else "high"


def _writes(subject: Subject, relation: Relation, role: ApplicationRole) -> tuple[str, ...]:
    """Commands that change any row, whatever tenant the session is for."""
    held = [c for c in (*COMMANDS[1:], "TRUNCATE") if subject.visibility.may(role.oid, relation, c)]
    if subject.catalog.role(role.oid).superuser or subject.catalog.role(role.oid).bypassrls:
        return ()
    if subject.visibility.exempt(role.oid, relation) is not None:
        return in_order(held)
    free = {command for command in COMMANDS[1:] if command in held and _admits_all(subject, relation, role, command)}
    return in_order(free | ({"TRUNCATE"} & set(held)))


def _admits_all(subject: Subject, relation: Relation, role: ApplicationRole, command: Command) -> bool:
    """Whether a way through the policies asks for nothing that the session has."""
    policies = subject.visibility.policies(role.oid, relation, command)
    predicates = {
        p.oid: policy_predicate(subject.catalog, p, "check" if command == "INSERT" else "using") for p in policies
    }
    for policy in policies:
        if predicates[policy.oid] is None and command == "INSERT":
            predicates[policy.oid] = policy_predicate(subject.catalog, policy, "using")
    restrictive = [found for p in policies if not p.permissive and (found := predicates[p.oid]) is not None]
    for policy in policies:
        predicate = predicates[policy.oid]
        if not policy.permissive or predicate is None:
            continue
        for way in ways(e.And((predicate, *restrictive)) if restrictive else predicate) or ():
            if not any(_asks(part) for condition in way for part in e.walk(condition.atom)):
                return True
    return False


def _asks(part: e.Expression) -> bool:
    return of_session(part) or isinstance(part, (e.Subquery, e.Opaque))


def _cascades(subject: Subject, relation: Relation) -> list[str]:
    """Tenant relations whose rows go, or change, with the rows of this one."""
    return [
        subject.catalog.relation(constraint.relation).qualified
        for constraint in subject.catalog.references_to(relation.oid)
        if constraint.on_delete in ("CASCADE", "SET NULL", "SET DEFAULT")
        and subject.tenancy.of(constraint.relation).tenant_data
    ]
