"""Context functions that a policy calls for every row."""

from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED
from rlsaudit.checks._fixes import several
from rlsaudit.checks._planner import indexed
from rlsaudit.checks._speed import Filter, at_stake, calls_by_row, evaluated_once, filters, found_by_key, only

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check, quote, remark
from rlsaudit.finding import Severity

_BARE = PROTECTED + "DROP INDEX invoices_tenant_id_idx;\n"
_FUNCTION = """\
CREATE FUNCTION current_tenant() RETURNS int LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN RETURN NULLIF(current_setting('app.tenant_id', true), '')::int; END $$;
"""


@check(
    "RLS602",
    title="A policy calls a context function for every row",
    severity="low",
    rationale=(
        "Whom a session acts for does not change within a statement, but the server asks again for each row that it"
        " filters unless the call stands in a subquery of its own: `(SELECT f())` is evaluated once. An SQL function of one"
        " plain expression is put in place of its call; plpgsql, SECURITY DEFINER and functions with settings are not."
    ),
    standards=("ISO 27001 A.8.6", "NIST 800-53 SC-5", "CWE-405"),
    examples=(
        Example(
            setup=_BARE + _FUNCTION,
            bad="CREATE POLICY tenant ON invoices USING (tenant_id = current_tenant());",
            good="CREATE POLICY tenant ON invoices USING (tenant_id = (SELECT current_tenant()));",
        ),
        Example(
            setup=_BARE,
            bad=(
                "CREATE FUNCTION current_tenant() RETURNS int LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp\n"
                "  AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;\n"
                "CREATE POLICY tenant ON invoices USING (amount > 0 AND tenant_id = current_tenant());"
            ),
            good=(
                "CREATE FUNCTION current_tenant() RETURNS int LANGUAGE sql STABLE\n"
                "  AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;\n"
                "CREATE POLICY tenant ON invoices USING (amount > 0 AND tenant_id = current_tenant());"
            ),
        ),
    ),
)
def context_function_per_row(subject: Subject) -> Iterator[Hit]:
    found: dict[int, list[Filter]] = {}
    for one in filters(subject):
        for oid, call in calls_by_row(subject, one).items():
            if call.user and call.volatility == "stable" and not e.depends_on_row(call):
                found.setdefault(oid, []).append(one)
    for oid, users in found.items():
        function = subject.catalog.function(oid)
        if function is None:
            continue
        relations = [one.relation for one in users]
        verb = "calls" if len(users) == 1 else "call"
        yield Hit(
            function.signature,
            f"{several(one.name for one in users)[:1].upper()}{several(one.name for one in users)[1:]} {verb}"
            f" {function.qualified}() outside of a subquery, so it runs again for each row that is filtered.",
            "\n".join(_wrap(function, one) for one in users),
            _severity(subject, users),
            relation=only(relations),
        )


def _severity(subject: Subject, users: list[Filter]) -> Severity:
    """An index lookup needs the value once; then only what other conditions find is filtered."""
    reading = [
        one.relation
        for one in users
        if one.key is None or not found_by_key(subject, one) or not indexed(subject.catalog, one.relation, one.key)
    ]
    return at_stake(reading) if reading else "info"


def _wrap(function: Function, one: Filter) -> str:
    wrapped = evaluated_once(one.policy.using or "", function.qualified)
    if wrapped == one.policy.using:
        return remark(f"{one.name}: write (SELECT {function.qualified}()) in place of the call")
    return f"ALTER POLICY {quote(one.policy.name)} ON {one.relation.qualified} USING ({wrapped});"
