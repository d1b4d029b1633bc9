"""Severity by consequence in this database, and what is deliberately left unsaid."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rlsaudit.checks._examples import PROTECTED, ROLES, SOUND, TENANT

from rlsaudit import check as engine
from rlsaudit.check import Check, Hit, Subject
from rlsaudit.finding import Finding

Make = Callable[..., Any]


def levels(made: Any, check: str) -> dict[str, str]:
    return {finding.object: finding.severity for finding in made.of(check)}


def of_the_schema(made: Any) -> list[Finding]:
    """Findings other than those of the server's version, which the tests run on several of."""
    return [finding for finding in made.findings() if finding.check != "RLS701"]


def test_a_sound_schema_has_notes_only_one_of_each_kind(schema: Make) -> None:
    found = of_the_schema(schema(SOUND))
    assert {f.severity for f in found} <= {"info"}
    assert [f.check for f in found] == sorted({f.check for f in found})


def test_a_table_no_application_role_may_touch_is_info(schema: Make) -> None:
    made = schema(
        SOUND
        + "CREATE TABLE old_invoices (id int, tenant_id int NOT NULL);"
        + "CREATE ROLE auditor LOGIN; GRANT SELECT ON old_invoices TO auditor;"
    )
    assert levels(made, "RLS001") == {"public.old_invoices": "info"}
    made.execute("GRANT SELECT (id) ON old_invoices TO PUBLIC")
    assert levels(made, "RLS001") == {"public.old_invoices": "critical"}


def test_one_relation_is_reported_by_one_coverage_check(schema: Make) -> None:
    made = schema(ROLES + f"CREATE POLICY tenant ON invoices USING ({TENANT});")
    made.execute("ALTER TABLE invoices FORCE ROW LEVEL SECURITY")
    found = [f.check for f in made.findings() if f.object == "public.invoices"]
    assert found == ["RLS002"]


@pytest.mark.parametrize(
    ("grant", "expected"),
    [("", "info"), ("GRANT keeper TO app;", "critical"),
     pytest.param("GRANT keeper TO app WITH INHERIT FALSE, SET TRUE;", "critical", marks=pytest.mark.pg(16)),
     pytest.param("GRANT keeper TO app WITH INHERIT TRUE, SET FALSE;", "critical", marks=pytest.mark.pg(16)),
     pytest.param("GRANT keeper TO app WITH INHERIT FALSE, SET FALSE;", "info", marks=pytest.mark.pg(16))],
)  # fmt: skip
def test_missing_force_counts_by_who_can_be_the_owner(schema: Make, grant: str, expected: str) -> None:
    made = schema(SOUND + "ALTER TABLE invoices NO FORCE ROW LEVEL SECURITY;" + grant)
    assert levels(made, "RLS003") == {"public.invoices": expected}


@pytest.mark.parametrize("command", ["SELECT", "UPDATE", "DELETE"])
@pytest.mark.parametrize(
    "condition",
    ["true", "1 = 1", "2 > 1", "NOT false", "id IS NOT NULL", "coalesce(NULL, true)", f"{TENANT} OR 'a' = 'a'",
     "CASE WHEN 1 = 2 THEN false ELSE true END", "(SELECT 1) = 1", "EXISTS (SELECT 1)", "true IS NOT FALSE"],
)  # fmt: skip
def test_always_true_in_any_spelling(schema: Make, condition: str, command: str) -> None:
    made = schema(SOUND + f"CREATE POLICY p ON invoices FOR {command} USING ({condition});")
    assert [(f.severity, f.command) for f in made.of("RLS101")] == [("critical", command)]


@pytest.mark.parametrize(
    "condition",
    [TENANT, f"{TENANT} AND true", f"NOT (tenant_id <> {TENANT.partition(' = ')[2]})",
     f"tenant_id = ANY (ARRAY[{TENANT.partition(' = ')[2]}])", f"(CASE WHEN {TENANT} THEN true ELSE false END)",
     f"{TENANT} IS TRUE", f"tenant_id IN (SELECT {TENANT.partition(' = ')[2]})",
     "tenant_id::text = current_setting('app.tenant_id', true)",
     f"({TENANT} AND amount > 1) OR (amount < 1 AND {TENANT})", "false", "NULL",
     f"EXISTS (SELECT FROM customers c WHERE c.tenant_id = invoices.tenant_id AND c.{TENANT})",
     "EXISTS (SELECT FROM customers c WHERE c.tenant_id = invoices.tenant_id)"],
)  # fmt: skip
def test_sound_conditions_are_silent(schema: Make, condition: str) -> None:
    made = schema(PROTECTED + f"CREATE POLICY p ON invoices USING ({condition});")
    assert not [f for f in made.findings() if f.check.startswith("RLS1")]


