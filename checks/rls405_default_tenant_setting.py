"""ALTER ROLE and ALTER DATABASE … SET that give sessions a tenant they did not ask for."""

from collections.abc import Iterator

from rlsaudit.checks._context import context_settings, tenant_relations
from rlsaudit.checks._default import nobody
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import several
from rlsaudit.checks._openings import tenant_settings
from rlsaudit.checks._stored import sessions_of, stored_at

from rlsaudit.catalog.cluster import Setting
from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.identifiers import quote
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity
from rlsaudit.tenancy import words

_HARMLESS = frozenset({"", "user", "member", "viewer", "guest", "anonymous", "none", "false", "off", "no", "f", "0"})


@check(
    "RLS405",
    title="A role or database has a default tenant",
    severity="high",
    rationale=(
        "A stored setting is the value of every new connection and the one that SET LOCAL falls back to. A request that"
        " forgets its tenant then works on this tenant's rows, instead of on none."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.9", "NIST 800-53 CM-6", "CWE-1188"),
    examples=(
        Example(
            setup=SOUND,
            bad="ALTER ROLE app SET app.tenant_id = '2';",
            good="ALTER ROLE app SET app.tenant_id = '';",
        ),
        Example(
            setup=SOUND,
            bad="DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET app.tenant_id = 1', current_database()); END $$;",
            good="CREATE ROLE batch LOGIN BYPASSRLS;\nALTER ROLE batch SET app.tenant_id = '2';",
        ),
    ),
)
def default_tenant_setting(subject: Subject) -> Iterator[Hit]:
    names = context_settings(subject)
    for setting in subject.catalog.settings:
        name = setting.name.lower()
        who = sessions_of(subject, setting)
        if name not in names or not who or nobody(setting.value):
            continue
        if words.role_like(name) and setting.value.lower() in _HARMLESS:
            continue
        place, alter = stored_at(subject, setting)
        if own_logins(subject, setting):
            continue
        severity: Severity = "high"
        said = f"acts on {several(r.qualified for r in tenant_relations(subject))} as {setting.value}"
        if name not in tenant_settings(subject) and not words.user_like(name):
            severity = "high" if words.role_like(name) else "low"
            said = f"has {name} = {setting.value}"
        yield Hit(
            place,
            f"{place} has {name} = {setting.value} stored, so a session of {several(who)} that sets nothing {said}.",
            f"{alter} RESET {'.'.join(quote(part) for part in setting.name.split('.'))};",
            severity,
            role=several(who),
        )


def own_logins(subject: Subject, setting: Setting) -> bool:
    """Whether each of several login roles has its own value of the setting: they are the tenants' own logins."""
    values = {
        one.role: one.value
        for one in subject.catalog.settings
        if one.name.lower() == setting.name.lower() and one.role != PUBLIC and one.value
    }
    return setting.role in values and len(values) > 1 and len(set(values.values())) == len(values)
