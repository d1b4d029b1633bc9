"""A policy that opens when the context is missing."""

from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED, TENANT
from rlsaudit.checks._fixes import listed, narrow, policy_name
from rlsaudit.checks._openings import Opening, grouped
from rlsaudit.checks._reading import uses

from rlsaudit.check import Example, Hit, Subject, check


@check(
    "RLS103",
    title="A policy opens when no tenant is set",
    severity="critical",
    rationale=(
        "A session without context is a bug in the application, and then the policy is the last line. A fresh"
        " connection has the setting unset; SET LOCAL leaves an empty string behind, so both must show nothing."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-636"),
    examples=(
        Example(
            setup=PROTECTED,
            bad=(
                "CREATE POLICY tenant ON invoices USING (\n"
                f"  {TENANT} OR current_setting('app.tenant_id', true) IS NULL);"
            ),
            good=(
                "CREATE POLICY tenant ON invoices USING (\n"
                "  CASE WHEN current_setting('app.tenant_id', true) IS NULL THEN false\n"
                f"       ELSE {TENANT} END);"
            ),
        ),
        Example(
            setup=PROTECTED,
            bad=(
                "CREATE POLICY tenant ON invoices USING (tenant_id =\n"
                "  COALESCE(NULLIF(current_setting('app.tenant_id', true), '')::int, tenant_id));"
            ),
            good=(
                "CREATE POLICY tenant ON invoices USING (tenant_id =\n"
                "  COALESCE(NULLIF(current_setting('app.tenant_id', true), '')::int, -1));"
            ),
        ),
    ),
)
def open_without_context(subject: Subject) -> Iterator[Hit]:
    openings = [
        Opening(use, reach, "critical" if reach.kind == "open" else "high")
        for use in uses(subject)
        for _, reach in use.missing
    ]
    for group in grouped(openings):
        relation, worst = group.relation, group.first
        when = listed(said for one in group.openings for said, _ in one.use.missing)
        rows = "every row" if worst.reach.kind == "open" else "every row without a tenant"
        old = any(one.use.side == "old" for one in group.openings)
        new = group.policy.check is not None and any(one.use.side == "new" for one in group.openings)
        yield Hit(
            policy_name(group.policy, relation),
            f"While the tenant setting is {when.replace(' and ', ' or ')} the policy admits {rows} of"
            f" {relation.qualified} ({group.commands} as {group.roles}).",
            narrow(subject, relation, worst.use.classified, group.policy, using=old, check=new),
            worst.severity,
            relation=relation.qualified,
            command=group.commands,
            role=group.roles,
        )
