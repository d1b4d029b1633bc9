"""Who watches the probe: a blind oracle or a wrong context must never end in a pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlsaudit.config import load
from rlsaudit.options import Options
from rlsaudit.probe.ground import oracle
from rlsaudit.report import Report
from rlsaudit.scan import scan
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.infer import Declared


@pytest.fixture
def report(base, tmp_path, server: ScratchServer):
    """Scan the sound schema with a configuration; gives the report."""

    def run(toml: str = "", sql: str = base) -> Report:
        (tmp_path / "schema.sql").write_text(sql, encoding="utf-8")
        declared = Declared()
        if toml:
            (tmp_path / "rlsaudit.toml").write_text(toml, encoding="utf-8")
            declared = load(tmp_path / "rlsaudit.toml", tmp_path).declared
        options = Options(str(tmp_path / "schema.sql"), stdin=None, declared=declared, pg_bin=_bin(server), budget=0)
        return scan(options, lambda what, done, of: None).report

    return run


def _bin(server: ScratchServer) -> Path:
    return server.binary("postgres").parent


def test_sighted_oracles_pass_the_sound_schema(report) -> None:
    found = report()
    assert (found.exit_code, found.verdict) == (0, "clean"), found.reasons


def test_oracle_that_sees_no_row_is_noticed(report, monkeypatch) -> None:
    monkeypatch.setattr(oracle, "taint", lambda *arguments: None)
    monkeypatch.setattr(oracle, "foreign_key_seen", lambda *arguments: None)
    found = report()
    assert (found.exit_code, found.verdict) == (3, "not trustworthy")
    assert "blind" in found.reasons[0]


def test_oracle_that_sees_no_change_is_noticed(report, monkeypatch) -> None:
    monkeypatch.setattr(oracle, "changed", lambda *arguments, **since: None)
    found = report()
    assert (found.exit_code, found.verdict) == (3, "not trustworthy")


def test_digest_that_leaves_a_relation_out_is_noticed(report, monkeypatch) -> None:
    honest, forgotten = oracle.parse_digest, []

    def forgetful(reply):
        digest = honest(reply)
        forgotten.append(max(forgotten or [oid for oid, _ in digest]))
        return {place: value for place, value in digest.items() if place[0] not in forgotten}

    monkeypatch.setattr("rlsaudit.probe.seeding.populate.parse_digest", forgetful)
    found = report()
    assert found.exit_code == 3
    assert "blind" in found.reasons[0]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT set_config('app.wrong_name', :tenant, true)",
        "SELECT set_config('app.tenant_id', '424242', true)",
        "SELECT set_config('app.tenant_id', 'no number', true)",
        "SELECT no_such_function(:tenant)",
        "this is no SQL",
    ],
)
def test_wrong_context_is_no_pass(report, statement) -> None:
    found = report(f'[context]\nstatements = ["{statement}"]\n')
    assert found.exit_code == 3, (found.verdict, found.reasons)
    assert not {cell.state for cell in found.cells} & {"held"}, [c for c in found.cells if c.state == "held"]


def test_context_that_fits_one_relation_only_leaves_gaps(report, base) -> None:
    sql = f"""{base}
        CREATE TABLE shop.other (tenant_id integer NOT NULL, text text NOT NULL);
        ALTER TABLE shop.other ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY own ON shop.other USING (tenant_id = NULLIF(current_setting('other.tenant', true), '')::integer);
        GRANT SELECT ON shop.other TO q_app;
    """
    # The inferred context sets both settings; that two tables read different ones is what the audit says.
    assert all(cell.state != "not covered" for cell in report(sql=sql).cells)
    found = report("[context]\nstatements = [\"SELECT set_config('app.tenant_id', :tenant, true)\"]\n", sql)
    assert found.exit_code == 1
    states = {(cell.relation, cell.command): cell.state for cell in found.cells}
    assert states["shop.other", "SELECT"] == "not covered"


def test_privileged_role_is_no_pass(report, base) -> None:
    found = report('roles = ["q_app"]\n', base + "RESET ROLE; ALTER ROLE q_app BYPASSRLS;")
    assert found.exit_code != 0
    assert any(f.source == "probe" and f.confirmed for f in found.findings)