@pytest.mark.parametrize(
    ("condition", "check", "severity"),
    [("tenant_id = tenant_id", "RLS102", "critical"), ("tenant_id IS NOT NULL", "RLS102", "critical"),
     ("tenant_id > 0", "RLS102", "critical"), ("amount = 1", "RLS102", "critical"),
     (f"NOT ({TENANT})", "RLS102", "critical"),
     ("EXISTS (SELECT FROM customers c WHERE c.id > 0)", "RLS102", "critical"),
     (f"EXISTS (SELECT FROM customers c WHERE c.{TENANT})", "RLS102", "critical"),
     (f"{TENANT} OR current_setting('app.god', true) = 'on'", "RLS102", "high"),
     (f"{TENANT} OR current_user = 'app'", "RLS102", "critical"),
     (f"{TENANT} OR current_user = 'keeper'", "RLS102", "low"),
     (f"{TENANT} OR current_setting('app.tenant_id', true) = ''", "RLS103", "critical"),
     (f"NOT (tenant_id IS DISTINCT FROM {TENANT.partition(' = ')[2]}) OR "
      "NULLIF(current_setting('app.tenant_id', true), '') IS NULL", "RLS103", "critical"),
     ("tenant_id = coalesce(NULLIF(current_setting('app.tenant_id', true), '')::int, tenant_id)", "RLS103", "critical")],
)  # fmt: skip
def test_loose_conditions_are_found(schema: Make, condition: str, check: str, severity: str) -> None:
    made = schema(PROTECTED + f"CREATE POLICY p ON invoices USING ({condition});")
    found = [f for f in made.findings() if f.check.startswith("RLS1")]
    assert [(f.check, f.severity) for f in found] == [(check, severity)]
    made.execute(found[0].fix)
    assert not [f for f in made.findings() if f.check.startswith("RLS1")]


def test_a_parent_without_row_security_protects_no_child(schema: Make) -> None:
    made = schema(
        PROTECTED
        + "CREATE POLICY p ON invoices USING (EXISTS (SELECT FROM customers c"
        + " WHERE c.tenant_id = invoices.tenant_id));"
    )
    assert not made.of("RLS102")
    made.execute("ALTER TABLE customers DISABLE ROW LEVEL SECURITY; DROP POLICY tenant ON customers")
    assert [f.severity for f in made.of("RLS102")] == ["critical"]


def test_a_disabled_trigger_guards_nothing(schema: Make) -> None:
    made = schema(
        PROTECTED
        + f"CREATE POLICY r ON invoices FOR SELECT USING ({TENANT});"
        + "CREATE POLICY w ON invoices FOR INSERT WITH CHECK (true);"
        + "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        + " IF NEW.tenant_id <> current_setting('app.tenant_id')::int THEN RAISE 'no'; END IF; RETURN NEW; END $$;"
        + "CREATE TRIGGER guard BEFORE INSERT ON invoices FOR EACH ROW EXECUTE FUNCTION guard();"
    )
    assert set(levels(made, "RLS104").values()) == {"info"}
    made.execute("ALTER TABLE invoices ENABLE REPLICA TRIGGER guard")
    assert set(levels(made, "RLS104").values()) == {"critical"}


def test_an_invoker_view_over_a_definer_view_names_the_definer_view(schema: Make) -> None:
    made = schema(
        SOUND
        + "CREATE VIEW base AS SELECT * FROM invoices;"
        + "CREATE VIEW top WITH (security_invoker) AS SELECT * FROM base; GRANT SELECT ON base, top TO app;"
        + "CREATE VIEW under WITH (security_invoker) AS SELECT * FROM invoices;"
        + "CREATE VIEW over AS SELECT * FROM under; GRANT SELECT ON under, over TO app;"
    )
    assert levels(made, "RLS301") == {"public.base": "critical"}


def test_fixes_quote_hostile_names(schema: Make) -> None:
    made = schema(
        SOUND
        + 'CREATE TABLE "x; DROP TABLE ""invoices""" (id int, tenant_id int NOT NULL);'
        + 'GRANT ALL ON "x; DROP TABLE ""invoices""" TO app;'
    )
    for _ in range(2):  # what protects a table calls for an index
        for finding in made.findings():
            if finding.fix:
                made.execute(finding.fix)
    assert not [f for f in of_the_schema(made) if f.severity != "info"]


def test_a_check_that_raises_is_reported_and_the_rest_run(schema: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Subject) -> Iterator[Hit]:
        raise ValueError("boom")

    checks = engine.registry()
    wrong = Check("RLS999", "Broken", "high", "", (), checks[0].examples, broken)
    monkeypatch.setattr(engine, "registry", lambda: (wrong, *checks))
    found = of_the_schema(schema(SOUND))
    assert [(f.check, f.severity) for f in found if f.severity != "info"] == [("RLS999", "high")]
    assert "boom" in found[0].message and len(found) > 1


def test_every_check_has_a_file_of_its_own() -> None:
    package = importlib.import_module("rlsaudit.checks")
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    assert sorted(name[:6].upper() for name in names) == [one.id for one in engine.registry()]
