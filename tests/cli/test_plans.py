"""``rlsaudit audit --plans``: the table on standard output, and where there is nothing to plan on."""

from __future__ import annotations

import json

from rlsaudit.check import registry

OPEN = """
CREATE TABLE logs (id int PRIMARY KEY, tenant_id integer NOT NULL, body text);
CREATE INDEX logs_tenant ON logs (tenant_id);
ALTER TABLE logs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON logs USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::integer)
    OR current_setting('app.admin', true) = 'on');
GRANT SELECT ON logs TO c_app;
"""


def _rows(output: str) -> set[tuple[str, ...]]:
    return {tuple(line.split()) for line in output.splitlines() if line.startswith("public.") and "index" in line}


def test_sql_is_planned(rlsaudit, sound, tmp_path) -> None:
    ran = rlsaudit("audit", sound, "--plans")
    assert ran.code == 0, ran.errors
    planned = _rows(ran.output)
    assert {row[2] for row in planned} == {"SELECT", "UPDATE", "DELETE"}
    assert {row[3:5] for row in planned} == {("key", "index")}
    assert "rows found by" not in rlsaudit("audit", sound).output


def test_a_table_that_is_read_whole_for_no_known_reason_is_a_finding(rlsaudit, sound, tmp_path) -> None:
    sound.write_text(sound.read_text() + OPEN)
    ran = rlsaudit("audit", sound, "--plans", "--fail-on", "critical")
    assert "whole table" in ran.output
    evidence = json.loads((tmp_path / "rlsaudit-report" / "evidence.json").read_text())
    found = [one for one in evidence["findings"] if one["check"] == "RLS608"]
    assert [(one["object"], one["severity"], one["source"]) for one in found] == [("public.logs", "low", "check")]
    assert "logs_tenant" in found[0]["message"]
    page = next(one for one in registry() if one.id == "RLS608")
    assert [found[0][name] for name in ("title", "severity", "rationale")] == [
        page.title,
        page.severity,
        page.rationale,
    ]
    assert tuple(found[0]["standards"]) == page.standards
    (tmp_path / "rlsaudit.toml").write_text('[[allow]]\ncheck = "RLS608"\nobject = "public.logs"\nreason = "small"\n')
    rlsaudit("audit", sound, "--plans", "--fail-on", "critical")
    evidence = json.loads((tmp_path / "rlsaudit-report" / "evidence.json").read_text())
    assert [one["status"] for one in evidence["findings"] if one["check"] == "RLS608"] == ["waived"]


def test_a_live_database_is_planned_on_a_copy(rlsaudit, target, sound) -> None:
    with target.connect("target") as connection:
        connection.execute(sound.read_bytes())
        connection.execute("INSERT INTO notes VALUES (1, 1, 'x')")
    ran = rlsaudit("audit", target.conninfo("target"), "--plans", "--fail-on", "critical")
    assert ran.code in (0, 1), ran.errors
    assert {row[3:5] for row in _rows(ran.output)} == {("key", "index")}
    with target.connect("target") as connection:
        assert connection.execute("SELECT pg_relation_size('notes')").fetchone() == (8192,)


def test_a_snapshot_has_no_copy_to_plan_on(rlsaudit, sound) -> None:
    assert rlsaudit("snapshot", sound, "--output", "saved.json", "-q").code == 0
    ran = rlsaudit("audit", "saved.json", "--plans", "-q")
    assert ran.code == 2
    assert len(ran.said) == 1
    assert "--plans" in ran.said[0]
