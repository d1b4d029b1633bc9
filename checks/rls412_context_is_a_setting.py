"""Context in a custom setting, which any SQL may overwrite."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlsaudit.checks._context import asked, context_settings, predicates, tenant_relations
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import several
from rlsaudit.checks._openings import tenant_settings
from rlsaudit.checks._routines import calls, constant, rewrite

from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.identifiers import literal, quote
from rlsaudit.catalog.relations import Policy, Relation
from rlsaudit.check import Example, Hit, Subject, check, remark

_LOGINS = """\
CREATE ROLE acme LOGIN IN ROLE app;
CREATE ROLE globex LOGIN IN ROLE app;
"""


@check(
    "RLS412",
    title="Whoever sends SQL may overwrite the context",
    severity="high",
    rationale=(
        "Any session may SET a custom setting to any value; the value proves nothing. That is sound for an application"
        " that sends only its own statements, and no protection where tenants or injected text choose the statement."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.5", "NIST 800-53 IA-2", "CWE-290"),
    examples=(
        Example(
            setup=SOUND + _LOGINS,
            bad="ALTER ROLE acme SET app.tenant_id = '1';\nALTER ROLE globex SET app.tenant_id = '2';",
            good="GRANT CONNECT ON DATABASE postgres TO acme, globex;",
        ),
    ),
)
def context_is_a_setting(subject: Subject) -> Iterator[Hit]:
    names = sorted(name for name in tenant_settings(subject) & context_settings(subject))
    if not names:
        return
    tables = several(relation.qualified for relation in tenant_relations(subject))
    for name in names:
        logins = _logins(subject, name)
        if len(set(logins.values())) > 1:
            yield Hit(
                f"setting {name}",
                f"{several(logins)} log in with a tenant of their own in {name}, but each may SET {name} to another and"
                f" reach that tenant's rows of {tables}.",
                _by_login(subject, name, logins),
                role=several(logins),
            )
            return
    yield Hit(
        f"setting {names[0]}",
        f"Any SQL may set {several(names)}, which policies of {tables} believe; that is sound as long as only the"
        " application's own statements run. Where tenants could send SQL, give each its own login, or have a function check"
        " a signed token and keep the tenant in a table that only its owner writes.",
        _by_its_own_login(names[0]),
        "info",
    )


def _logins(subject: Subject, name: str) -> dict[str, str]:
    """Login roles with a stored value of the setting that policies bind, and the values."""
    found = {}
    for setting in subject.catalog.settings:
        if setting.name.lower() != name or setting.role == PUBLIC or not setting.value:
            continue
        role = next((one for one in subject.catalog.roles if one.oid == setting.role), None)
        if role is None or not role.login or role.superuser or role.bypassrls:
            continue
        found[role.name] = setting.value
    return found


def _by_its_own_login(name: str) -> str:
    return remark(
        f"where tenants send SQL: for each, CREATE ROLE … LOGIN IN ROLE the application's; and policies that tell the tenant"
        f" by session_user in place of current_setting({literal(name)}, true)"
    )


def _by_login(subject: Subject, name: str, logins: dict[str, str]) -> str:
    """The same tenants, told by the login instead of by the setting."""
    schema = tenant_relations(subject)[0].schema
    taken = {function.name for function in subject.catalog.functions if function.schema == schema}
    called = "tenant_of_login"
    while called in taken:
        called += "_2"
    function = f"{quote(schema)}.{called}()"
    cases = " ".join(f"WHEN {literal(role)} THEN {literal(value)}" for role, value in logins.items())
    lines = [
        f"CREATE FUNCTION {function} RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp"
        f" RETURN CASE session_user {cases} END;"
    ]
    read = re.compile(
        rf"(?:pg_catalog\.)?current_setting\('{re.escape(name)}'::text(?:, (?:true|false))?\)", re.IGNORECASE
    )
    changed: dict[int, tuple[Policy, Relation]] = {}
    for policy, relation, _ in predicates(subject):
        if read.search(f"{policy.using} {policy.check}"):
            changed[policy.oid] = (policy, relation)
    for policy, relation in changed.values():
        using = f" USING ({read.sub(function, policy.using)})" if policy.using else ""
        check_ = f" WITH CHECK ({read.sub(function, policy.check)})" if policy.check else ""
        lines.append(f"ALTER POLICY {quote(policy.name)} ON {relation.qualified}{using}{check_};")
    for one in asked(subject):
        source = one.function.source
        places = [
            source[call.start : call.end]
            for call in calls(source)
            if call.name == "current_setting" and call.arguments and constant(call.arguments[0]) == name
        ]
        if places:
            lines.append(rewrite(one.function, [(place, function) for place in places]))
    return "\n".join(lines)
