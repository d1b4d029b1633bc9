"""Volatile functions in policies."""

import re
from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED
from rlsaudit.checks._fixes import several
from rlsaudit.checks._speed import Filter, calls_by_row, evaluated_once, filters, only

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check, quote, remark

_TEXT = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_WRITES = re.compile(
    r"\b(insert|update|delete|merge|truncate|create|alter|drop|grant|revoke|execute|perform|call|copy|lock|notify"
    r"|pg_notify|set|set_config|nextval|setval|random|clock_timestamp|timeofday|gen_random_uuid|dblink\w*)\b",
    re.IGNORECASE,
)

_FUNCTION = """\
CREATE FUNCTION current_tenant() RETURNS int LANGUAGE plpgsql AS $$
BEGIN RETURN NULLIF(current_setting('app.tenant_id', true), '')::int; END $$;
"""


@check(
    "RLS603",
    title="A policy calls a volatile function",
    severity="low",
    rationale=(
        "VOLATILE is what a function is when nothing else is said. Its value may differ from row to row, so no index"
        " can be used for the comparison and every row of every tenant is read and tested; a scan that runs in parallel"
        " is ruled out too. What a session is does not change within a statement: STABLE says so."
    ),
    standards=("ISO 27001 A.8.6", "NIST 800-53 SC-5", "CWE-405"),
    examples=(
        Example(
            setup=PROTECTED + _FUNCTION,
            bad="CREATE POLICY tenant ON invoices USING (tenant_id = current_tenant());",
            good="CREATE POLICY tenant ON invoices USING (tenant_id = (SELECT current_tenant()));",
        ),
        Example(
            setup=PROTECTED,
            bad=(
                "CREATE FUNCTION is_mine(tenant int) RETURNS boolean LANGUAGE plpgsql AS $$\n"
                "BEGIN RETURN tenant = NULLIF(current_setting('app.tenant_id', true), '')::int; END $$;\n"
                "CREATE POLICY tenant ON invoices USING (is_mine(tenant_id));"
            ),
            good=(
                "CREATE FUNCTION is_mine(tenant int) RETURNS boolean LANGUAGE sql AS $$\n"
                "SELECT tenant = NULLIF(current_setting('app.tenant_id', true), '')::int $$;\n"
                "CREATE POLICY tenant ON invoices USING (is_mine(tenant_id));"
            ),
        ),
    ),
)
def volatile_in_policy(subject: Subject) -> Iterator[Hit]:
    found: dict[int, list[tuple[Filter, e.Call]]] = {}
    for one in filters(subject):
        for oid, call in calls_by_row(subject, one).items():
            if call.volatility == "volatile":
                found.setdefault(oid, []).append((one, call))
    for oid, users in found.items():
        function = subject.catalog.function(oid)
        name = function.qualified if function else users[0][1].name
        tables = several(one.relation.qualified for one, _ in users)
        yield Hit(
            function.signature if function else f"{name}()",
            f"{name}() is VOLATILE and decides in {several(one.name for one, _ in users)}, so a query of {tables} calls it"
            " for every row of every tenant and cannot use an index.",
            "\n".join(_fix(subject, oid, name, users)),
            relation=only(one.relation for one, _ in users),
        )


def _fix(subject: Subject, oid: int, name: str, users: list[tuple[Filter, e.Call]]) -> Iterator[str]:
    """STABLE where the body only reads; a subquery of its own wherever that is possible."""
    function = subject.catalog.function(oid)
    stable = function is not None and _only_reads(function)
    if function is not None and stable:
        yield f"ALTER FUNCTION {function.signature} STABLE;"
    elif function is not None:
        yield remark(f"if {function.signature} changes nothing: ALTER FUNCTION {function.signature} STABLE")
    for one, call in users:
        wrapped = evaluated_once(one.policy.using or "", name)
        if not e.depends_on_row(call) and wrapped != one.policy.using:
            yield f"ALTER POLICY {quote(one.policy.name)} ON {one.relation.qualified} USING ({wrapped});"


def _only_reads(function: Function) -> bool:
    """By its text: nothing is written, and what it calls is not known to change from call to call."""
    return function.language in ("sql", "plpgsql") and not _WRITES.search(_TEXT.sub(" ", function.source))
