"""Holes of the server: by exact version, and only where this database lies open to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rlsaudit.checks._advisories import ADVISORIES, LATEST, Advisory, number
from rlsaudit.checks._examples import PROTECTED, SOUND, TENANT

from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.check import check, registry, run_checks
from rlsaudit.errors import UsageError
from rlsaudit.finding import Finding
from rlsaudit.tenancy.infer import Declared, infer

Make = Callable[..., Any]
BEFORE = "2026-10-01T00:00:00.000000+00:00"

TWO_ROLES = PROTECTED + (
    "CREATE ROLE other; CREATE ROLE pool LOGIN NOINHERIT; GRANT app, other TO pool;"
    "GRANT SELECT, INSERT, UPDATE ON invoices TO other;"
    f"CREATE POLICY a ON invoices TO app USING ({TENANT} AND amount > 0);"
    f"CREATE POLICY b ON invoices TO other USING ({TENANT});"
)
GROUP = PROTECTED + (f"CREATE ROLE staff; GRANT staff TO app; CREATE POLICY a ON invoices TO staff USING ({TENANT});")
SETTING = PROTECTED + f"CREATE POLICY a ON invoices USING ({TENANT} AND current_setting('role') = 'app');"
MERGE = PROTECTED + (
    f"CREATE POLICY s ON invoices FOR SELECT USING ({TENANT});"
    f"CREATE POLICY i ON invoices FOR INSERT WITH CHECK ({TENANT});"
    f"CREATE POLICY u ON invoices FOR UPDATE USING ({TENANT}) WITH CHECK ({TENANT} AND amount < 100);"
)
CHILDREN = SOUND + "CREATE TABLE old_invoices () INHERITS (invoices);"
STATISTICS = SOUND + "CREATE STATISTICS by_name ON lower(name), (id % 10) FROM customers;"
SCHEMAS = SOUND + "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO app', current_database()); END $$;"
OBJECTS = SOUND + "GRANT CREATE ON SCHEMA public TO app;"


def judged(catalog: Catalog, version: str, clock: str = BEFORE, *, guarded: bool = True) -> dict[str, Finding]:
    """Findings of RLS701 by object, had the catalog come from a server of this version."""
    server = replace(
        catalog.server, version=version, version_num=number(version), clock=clock, statistics_guarded=guarded
    )
    old = replace(catalog, server=server)
    found = run_checks(old, infer(old, Declared(roles=("app",))))
    return {one.object: one for one in found if one.check == "RLS701"}


@pytest.fixture
def read(schema: Make) -> Callable[[str], Catalog]:
    return lambda script: load_catalog(schema(script).connection)


@pytest.mark.parametrize(
    ("cve", "script", "severity", "open_on", "closed_on"),
    [
        ("CVE-2023-2455", TWO_ROLES, "medium", "15.2", "15.3"),
        ("CVE-2024-10976", TWO_ROLES, "medium", "16.4", "16.5"),
        ("CVE-2024-10976", TWO_ROLES, "medium", "17.0", "17.1"),
        ("CVE-2026-14666", GROUP, "low", "18.5", "18.6"),
        ("CVE-2026-14666", GROUP, "low", "15.18", "15.19"),
        ("CVE-2024-10978", SETTING, "medium", "15.8", "15.9"),
        ("CVE-2023-39418", MERGE, "medium", "15.3", "15.4"),
        ("CVE-2025-8713", CHILDREN, "medium", "17.5", "17.6"),
        ("CVE-2025-8713", CHILDREN, "medium", "16.9", "16.10"),
        ("CVE-2024-4317", STATISTICS, "medium", "16.2", "16.3"),
        ("CVE-2023-2454", SCHEMAS, "medium", "15.2", "15.3"),
        ("CVE-2024-0985", OBJECTS, "low", "16.1", "16.2"),
        ("CVE-2024-7348", OBJECTS, "low", "16.3", "16.4"),
    ],
)  # fmt: skip
def test_a_hole_is_open_up_to_the_release_that_mends_it(
    read: Callable[[str], Catalog], cve: str, script: str, severity: str, open_on: str, closed_on: str
) -> None:
    exposed, name = read(script), f"server, {cve}"
    found = judged(exposed, open_on)[name]
    assert found.severity == severity
    assert f"upgrade to {closed_on} or later" in found.fix
    assert open_on in found.message
    assert name not in judged(exposed, closed_on)


def test_what_this_schema_does_not_use_is_one_remark(read: Callable[[str], Catalog]) -> None:
    catalog = read(SOUND)
    found = judged(catalog, "16.2")
    assert {name: one.severity for name, one in found.items()} == {"server": "low"}
    assert "CVE-2024-10976" in found["server"].message
    assert "16.15" in found["server"].fix


def test_policies_that_are_the_same_for_insert_and_update_need_no_fix_of_merge(read: Callable[[str], Catalog]) -> None:
    assert "server, CVE-2023-39418" not in judged(read(SOUND), "15.3")


def test_the_newest_releases_are_silent(read: Callable[[str], Catalog]) -> None:
    catalog = read(CHILDREN)
    for major, minor in LATEST.items():
        if major >= 15:
            assert judged(catalog, f"{major}.{minor}") == {}


def test_one_release_behind_without_a_hole_is_info(
    read: Callable[[str], Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LATEST, 18, 7)  # type: ignore[arg-type]
    found = judged(read(SOUND), "18.6")
    assert {name: one.severity for name, one in found.items()} == {"server": "info"}


def test_a_release_newer_than_this_knowledge_is_silent(read: Callable[[str], Catalog]) -> None:
    catalog = read(CHILDREN)
    assert judged(catalog, "18.9") == {}
    assert judged(catalog, "19.0") == {}


def test_the_end_of_support_is_told_by_the_clock_of_the_server(read: Callable[[str], Catalog]) -> None:
    catalog = read(SOUND)
    assert judged(catalog, "15.19", "2027-11-11T12:00:00.000000+00:00") == {}
    found = judged(catalog, "15.19", "2027-11-12T12:00:00.000000+00:00")["server"]
    assert (found.severity, "2027-11-11" in found.message) == ("low", True)


def test_an_upgraded_cluster_can_keep_the_open_view(read: Callable[[str], Catalog]) -> None:
    catalog = read(STATISTICS)
    assert "server, CVE-2024-4317" not in judged(catalog, "16.15")
    found = judged(catalog, "16.15", guarded=False)["server, CVE-2024-4317"]
    assert found.severity == "medium"
    assert "upgrade" not in found.fix
    assert "public.by_name" in found.message


def test_the_view_is_read_as_it_stands(schema: Make) -> None:
    """As an old cluster has it, it is open; the REVOKE that the fix names closes it too."""
    made = schema("CREATE TABLE t (tenant_id int)")
    view = "pg_catalog.pg_stats_ext_exprs"
    with made.connection.transaction(force_rollback=True):
        made.execute("SET LOCAL allow_system_table_mods = on")
        made.execute(
            f"DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW {view} AS '"
            f" || replace(pg_get_viewdef('{view}'::regclass), 'row_security_active(c.oid)', 'false'); END $$"
        )
        assert not load_catalog(made.connection).server.statistics_guarded
        made.execute(f"REVOKE SELECT ON {view} FROM PUBLIC")
        assert load_catalog(made.connection).server.statistics_guarded


@pytest.mark.parametrize(
    ("advisory", "version", "expected"),
    [("CVE-2016-2193", "9.5.1", "9.5.2"), ("CVE-2016-2193", "9.5.2", None), ("CVE-2016-2193", "9.4.9", None),
     ("CVE-2016-2193", "15.0", None), ("CVE-2019-10130", "10.7", "10.8"), ("CVE-2019-10130", "10.8", None),
     ("CVE-2019-10130", "9.6.12", "9.6.13"), ("CVE-2019-10130", "12.0", None), ("CVE-2017-15099", "10.0", "10.1"),
     ("CVE-2023-39418", "14.0", None), ("CVE-2023-39418", "16.0", None), ("CVE-2024-4317", "13.3", None),
     ("CVE-2024-10976", "11.22", "12.21"), ("CVE-2025-8713", "18.0", None)],
)  # fmt: skip
def test_versions_are_told_apart_by_branch(advisory: str, version: str, expected: str | None) -> None:
    assert _named(advisory).mended_in(number(version)) == expected


def test_a_check_without_examples_says_what_it_covers() -> None:
    one = next(one for one in registry() if one.id == "RLS701")
    assert not one.examples
    assert all(any(advisory.cve in line and advisory.url in line for line in one.covers) for advisory in ADVISORIES)
    with pytest.raises(UsageError, match="covers"):
        check("RLS998", title="", severity="low", rationale="", standards=())(lambda _: ())


def _named(cve: str) -> Advisory:
    return next(one for one in ADVISORIES if one.cve == cve)
