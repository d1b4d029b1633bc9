"""Guard triggers that do not fire in the sessions that they guard against."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, users_of
from rlsaudit.checks._guards import refuses
from rlsaudit.checks._openings import tenant_settings
from rlsaudit.checks._reading import bound, uses
from rlsaudit.checks._routines import relations_read, tokens

from rlsaudit.catalog.policies import settings_read
from rlsaudit.catalog.relations import Relation, Trigger
from rlsaudit.check import Example, Hit, Subject, check, quote

_GUARD = """\
CREATE TABLE payments (id int PRIMARY KEY, tenant_id int NOT NULL, invoice_id int NOT NULL);
ALTER TABLE payments ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON payments USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT, INSERT ON payments TO app;
CREATE FUNCTION same_tenant() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NOT EXISTS (SELECT FROM public.invoices i WHERE i.id = NEW.invoice_id AND i.tenant_id = NEW.tenant_id) THEN
    RAISE EXCEPTION 'no such invoice';
  END IF;
  RETURN NEW; END $$;
CREATE TRIGGER same_tenant BEFORE INSERT OR UPDATE ON payments FOR EACH ROW EXECUTE FUNCTION same_tenant();
"""


@check(
    "RLS318",
    title="A trigger that keeps tenants apart does not fire",
    severity="medium",
    rationale=(
        "A trigger that is disabled, or enabled for replicas alone, does nothing in an ordinary session: what it was"
        " written to refuse goes through, while the schema reads as if it were guarded. Both are left behind by bulk"
        " loads and by tools that set up replication."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-863"),
    examples=(
        Example(
            setup=SOUND + _GUARD,
            bad="ALTER TABLE payments ENABLE REPLICA TRIGGER same_tenant;",
            good="ALTER TABLE payments ENABLE ALWAYS TRIGGER same_tenant;",
        ),
        Example(
            setup=SOUND + _GUARD,
            bad="ALTER TABLE payments DISABLE TRIGGER same_tenant;",
            good="CREATE TRIGGER again BEFORE DELETE ON payments FOR EACH ROW EXECUTE FUNCTION same_tenant();",
        ),
    ),
)
def guard_trigger_off(subject: Subject) -> Iterator[Hit]:
    for trigger in subject.catalog.triggers:
        relation = subject.catalog.find_relation(trigger.relation)
        if trigger.enabled in ("origin", "always") or relation is None or not relation.holds_rows:
            continue
        who = [
            role.name for role, commands in users_of(subject, relation) if not set(commands).isdisjoint(trigger.events)
        ]
        if not who or not _guards(subject, trigger, relation) or _replaced(subject, trigger):
            continue
        off = "is disabled" if trigger.enabled == "disabled" else "fires for replicas alone"
        yield Hit(
            relation.qualified,
            f"The trigger {trigger.name} of {relation.qualified} {off}: what it refuses is not refused to {listed(who)}.",
            f"ALTER TABLE {relation.qualified} ENABLE TRIGGER {quote(trigger.name)};",
            "low" if _redundant(subject, trigger, relation) else "medium",
            relation=relation.qualified,
            command=listed(trigger.events),
            role=listed(who),
        )


def _guards(subject: Subject, trigger: Trigger, relation: Relation) -> bool:
    """Whether its function looks at the tenant and stops a row, or writes the tenant itself."""
    classified, function = subject.tenancy.of(relation.oid), subject.catalog.function(trigger.function)
    if not classified.tenant_data or not classified.key or function is None or function.language != "plpgsql":
        return False
    key = classified.path[0].columns[0] if classified.path else classified.key
    reads = bool(settings_read(subject.catalog, function.oid) & tenant_settings(subject))
    named = any(token.text == key for token in tokens(function.source))
    return (reads or named) and refuses(subject.catalog, trigger, key)


def _replaced(subject: Subject, trigger: Trigger) -> bool:
    return any(
        other.function == trigger.function
        and other.enabled in ("origin", "always")
        and other.timing == trigger.timing
        and set(trigger.events) <= set(other.events)
        for other in subject.catalog.triggers_of(trigger.relation)
    )


def _redundant(subject: Subject, trigger: Trigger, relation: Relation) -> bool:
    """Whether policies refuse the same: it looks at the row and the session alone, and they bind every such row."""
    function = subject.catalog.function(trigger.function)
    if not relation.rls_enabled or function is None or relations_read(subject, function):
        return False
    return all(
        bound(one) for one in uses(subject) if one.relation.oid == relation.oid and one.command in trigger.events
    )
