"""ALTER ROLE and ALTER DATABASE … SET that start sessions without what isolation rests on."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import several
from rlsaudit.checks._guarded import guarded
from rlsaudit.checks._stored import sessions_of, stored_at

from rlsaudit.catalog.policies import settings_read
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity


@check(
    "RLS402",
    title="A stored setting takes guards away from new sessions",
    severity="high",
    rationale=(
        "session_replication_role = replica keeps ordinary triggers and foreign keys from firing, and role changes who"
        " the session is before its first statement. Stored for a role or database, that is how every connection begins."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.9", "NIST 800-53 CM-6", "CWE-1188"),
    examples=(
        Example(
            setup=SOUND + "ALTER TABLE invoices ADD FOREIGN KEY (id) REFERENCES customers;\n",
            bad="ALTER ROLE app SET session_replication_role = 'replica';",
            good="ALTER ROLE app SET session_replication_role = 'origin';",
        ),
        Example(
            setup=SOUND,
            bad="CREATE ROLE support BYPASSRLS;\nGRANT support TO app;\nALTER ROLE app SET role = 'support';",
            good="CREATE ROLE support;\nGRANT support TO app;\nALTER ROLE app SET role = 'support';",
        ),
    ),
)
def stored_setting_lifts_guards(subject: Subject) -> Iterator[Hit]:
    for setting in subject.catalog.settings:
        name, who = setting.name.lower(), sessions_of(subject, setting)
        if not who:
            continue
        found = None
        if name == "session_replication_role" and setting.value.lower() == "replica":
            found = _replica(subject)
        elif name == "role":
            found = _role(subject, setting.value)
        if found is None:
            continue
        place, alter = stored_at(subject, setting)
        severity, effect = found
        yield Hit(
            place,
            f"{place} has {name} = {setting.value} stored: sessions of {several(who)} {effect}.",
            f"{alter} RESET {name};",
            severity,
            role=several(who),
        )


def _replica(subject: Subject) -> tuple[Severity, str] | None:
    """What does not fire on tenant data."""
    catalog, data = subject.catalog, set(subject.tenancy.tenant_data())
    names = frozenset(subject.tenancy.context.settings)
    triggers = [t for t in catalog.triggers if t.relation in data and t.enabled == "origin"]
    guards = [t for t in triggers if settings_read(catalog, t.function) & names]
    if guards:
        return "high", f"skip {several(trigger.name for trigger in guards)}, which hold rows against the context"
    keys = [one for one in catalog.constraints if one.kind == "foreign key" and one.relation in data]
    if keys:
        tables = several(catalog.relation(one.relation).qualified for one in keys)
        return (
            "high",
            f"write rows that refer to nothing or to another tenant, because foreign keys of {tables} do not fire",
        )
    return ("medium", f"skip {several(trigger.name for trigger in triggers)}") if triggers else None


def _role(subject: Subject, value: str) -> tuple[Severity, str] | None:
    role = subject.catalog.role_named(value)
    if role is None:
        return None
    for relation in guarded(subject):
        why = subject.visibility.exempt(role.oid, relation)
        if why is not None:
            return "high", f"begin as {value}, whom no policy of {relation.qualified} binds ({why})"
    return None
