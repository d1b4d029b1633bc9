"""Privileges that policies do not filter."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import in_order, listed, revoke
from rlsaudit.checks._powers import application, tables

from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.tenancy.model import ApplicationRole

_EFFECTS = {
    "TRUNCATE": "TRUNCATE empties a table for every tenant",
    "TRIGGER": "TRIGGER puts code of its own into every tenant's statements",
    "REFERENCES": "REFERENCES tells by foreign keys which rows exist",
    "MAINTAIN": "MAINTAIN locks a table for every tenant",
}
_GRAVE = frozenset({"TRUNCATE", "TRIGGER"})


@check(
    "RLS203",
    title="A privilege that row security does not filter",
    severity="high",
    rationale=(
        "Policies bind SELECT, INSERT, UPDATE and DELETE. TRUNCATE, TRIGGER, REFERENCES and MAINTAIN are table-wide;"
        " GRANT ALL gives them all, and applications need none."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-732"),
    examples=(
        Example(
            setup=SOUND,
            bad="GRANT ALL ON invoices TO app;",
            good="GRANT SELECT, INSERT, UPDATE, DELETE ON invoices TO app;",
        ),
    ),
)
def table_wide_privilege(subject: Subject) -> Iterator[Hit]:
    visibility = subject.visibility
    relations = [subject.catalog.relation(oid) for oid in subject.tenancy.tenant_data()]
    # Roles that hold the same on the same tables have it from one GRANT more often than not.
    groups: dict[tuple[tuple[str, ...], tuple[int, ...]], list[ApplicationRole]] = {}
    for role in application(subject):
        where: dict[tuple[str, ...], list[int]] = {}
        for relation in relations:
            if not relation.holds_rows or visibility.owns(role.oid, relation.owner):
                continue  # an owner could do all of it anyway
            if found := in_order({one for one in _EFFECTS if visibility.may(role.oid, relation, one)}):
                where.setdefault(found, []).append(relation.oid)
        for found, oids in where.items():
            groups.setdefault((found, tuple(oids)), []).append(role)
    for (found, at), roles in groups.items():
        yield _hit(subject, found, [subject.catalog.relation(oid) for oid in at], roles)


def _hit(subject: Subject, found: tuple[str, ...], where: list[Relation], roles: list[ApplicationRole]) -> Hit:
    names = listed(role.name for role in roles)
    fixes = (revoke(subject, relation, role.oid, found) for relation in where for role in roles)
    return Hit(
        where[0].qualified,
        f"{names} {'holds' if len(roles) == 1 else 'hold'} {listed(found)} on {tables(where)}, which no policy filters:"
        f" {'; '.join(_EFFECTS[one] for one in found)}.",
        "\n".join(line for line in dict.fromkeys(fixes) if line),
        "high" if _GRAVE & set(found) else "low",
        relation=where[0].qualified,
        role=names,
        command=listed(found),
    )
