"""A way through a policy that never compares the tenant key."""

from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED, SOUND, TENANT
from rlsaudit.checks._fixes import narrow, policy_name
from rlsaudit.checks._openings import Group, grouped, in_words, loose_reads
from rlsaudit.checks._people import user_ids

from rlsaudit.check import Example, Hit, Subject, check


@check(
    "RLS102",
    title="A policy can be true without comparing the tenant",
    severity="critical",
    rationale=(
        "Every way through every permissive policy must hold the tenant key against the session's tenant. A key that is"
        " only compared with itself, an OR branch for public rows or administrators, or an EXISTS that does not join"
        " the row admits rows of all tenants."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-863"),
    examples=(
        Example(
            setup=PROTECTED,
            bad="CREATE POLICY tenant ON invoices USING (tenant_id = tenant_id);",
            good=f"CREATE POLICY tenant ON invoices USING (tenant_id IS NOT NULL AND {TENANT});",
        ),
        Example(
            setup=SOUND,
            bad="CREATE POLICY cheap ON invoices FOR SELECT USING (amount < 10);",
            good=f"CREATE POLICY cheap ON invoices FOR SELECT USING ({TENANT} AND (amount < 10 OR amount IS NULL));",
        ),
        Example(
            setup=PROTECTED,
            bad=(
                f"CREATE POLICY tenant ON invoices\n  USING ({TENANT} OR current_setting('app.is_admin', true) = 'on');"
            ),
            good=(
                "CREATE POLICY tenant ON invoices\n"
                f"  USING ({TENANT} AND (amount > 0 OR current_setting('app.is_admin', true) = 'on'));"
            ),
        ),
    ),
)
def tenant_not_compared(subject: Subject) -> Iterator[Hit]:
    for group in grouped(one for one in loose_reads(subject) if one.reach.kind != "party"):
        relation, worst = group.relation, group.first
        yield Hit(
            policy_name(group.policy, relation),
            _said(subject, group),
            narrow(
                subject, relation, worst.use.classified, group.policy, using=True, check=group.policy.check is not None
            ),
            worst.severity,
            relation=relation.qualified,
            command=group.commands,
            role=group.roles,
        )


def _said(subject: Subject, group: Group) -> str:
    worst, relation = group.first, group.relation.qualified
    key = worst.use.place.key or "the tenant"
    who = f"({group.commands} as {group.roles})"
    if worst.reach.kind == "person":
        if user_ids(subject, worst.use, worst.reach.detail) == "within a tenant":
            return (
                f"A way through the policy asks for the user in {worst.reach.detail} and not for {key}, and these ids count"
                f" within a tenant: rows of {relation} are in reach of whoever has the same id in another tenant {who}."
            )
        return (
            f"A way through the policy asks for the user in {worst.reach.detail} and not for {key}: a user's rows of"
            f" {relation} are in reach whatever tenant the session acts for, also after the user has left it {who}."
        )
    return (
        f"A way through the policy does not compare {key} with the session's tenant: {in_words(worst.reach)}"
        f" reaches rows of every tenant in {relation} {who}."
    )
