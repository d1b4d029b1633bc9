"""Updates that can move a row to another tenant."""

from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED, TENANT
from rlsaudit.checks._fixes import narrow, policy_name
from rlsaudit.checks._openings import grouped, guard, in_words, loose_writes

from rlsaudit.check import Example, Hit, Subject, check

_READ = f"CREATE POLICY readers ON invoices FOR SELECT USING ({TENANT});\n"


@check(
    "RLS105",
    title="UPDATE can move a row to another tenant",
    severity="critical",
    rationale=(
        "USING chooses the rows that may be changed, WITH CHECK what they may become. Where WITH CHECK does not bind the"
        " tenant key a session can give its rows to another tenant. SELECT policies catch it only in statements that"
        " read a column: UPDATE t SET tenant_id = 2 reads none."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-639"),
    examples=(
        Example(
            setup=PROTECTED + _READ,
            bad=f"CREATE POLICY writers ON invoices FOR UPDATE USING ({TENANT}) WITH CHECK (true);",
            good=f"CREATE POLICY writers ON invoices FOR UPDATE USING ({TENANT});",
        ),
        Example(
            setup=PROTECTED + _READ,
            bad=f"CREATE POLICY writers ON invoices FOR UPDATE USING ({TENANT}) WITH CHECK (amount > 0);",
            good=(
                f"CREATE POLICY writers ON invoices FOR UPDATE USING ({TENANT}) WITH CHECK (amount > 0);\n"
                "REVOKE UPDATE ON invoices FROM app;\n"
                "GRANT UPDATE (amount) ON invoices TO app;"
            ),
        ),
    ),
)
def update_moves_row(subject: Subject) -> Iterator[Hit]:
    for group in grouped(loose_writes(subject, "UPDATE")):
        relation, worst = group.relation, group.first
        guards = [guard(subject, one.use) for one in group.openings]
        guarded = guards[0] if all(guards) else ""
        detail = (
            f"WITH CHECK does not hold the changed row against the session's tenant: {in_words(worst.reach)} can move"
            f" rows of {relation.qualified} to any tenant (as {group.roles})."
        )
        if guarded:
            detail += f" Only {guarded}; the probe tells whether that is enough."
        yield Hit(
            policy_name(group.policy, relation),
            detail,
            narrow(subject, relation, worst.use.classified, group.policy, using=False, check=True),
            "info" if guarded else worst.severity,
            relation=relation.qualified,
            command="UPDATE",
            role=group.roles,
        )
