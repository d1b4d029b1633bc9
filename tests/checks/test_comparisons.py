"""How policies compare the tenant key: what takes two tenants for one, what does not, and from where the tenant comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlsaudit.catalog.folding import matched

Make = Callable[..., Any]

CONTEXT = "NULLIF(current_setting('app.tenant_id', true), '')"


def tables(kind: str, condition: str, registry: str = "", more: str = "") -> str:
    """A registry, a table as it should be, and ``docs`` with the condition."""
    own = CONTEXT if kind == "text" else f"{CONTEXT}::{kind}"
    return f"""\
CREATE ROLE app LOGIN;
CREATE TABLE tenants (id {kind} PRIMARY KEY {registry});
CREATE TABLE users (id int PRIMARY KEY, tenant_id {kind} NOT NULL REFERENCES tenants);
CREATE TABLE docs (id int PRIMARY KEY, tenant_id {kind} NOT NULL REFERENCES tenants, region_id int, note text, meta jsonb);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE docs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants USING (id = {own});
CREATE POLICY p ON users USING (tenant_id = {own});
GRANT SELECT ON tenants TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON users, docs TO app;
{more}
CREATE POLICY p ON docs USING ({condition});
"""


def said(made: Any, *checks: str) -> list[tuple[str, str]]:
    return [(f.check, f.severity) for f in made.findings() if f.check in checks]


COMPARISONS = ("RLS101", "RLS102", "RLS103", "RLS104", "RLS105", "RLS108", "RLS109", "RLS110", "RLS111")


@pytest.mark.parametrize(
    ("kind", "condition", "severity"),
    [
        ("int", f"tenant_id::text LIKE {CONTEXT} || '%'", "critical"),
        ("int", f"{CONTEXT} LIKE '%' || tenant_id || '%'", "critical"),
        ("int", f"tenant_id / 100 = {CONTEXT}::int / 100", "critical"),
        ("int", f"tenant_id <= {CONTEXT}::int", "critical"),
        ("int", f"tenant_id::real = {CONTEXT}::real", "high"),
        ("int", f"(tenant_id, id) >= ({CONTEXT}::int, 0)", "critical"),
        ("bigint", f"tenant_id = {CONTEXT}::float8", "high"),
        ("bigint", f"tenant_id = {CONTEXT}::float8::bigint", "high"),
        ("uuid", f"left(tenant_id::text, 8) = left({CONTEXT}, 8)", "critical"),
        ("uuid", f"tenant_id::text LIKE {CONTEXT} || '%'", "medium"),
        ("text", f"tenant_id ~ {CONTEXT}", "critical"),
        ("text", f"starts_with(tenant_id, {CONTEXT})", "critical"),
        ("text", f"position(tenant_id in {CONTEXT}) > 0", "critical"),
        ("text", f"upper(tenant_id) = upper({CONTEXT})", "high"),
        ("text", f"hashtext(tenant_id) = hashtext({CONTEXT})", "high"),
        ("text", f"tenant_id::varchar(8) = {CONTEXT}::varchar(8)", "high"),
        ("text", f"tenant_id = {CONTEXT}::name", "high"),
        ("text", f"tenant_id NOT LIKE {CONTEXT}", "critical"),
        ("text", f"tenant_id = ALL (string_to_array({CONTEXT}, ','))", "critical"),
        ("text", f"EXISTS (SELECT FROM tenants t WHERE lower(t.id) = lower(docs.tenant_id) AND t.id = {CONTEXT})", "high"),
    ],
)  # fmt: skip
def test_inexact_comparisons(schema: Make, kind: str, condition: str, severity: str) -> None:
    made = schema(tables(kind, condition))
    assert said(made, *COMPARISONS) == [("RLS108", severity)]
    for finding in made.of("RLS108"):
        made.execute(finding.fix)
    assert not said(made, *COMPARISONS)


@pytest.mark.parametrize(
    ("kind", "condition", "registry", "more"),
    [
        ("int", f"tenant_id::numeric = {CONTEXT}::numeric", "", ""),
        ("int", f"tenant_id::float8 = {CONTEXT}::float8", "", ""),
        ("int", f"tenant_id BETWEEN {CONTEXT}::int AND {CONTEXT}::int", "", ""),
        ("int", f"'t' || tenant_id = 't' || {CONTEXT}", "", ""),
        ("uuid", f"lower(tenant_id::text) = lower({CONTEXT})", "", ""),
        ("uuid", f"tenant_id::varchar(36) = {CONTEXT}", "", ""),
        ("text", f"md5(tenant_id) = md5({CONTEXT})", "", ""),
        ("text", f"lower(tenant_id) = lower({CONTEXT})", "CHECK (id = lower(id))", ""),
        ("text", f"lower(tenant_id) = lower({CONTEXT})", "CHECK (id ~ '^[a-z0-9-]+$')", ""),
        ("text", f"lower(tenant_id) = lower({CONTEXT})", "", "CREATE UNIQUE INDEX ON tenants (lower(id));"),
        ("text", f"tenant_id::varchar(8) = {CONTEXT}", "CHECK (length(id) <= 8)", ""),
        ("text", f"tenant_id LIKE {CONTEXT} || '%' AND tenant_id = {CONTEXT}", "", ""),
        ("text", f"copy = {CONTEXT}", "", "ALTER TABLE docs ADD copy text GENERATED ALWAYS AS (tenant_id) STORED;"),
    ],
)  # fmt: skip
def test_comparisons_that_keep_tenants_apart(schema: Make, kind: str, condition: str, registry: str, more: str) -> None:
    assert not said(schema(tables(kind, condition, registry, more)), *COMPARISONS)


def test_a_generated_column_that_loses_some_of_the_key(schema: Make) -> None:
    more = "ALTER TABLE docs ADD short text GENERATED ALWAYS AS (left(tenant_id, 4)) STORED;"
    made = schema(tables("text", f"short = left({CONTEXT}, 4)", more=more))
    assert said(made, *COMPARISONS) == [("RLS108", "critical")]


_REQUESTED = "NULLIF(current_setting('app.requested', true), '')::int"


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (f"tenant_id = {_REQUESTED}", [("RLS109", "critical")]),
        (f"tenant_id = COALESCE({_REQUESTED}, {CONTEXT}::int)", [("RLS109", "critical")]),
        (f"tenant_id IN ({CONTEXT}::int, {_REQUESTED})", [("RLS109", "critical")]),
        (f"tenant_id = {CONTEXT}::int AND tenant_id = {_REQUESTED}", []),
        (f"region_id = {CONTEXT}::int", [("RLS110", "critical")]),
        (f"meta ->> 'tenant' = {CONTEXT}", [("RLS110", "critical")]),
        (f"tenant_id = {CONTEXT}::int AND region_id = {_REQUESTED}", []),
        (f"(tenant_id = {CONTEXT}::int) = (region_id = 1)", [("RLS102", "critical")]),
    ],
)
def test_other_settings_and_other_columns(schema: Make, condition: str, expected: list[tuple[str, str]]) -> None:
    assert said(schema(tables("int", condition)), *COMPARISONS) == expected


_RAISES = "(meta ->> 'n')::int >= 0"


@pytest.mark.parametrize(
    ("kind", "condition", "severity"),
    [
        ("int", f"tenant_id = {CONTEXT}::int AND {_RAISES}", "high"),
        ("text", f"tenant_id = {CONTEXT} AND {_RAISES}", ""),
        ("int", f"tenant_id = (SELECT {CONTEXT}::int) AND {_RAISES}", ""),
        ("int", f"CASE WHEN tenant_id = {CONTEXT}::int THEN {_RAISES} ELSE false END", ""),
        ("int", f"tenant_id = {CONTEXT}::int AND CASE WHEN note ~ '^[0-9]+$' THEN note::int > 0 END", ""),
    ],
)
def test_what_the_server_evaluates_first(schema: Make, kind: str, condition: str, severity: str) -> None:
    """As a server does that has a row of another tenant whose value is no number."""
    made = schema(tables(kind, condition))
    assert [level for _, level in said(made, "RLS111")] == ([severity] if severity else [])
    made.execute("INSERT INTO tenants VALUES ('1'), ('2')")
    made.execute("INSERT INTO docs SELECT n, '1', n, '1', '{\"n\": 1}' FROM generate_series(1, 50) AS n")
    made.execute("INSERT INTO docs SELECT n, '2', n, 'x', '{\"n\": \"secret\"}' FROM generate_series(51, 99) AS n")
    made.execute("ANALYZE docs; SET app.tenant_id = '1'; SET ROLE app")
    try:
        made.execute("SELECT FROM docs")
        printed = False
    except Exception as error:  # noqa: BLE001 - the message is the test
        printed = "secret" in str(error)
    made.connection.rollback()
    made.execute("RESET ROLE")
    assert printed == bool(severity)


_TRANSFERS = """\
CREATE TABLE transfers (id int PRIMARY KEY, sender int NOT NULL REFERENCES tenants, receiver int NOT NULL REFERENCES tenants);
ALTER TABLE transfers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON transfers TO app;
"""


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (f"sender = {CONTEXT}::int", []),
        (f"{CONTEXT}::int IN (sender, receiver)", [("RLS104", "high")]),
        ("sender IS NOT NULL", [("RLS104", "critical")]),
    ],
)
def test_rows_of_two_tenants(schema: Make, check: str, expected: list[tuple[str, str]]) -> None:
    policies = (
        f"CREATE POLICY seen ON transfers FOR SELECT USING ({CONTEXT}::int IN (sender, receiver));"
        f"CREATE POLICY made ON transfers FOR INSERT WITH CHECK ({check});"
    )
    made = schema(tables("int", f"tenant_id = {CONTEXT}::int", more=_TRANSFERS) + policies)
    assert said(made, *COMPARISONS) == expected


@pytest.mark.parametrize(
    ("operator", "text", "pattern", "expected"),
    [
        ("~~", "acme", "ac%", True), ("~~", "acme", "_cme", True), ("~~", "acme", "ac", False), ("~~", "a_c", "a\\_c", True),
        ("~~*", "ACME", "ac%", True), ("!~~", "acme", "ac%", False), ("~", "acme", "^a.*e$", True), ("~", "acme", "^c", False),
        ("~", "acme", "\\d", None), ("~", "acme\n", "e$", False), ("~", "acme", "[[:alpha:]]", None), ("^@", "acme", "ac", True),
        ("~", "ácme", "c", None), ("~", "acme", "(", None),
    ],
)  # fmt: skip
def test_patterns_of_constants(operator: str, text: str, pattern: str, expected: bool | None) -> None:
    assert matched(operator, text, pattern) is expected
