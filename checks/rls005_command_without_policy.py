"""Commands that the default denies."""

from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED, SOUND, TENANT
from rlsaudit.checks._fixes import listed, policy_for, revoke

from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.relations import COMMANDS
from rlsaudit.check import Example, Hit, Subject, check


@check(
    "RLS005",
    title="A command is granted but no policy admits it",
    severity="info",
    rationale=(
        "Where no permissive policy applies, row security denies: SELECT, UPDATE and DELETE touch no row, INSERT fails."
        " It is safe, but the privilege says that something else was meant, and tests that see no rows prove nothing."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3"),
    examples=(
        Example(
            setup=PROTECTED,
            bad=f"CREATE POLICY readers ON invoices FOR SELECT USING ({TENANT});",
            good=f"CREATE POLICY tenant ON invoices FOR ALL USING ({TENANT});",
        ),
        Example(setup=PROTECTED, bad="", good=SOUND.removeprefix(PROTECTED)),
    ),
)
def command_without_policy(subject: Subject) -> Iterator[Hit]:
    catalog, visibility = subject.catalog, subject.visibility
    for relation in catalog.relations:
        policies = catalog.policies_of(relation.oid)
        if not relation.rls_enabled or any(p.permissive and p.command == "ALL" and PUBLIC in p.roles for p in policies):
            continue
        for role in subject.tenancy.roles:
            denied = [
                command
                for command in COMMANDS
                if visibility.may(role.oid, relation, command)
                and not any(p.permissive for p in visibility.policies(role.oid, relation, command))
            ]
            if not denied or (policies and not any(policy.permissive for policy in policies)):
                continue
            if not policies:
                why = f"{relation.qualified} has row security and no policy"
                fix = policy_for(subject, relation, subject.tenancy.of(relation.oid))
                if fix.startswith("--"):
                    fix = revoke(subject, relation, role.oid, denied)
            else:
                why = f"no policy of {relation.qualified} applies to {role.name} for {listed(denied)}"
                fix = revoke(subject, relation, role.oid, denied)
            yield Hit(
                relation.qualified,
                f"{role.name} may {listed(denied)}, but {why}: every row is denied.",
                fix,
                relation=relation.qualified,
                role=role.name,
                command=listed(denied),
            )
