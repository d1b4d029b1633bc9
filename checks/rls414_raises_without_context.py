"""Policies that raise an error where they should show nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlsaudit.checks._context import asked, predicates
from rlsaudit.checks._examples import PROTECTED, TENANT
from rlsaudit.checks._fixes import several
from rlsaudit.checks._routines import calls, constant, rewrite

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.relations import Policy, Relation
from rlsaudit.catalog.simplify import RAISES, State, simplify
from rlsaudit.check import Example, Hit, Subject, check

_READ = re.compile(
    r"(?:pg_catalog\.)?current_setting\(('(?:[^']|'')*\.(?:[^']|'')*')::text(?:, (?:true|false))?\)", re.IGNORECASE
)


@check(
    "RLS414",
    title="Policies raise an error when no tenant is set",
    severity="low",
    rationale=(
        "That fails closed, but as an error: a health check, a sign-up page or the first request on a used connection"
        " breaks. A setting that was SET LOCAL once is an empty string afterwards, which no cast to a key accepts."
    ),
    standards=("SOC 2 CC7.5", "ISO 27001 A.8.6", "NIST 800-53 SC-24", "CWE-755"),
    examples=(
        Example(
            setup=PROTECTED,
            bad="CREATE POLICY tenant ON invoices USING (tenant_id = current_setting('app.tenant_id', true)::int);",
            good=f"CREATE POLICY tenant ON invoices USING ({TENANT});",
        ),
        Example(
            setup=PROTECTED,
            bad=(
                "CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE"
                " AS $$ SELECT current_setting('app.tenant_id')::int $$;\n"
                "CREATE POLICY tenant ON invoices USING (tenant_id = tenant());"
            ),
            good=(
                "CREATE POLICY tenant ON invoices USING (\n"
                "  CASE WHEN current_setting('app.tenant_id', true) <> ''\n"
                "       THEN tenant_id = current_setting('app.tenant_id', true)::int END);"
            ),
        ),
    ),
)
def raises_without_context(subject: Subject) -> Iterator[Hit]:
    missing: dict[int, tuple[Policy, Relation]] = {}
    empty: dict[int, tuple[Policy, Relation]] = {}
    names: dict[str, None] = {}
    known: dict[tuple[e.Expression, str], bool] = {}
    for policy, relation, predicate in predicates(subject):
        for state, found in (("null", missing), ("empty", empty)):
            alike = (e.model(predicate), state)
            if alike not in known:
                known[alike] = _raises(predicate, "null" if state == "null" else "empty")
            if known[alike]:
                found[policy.oid] = (policy, relation)
                names.update({p.name: None for p in e.walk(predicate) if isinstance(p, e.Setting) and "." in p.name})
    both = missing | empty
    if not both or not names:
        return
    when = " or ".join([*(["not set"] if missing else []), *(["empty (as a SET LOCAL leaves it)"] if empty else [])])
    tables = several(relation.qualified for _, relation in both.values())
    yield Hit(
        f"setting {next(iter(names))}",
        f"With {several(names)} {when} the policies of {tables} raise an error instead of showing no rows.",
        "\n".join([*_functions(subject), *_policies(both)]),
        "low" if empty else "info",
    )


def _raises(predicate: e.Expression, state: State) -> bool:
    return any(part == RAISES for part in e.walk(simplify(predicate, state)))


def _policies(found: dict[int, tuple[Policy, Relation]]) -> Iterator[str]:
    for policy, relation in found.values():
        using, check_ = (_READ.sub(_plain, text or "") for text in (policy.using, policy.check))
        if (using, check_) != (policy.using or "", policy.check or ""):
            said = (f" USING ({using})" if using else "") + (f" WITH CHECK ({check_})" if check_ else "")
            yield f"ALTER POLICY {quote(policy.name)} ON {relation.qualified}{said};"


def _plain(match: re.Match[str]) -> str:
    return f"NULLIF(current_setting({match.group(1)}, true), '')"


def _functions(subject: Subject) -> Iterator[str]:
    for one in asked(subject):
        source = one.function.source
        changes = []
        for call in calls(source):
            name = constant(call.arguments[0]) if call.name == "current_setting" and call.arguments else None
            if name and "." in name:
                first = source[call.arguments[0][0].start : call.arguments[0][-1].end]
                changes.append((source[call.start : call.end], f"NULLIF(current_setting({first}, true), '')"))
        if changes and one.function.body_tree is None:
            yield rewrite(one.function, changes)
