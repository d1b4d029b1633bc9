"""A permissive policy that admits every row."""

from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED, SOUND, TENANT
from rlsaudit.checks._fixes import narrow, policy_name
from rlsaudit.checks._openings import Opening, grouped, severity_of, trivial
from rlsaudit.checks._reading import uses_of

from rlsaudit.check import Example, Hit, Subject, check


@check(
    "RLS101",
    title="A policy admits every row",
    severity="critical",
    rationale=(
        "Permissive policies are ORed: one that is always true makes all others for the command pointless. For UPDATE"
        " and DELETE the SELECT policies do not help, because a statement without WHERE reads no column."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-863"),
    examples=(
        Example(
            setup=SOUND,
            bad="CREATE POLICY everything ON invoices FOR DELETE USING (2 > 1);",
            good=f"CREATE POLICY deletable ON invoices FOR DELETE USING ({TENANT} AND 2 > 1);",
        ),
        Example(
            setup=PROTECTED,
            bad="CREATE POLICY reader ON invoices FOR SELECT USING ((SELECT true) OR amount > 0);",
            good=(
                "CREATE POLICY reader ON invoices FOR SELECT USING (true);\n"
                f"CREATE POLICY tenant ON invoices AS RESTRICTIVE USING ({TENANT});"
            ),
        ),
    ),
)
def always_true_policy(subject: Subject) -> Iterator[Hit]:
    openings = (
        Opening(use, reach, severity)
        for use in uses_of(subject, "open")
        if use.side == "old"
        for way, reach in use.reaches
        if reach.kind == "open" and trivial(use, way) and (severity := severity_of(subject, use, reach))
    )
    for group in grouped(openings):
        classified = subject.tenancy.of(group.relation.oid)
        yield Hit(
            policy_name(group.policy, group.relation),
            f"The policy is true for every row of {group.relation.qualified}, so {group.roles} can {group.commands}"
            " the rows of every tenant.",
            narrow(subject, group.relation, classified, group.policy, using=True, check=group.policy.check is not None),
            group.first.severity,
            relation=group.relation.qualified,
            command=group.commands,
            role=group.roles,
        )
