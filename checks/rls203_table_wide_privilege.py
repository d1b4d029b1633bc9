"""Privileges that policies do not filter."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import in_order, listed, revoke

from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity

_EFFECTS = {
    "TRUNCATE": "TRUNCATE empties the table for every tenant",
    "TRIGGER": "TRIGGER puts code of its own into every tenant's statements",
    "REFERENCES": "REFERENCES tells by foreign keys which rows exist",
    "MAINTAIN": "MAINTAIN locks the table for every tenant",
}
_LEVELS: tuple[tuple[Severity, tuple[str, ...]], ...] = (
    ("high", ("TRUNCATE", "TRIGGER")),
    ("low", ("REFERENCES", "MAINTAIN")),
)


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
    catalog, visibility = subject.catalog, subject.visibility
    for oid in subject.tenancy.tenant_data():
        relation = catalog.relation(oid)
        if not relation.holds_rows:
            continue
        for role in subject.tenancy.roles:
            if catalog.role(role.oid).superuser or visibility.owns(role.oid, relation.owner):
                continue  # an owner could do all of it anyway
            for severity, privileges in _LEVELS:
                found = in_order({one for one in privileges if visibility.may(role.oid, relation, one)})
                if found:
                    yield Hit(
                        relation.qualified,
                        f"{role.name} holds {listed(found)} on {relation.qualified}, which no policy filters:"
                        f" {'; '.join(_EFFECTS[one] for one in found)}.",
                        revoke(subject, relation, role.oid, found),
                        severity,
                        relation=relation.qualified,
                        role=role.name,
                        command=listed(found),
                    )
