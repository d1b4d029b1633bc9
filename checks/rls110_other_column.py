"""A policy that holds another column than the tenant key against the session's tenant."""

from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED, TENANT
from rlsaudit.checks._fixes import listed, narrow, policy_name
from rlsaudit.checks._openings import grouped, loose_reads

from rlsaudit.check import Example, Hit, Subject, check

_REGION = "ALTER TABLE invoices ADD region_id int;\n"
_WRONG = TENANT.replace("tenant_id =", "region_id =")


@check(
    "RLS110",
    title="A policy compares another column than the tenant key",
    severity="critical",
    rationale=(
        "A number is a number: a policy that holds a region, a shop or a project against the session's tenant is"
        " accepted by the server and shows rows of whatever tenants happen to have that number there."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-863"),
    examples=(
        Example(
            setup=PROTECTED + _REGION,
            bad=f"CREATE POLICY tenant ON invoices USING ({_WRONG});",
            good=f"CREATE POLICY tenant ON invoices USING ({TENANT} AND {_WRONG});",
        ),
    ),
)
def other_column(subject: Subject) -> Iterator[Hit]:
    for group in grouped(one for one in loose_reads(subject) if one.reach.kind == "party"):
        relation, use = group.relation, group.first.use
        named = listed(one.reach.detail for one in group.openings)
        key = use.place.key or "the tenant key"
        if group.first.severity == "low":
            said = f"The policy finds rows of {relation.qualified} by {named}, which is unique, and leaves {key} out: whoever"
            said += f" knows a value of {named} has that row"
        else:
            said = f"The policy holds {named} of {relation.qualified} against the session and leaves {key} out: rows of any"
            said += f" tenant that have that value in {named} pass"
        yield Hit(
            policy_name(group.policy, relation),
            f"{said} ({group.commands} as {group.roles}).",
            narrow(subject, relation, use.classified, group.policy, using=True, check=group.policy.check is not None),
            group.first.severity,
            relation=relation.qualified,
            command=group.commands,
            role=group.roles,
        )
