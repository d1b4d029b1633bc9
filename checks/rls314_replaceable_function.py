"""Functions that protect tenant data and that the application may replace."""

from collections.abc import Iterator

from rlsaudit.checks._deciders import calls_reached, deciders
from rlsaudit.checks._examples import PROTECTED
from rlsaudit.checks._fixes import policy_name, routine, several

from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check

_CONTEXT = """\
CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;
CREATE POLICY tenant ON invoices USING (tenant_id = tenant());
"""


@check(
    "RLS314",
    title="The application owns a function that decides about tenant data",
    severity="high",
    rationale=(
        "The owner of a function may replace its body. When policies, triggers or views of tenant tables call it, whoever"
        " acts as the owner decides what they let through."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-284"),
    examples=(
        Example(
            setup=PROTECTED,
            bad=_CONTEXT + "ALTER FUNCTION tenant() OWNER TO app;",
            good=_CONTEXT + "ALTER FUNCTION tenant() OWNER TO keeper;",
        ),
    ),
)
def replaceable_function(subject: Subject) -> Iterator[Hit]:
    catalog, visibility = subject.catalog, subject.visibility
    able: dict[int, str] = {}
    for role in subject.tenancy.roles:
        if not catalog.role(role.oid).superuser:
            able |= dict.fromkeys(visibility.becomes(role.oid) | visibility.inherits(role.oid), role.name)
    owned = [one for one in catalog.functions if one.owner in able and not one.extension]
    uses = _uses(subject) if owned else {}
    for function in owned:
        if function.oid not in uses:
            continue
        where = uses[function.oid]
        said = several(where)
        yield Hit(
            function.signature,
            f"{able[function.owner]} can replace {function.signature}, which it owns or can own; {said} rely on it.",
            _fix(subject, function),
            role=able[function.owner],
        )


def _uses(subject: Subject) -> dict[int, list[str]]:
    """Functions that policies, triggers and views of tenant data call, with what calls them."""
    catalog = subject.catalog
    found: dict[int, list[str]] = {}
    for oid, policies in deciders(subject).items():
        for policy in policies:
            relation = catalog.relation(policy.relation)
            if subject.tenancy.of(relation.oid).tenant_data:
                found.setdefault(oid, []).append(policy_name(policy, relation))
    for trigger in catalog.triggers:
        relation_of = catalog.find_relation(trigger.relation)
        if (
            relation_of is not None
            and trigger.enabled != "disabled"
            and subject.tenancy.of(relation_of.oid).tenant_data
        ):
            for oid in calls_reached(subject, trigger.function):
                found.setdefault(oid, []).append(f"trigger {quote(trigger.name)} on {relation_of.qualified}")
    for user in catalog.relations:
        view = user.kind in ("view", "materialized view")
        if view or subject.tenancy.of(user.oid).tenant_data:
            for called in catalog.mentions("relation", user.oid, "function"):
                for oid in calls_reached(subject, called):
                    found.setdefault(oid, []).append(f"{'view' if view else 'a default of'} {user.qualified}")
    return {oid: list(dict.fromkeys(where)) for oid, where in found.items()}


def _fix(subject: Subject, function: Function) -> str:
    """To the database's owner, or to a role made for it."""
    owner = subject.catalog.server.database_owner
    known = subject.catalog.role_name(owner)
    mine = {oid for role in subject.tenancy.roles for oid in subject.visibility.becomes(role.oid)}
    lines = []
    if owner == 0 or owner in mine:
        known = "schema_owner"
        lines.append(f"CREATE ROLE {known} NOLOGIN;")
    lines.append(f"ALTER {routine(function)} {function.signature} OWNER TO {quote(known)};")
    return "\n".join(lines)
