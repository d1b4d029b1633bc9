"""Rows of nobody whose deletion reaches into every tenant's."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, revoke
from rlsaudit.checks._guarded import guarded
from rlsaudit.checks._keys import foreign_keys, names

from rlsaudit.catalog.relations import Command, Constraint, Relation
from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.finding import SEVERITIES, Severity
from rlsaudit.tenancy.model import ApplicationRole

_CURRENCIES = (
    SOUND
    + """\
CREATE TABLE currencies (code char(3) PRIMARY KEY, name text);
GRANT SELECT ON currencies TO app;
ALTER TABLE invoices ADD currency char(3) REFERENCES currencies ON DELETE CASCADE ON UPDATE CASCADE;
"""
)


@check(
    "RLS508",
    title="Deleting a shared row deletes tenants' rows",
    severity="high",
    rationale=(
        "Referential actions run with the rights of the tables' owner and past every policy. Who may delete or renumber a"
        " row that all tenants refer to changes the rows of all of them."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-862"),
    examples=(
        Example(
            setup=_CURRENCIES,
            bad="GRANT DELETE ON currencies TO app;",
            good="GRANT INSERT ON currencies TO app;",
        ),
        Example(
            setup=_CURRENCIES,
            bad="GRANT UPDATE ON currencies TO app;",
            good="GRANT UPDATE (name) ON currencies TO app;",
        ),
    ),
)
def shared_row_cascades(subject: Subject) -> Iterator[Hit]:
    """One finding for each shared table."""
    reached: dict[int, list[Constraint]] = {}
    for relation in guarded(subject):
        if relation.is_partition:
            continue
        for constraint in foreign_keys(subject, relation):
            parent = subject.catalog.find_relation(constraint.referenced)
            if parent is not None and constraint.enforced and not subject.tenancy.of(parent.oid).tenant_data:
                reached.setdefault(parent.oid, []).append(constraint)
    for oid, constraints in reached.items():
        parent = subject.catalog.relation(oid)
        for command in ("DELETE", "UPDATE"):
            hit = _hit(subject, parent, constraints, "DELETE" if command == "DELETE" else "UPDATE")
            if hit is not None:
                yield hit


def _hit(subject: Subject, parent: Relation, constraints: list[Constraint], command: Command) -> Hit | None:
    def action(one: Constraint) -> str:
        return one.on_delete if command == "DELETE" else one.on_update

    found = [one for one in constraints if action(one) in ("CASCADE", "SET NULL", "SET DEFAULT")]
    keys = {name for one in found for name in names(parent, one.referenced_columns)}
    roles = [role for role in subject.tenancy.roles if _able(subject, role, parent, command, keys)]
    if not found or not roles:
        return None
    worst = min((_severity(action(one), command) for one in found), key=SEVERITIES.index)
    written = listed(
        f"{subject.catalog.relation(one.relation).qualified} (ON {command} {action(one)})" for one in found
    )
    who = listed(role.name for role in roles)
    fix = "\n".join(
        dict.fromkeys(
            line for role in roles for line in _revoked(subject, parent, role, command, keys).splitlines() if line
        )
    )
    return Hit(
        parent.qualified,
        f"{who} may {command} rows of {parent.qualified}, which belong to no tenant; that changes the rows of every tenant"
        f" that refer to them in {written}, past the policies.",
        fix,
        worst,
        relation=parent.qualified,
        command=command,
        role=who,
    )


def _able(subject: Subject, role: ApplicationRole, parent: Relation, command: Command, keys: set[str]) -> bool:
    visibility = subject.visibility
    if subject.catalog.role(role.oid).superuser or not visibility.may(role.oid, parent, command):
        return False
    if command == "UPDATE" and not keys & set(visibility.columns(role.oid, parent, "UPDATE")):
        return False
    bound = visibility.exempt(role.oid, parent) is None
    return not bound or bool(visibility.policies(role.oid, parent, command))


def _severity(action: str, command: Command) -> Severity:
    """To lose rows or links is worse than to follow a new name."""
    return "high" if command == "DELETE" and action == "CASCADE" else "medium"


def _revoked(subject: Subject, parent: Relation, role: ApplicationRole, command: Command, keys: set[str]) -> str:
    """UPDATE stays for the other columns."""
    lines = revoke(subject, parent, role.oid, (command,))
    others = [column.name for column in parent.columns if column.name not in keys and not column.generated]
    if command == "UPDATE" and others and command in subject.visibility.privileges(role.oid, parent):
        listing = ", ".join(quote(name) for name in others)
        lines += f"\nGRANT UPDATE ({listing}) ON TABLE {parent.qualified} TO {quote(role.name)};"
    return lines
