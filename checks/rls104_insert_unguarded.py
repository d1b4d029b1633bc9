"""New rows that nothing holds against the session's tenant."""

from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED, TENANT
from rlsaudit.checks._fixes import narrow, policy_name
from rlsaudit.checks._openings import grouped, guard, in_words, loose_writes, tenant_settings
from rlsaudit.checks._routines import reached, relations_read
from rlsaudit.checks._setters import setters

from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check

_READ = f"CREATE POLICY readers ON invoices FOR SELECT USING ({TENANT});\n"


@check(
    "RLS104",
    title="INSERT can forge another tenant's row",
    severity="critical",
    rationale=(
        "An INSERT policy without a condition on the tenant key lets a session write rows into another tenant's data:"
        " forged invoices, or a membership that opens everything else."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-639"),
    examples=(
        Example(
            setup=PROTECTED + _READ,
            bad="CREATE POLICY writers ON invoices FOR INSERT WITH CHECK (amount > 0);",
            good=f"CREATE POLICY writers ON invoices FOR INSERT WITH CHECK (amount > 0 AND {TENANT});",
        ),
        Example(
            setup=PROTECTED + _READ,
            bad="CREATE POLICY writers ON invoices FOR INSERT WITH CHECK (tenant_id IS NOT NULL);",
            good=(
                "CREATE POLICY writers ON invoices FOR INSERT WITH CHECK (true);\n"
                "CREATE FUNCTION own_tenant() RETURNS trigger LANGUAGE plpgsql AS $$\n"
                "BEGIN NEW.tenant_id := current_setting('app.tenant_id')::int; RETURN NEW; END $$;\n"
                "CREATE TRIGGER own_tenant BEFORE INSERT ON invoices\n"
                "  FOR EACH ROW EXECUTE FUNCTION own_tenant();"
            ),
        ),
    ),
)
def insert_unguarded(subject: Subject) -> Iterator[Hit]:
    for group in grouped(loose_writes(subject, "INSERT")):
        relation, worst = group.relation, group.first
        guards = [guard(subject, one.use) for one in group.openings]
        guarded = guards[0] if all(guards) else ""
        registry = worst.use.classified.kind == "registry"
        what = "a new tenant" if registry else f"a row of any tenant into {relation.qualified}"
        detail = f"{in_words(worst.reach)} can insert {what} (as {group.roles})"
        detail = f"The policy does not hold new rows against the session's tenant: {detail}."
        if guarded:
            detail += f" Only {guarded}; the probe tells whether that is enough."
        severity = worst.severity
        if worst.reach.kind == "person" and (setter := _enters(subject, relation)):
            severity = "critical"
            detail += f" {setter} looks there whether a session may act for a tenant."
        yield Hit(
            policy_name(group.policy, relation),
            detail,
            narrow(subject, relation, worst.use.classified, group.policy, using=False, check=True),
            "info" if guarded else "low" if registry else severity,
            relation=relation.qualified,
            command="INSERT",
            role=group.roles,
        )


def _enters(subject: Subject, relation: Relation) -> str:
    """A function that gives the session its tenant and reads the relation first; empty for none."""
    for setter in setters(subject):
        called = reached(subject, setter.function.oid)
        if setter.setting in tenant_settings(subject) and any(
            relation in relations_read(subject, one) for one in called
        ):
            return setter.function.qualified
    return ""
