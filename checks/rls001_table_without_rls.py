"""Tenant data without row security."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, protect, revoke, said, users_of

from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity


@check(
    "RLS001",
    title="Tenant data without row security",
    severity="critical",
    rationale=(
        "A table that holds the rows of many tenants and has no row security shows every row to whoever may read it."
        " Copies, history tables and children that only refer to a tenant's row are forgotten most often."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-284"),
    examples=(
        Example(
            setup=SOUND,
            bad=(
                "CREATE TABLE payments (id int PRIMARY KEY, tenant_id int NOT NULL, amount int);\n"
                "GRANT SELECT ON payments TO app;"
            ),
            good=(
                "CREATE TABLE payments (id int PRIMARY KEY, tenant_id int NOT NULL, amount int);\n"
                "ALTER TABLE payments ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;\n"
                "CREATE POLICY tenant ON payments\n"
                "  USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);\n"
                "GRANT SELECT ON payments TO app;"
            ),
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE TABLE invoice_lines (invoice_id int NOT NULL REFERENCES invoices, text text);\n"
                "GRANT SELECT, INSERT ON invoice_lines TO app;"
            ),
            good=("CREATE TABLE currencies (code text PRIMARY KEY, name text);\nGRANT SELECT ON currencies TO app;"),
        ),
    ),
)
def table_without_rls(subject: Subject) -> Iterator[Hit]:
    for oid in subject.tenancy.tenant_data():
        relation, classified = subject.catalog.relation(oid), subject.tenancy.of(oid)
        if not relation.holds_rows or relation.rls_enabled or relation.rls_forced:
            continue
        if subject.catalog.policies_of(oid) or _inherits_tenant_data(subject, relation.parents):
            continue
        who = users_of(subject, relation)
        what = f"{relation.qualified} holds tenant data ({classified.why}) and has no row security"
        if not who:
            detail = f"{what}; no application role holds a privilege on its rows, so only other roles see them all."
            fix = "" if relation.kind == "foreign table" else protect(subject, relation, classified)
            yield Hit(relation.qualified, detail, fix, "info", relation=relation.qualified)
            continue
        severity: Severity = "high" if classified.kind in ("registry", "principal") else "critical"
        if relation.kind == "foreign table":
            yield Hit(
                relation.qualified,
                f"{what}, which a foreign table cannot have: {said(who)} reaches the rows of every tenant"
                " that the remote user sees.",
                "\n".join(revoke(subject, relation, role.oid, commands) for role, commands in who),
                severity,
                relation=relation.qualified,
            )
            continue
        yield Hit(
            relation.qualified,
            f"{what}: {said(who)} reaches the rows of every tenant.",
            protect(subject, relation, classified),
            severity,
            relation=relation.qualified,
            command=listed(dict.fromkeys(c for _, commands in who for c in commands)),
        )


def _inherits_tenant_data(subject: Subject, parents: tuple[int, ...]) -> bool:
    """Partitions and inheritance children are another check's."""
    return any(oid in subject.tenancy.relations and subject.tenancy.of(oid).tenant_data for oid in parents)
