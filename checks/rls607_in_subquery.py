"""Tenant keys that are looked for in a subquery's result, which no index can answer."""

import re
from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED
from rlsaudit.checks._fixes import several
from rlsaudit.checks._planner import bare_column, indexed, once
from rlsaudit.checks._speed import Filter, closing, filters, found_by_key, masked, only

from rlsaudit.catalog import expression as e
from rlsaudit.check import Example, Hit, Subject, check, quote, remark

_MEMBERS = PROTECTED + (
    "CREATE TABLE members (member text, tenant_id int NOT NULL, PRIMARY KEY (member, tenant_id));\n"
    "GRANT SELECT ON members TO app;\n"
)


@check(
    "RLS607",
    title="A policy compares the tenant key by IN (SELECT …)",
    severity="info",
    rationale=(
        "A subquery of a policy cannot become a join: its result is kept in a hash table, and every row of every tenant"
        " is looked up there. `= ANY (ARRAY(SELECT …))` means the same, and the index on the key finds the rows."
    ),
    standards=("ISO 27001 A.8.6", "NIST 800-53 SC-5", "CWE-405"),
    examples=(
        Example(
            setup=_MEMBERS,
            bad=(
                "CREATE POLICY tenant ON invoices USING (tenant_id IN (SELECT m.tenant_id FROM members m\n"
                "  WHERE m.member = current_setting('app.user', true)));"
            ),
            good=(
                "CREATE POLICY tenant ON invoices USING (tenant_id = ANY (ARRAY(SELECT m.tenant_id FROM members m\n"
                "  WHERE m.member = current_setting('app.user', true))));"
            ),
        ),
    ),
)
def in_subquery(subject: Subject) -> Iterator[Hit]:
    catalog = subject.catalog
    found = [
        one
        for one in filters(subject)
        if one.key is not None
        and not one.relation.is_partition
        and indexed(catalog, one.relation, one.key)
        and not found_by_key(subject, one)
        and any(_asks(part, one.key) for part in e.walk(one.predicate))
    ]
    if found:
        relations = [one.relation for one in found]
        yield Hit(
            found[0].name if len(found) == 1 else "policies with IN (SELECT …)",
            f"{several(one.name for one in found)}: the key is looked for in a subquery's result, so queries of"
            f" {several(one.qualified for one in relations)} read the rows of all tenants although an index on the key is there.",
            "\n".join(_fix(one, one.key or "") for one in found),
            relation=only(relations),
        )


def _asks(part: e.Expression, key: str) -> bool:
    """``key IN (SELECT …)`` with a subquery that does not depend on the row."""
    if not isinstance(part, e.Subquery) or part.kind != "any" or not once(part) or not isinstance(part.test, e.Compare):
        return False
    columns = (bare_column(side) for side in (part.test.left, part.test.right))
    return any(column is not None and column.name == key for column in columns)


def _fix(one: Filter, key: str) -> str:
    text = one.policy.using or ""
    plain = masked(text)
    for start in reversed(list(re.finditer(rf'(?<![\w."]){re.escape(quote(key))} IN (?=\( SELECT)', plain))):
        end = closing(plain, start.end())
        if end:
            text = f"{text[: start.start()]}{quote(key)} = ANY (ARRAY{text[start.end() : end]}){text[end:]}"
    if text == one.policy.using:
        return remark(f"{one.name}: write {quote(key)} = ANY (ARRAY(SELECT …))")
    return f"ALTER POLICY {quote(one.policy.name)} ON {one.relation.qualified} USING ({text});"
