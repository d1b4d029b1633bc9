"""Proof and probe are held against each other: where they disagree, rlsaudit says that it is wrong, and loudly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rlsaudit import scan
from rlsaudit.cli import cli
from rlsaudit.prove.prove import prove


def test_a_proven_cell_that_leaks_is_a_defect_of_ours(
    leaky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsound(*given: Any) -> Any:
        return tuple(replace(one, verdict="proven", reason="because") for one in prove(*given))

    arguments = ["scan", str(leaky), "--budget", "0", "--output-dir", str(tmp_path / "out"), "-q"]
    assert CliRunner().invoke(cli, arguments, standalone_mode=False).return_value == 1
    monkeypatch.setattr(scan, "prove", unsound)
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert done.return_value == evidence["exit_code"] == 3
    assert evidence["verdict"] == "not trustworthy"
    assert any("Proof and probe disagree on SELECT of public.notes as c_app" in one for one in evidence["reasons"])
    assert "defect of rlsaudit" in " ".join(done.output.split())


def test_a_proof_is_not_shown_where_a_view_goes_around_the_policies(sound: Path, tmp_path: Path) -> None:
    def states(text: str) -> dict[str, tuple[str, str]]:
        sound.write_text(text)
        arguments = ["scan", str(sound), "--budget", "0", "--output-dir", str(tmp_path / "out"), "-q"]
        CliRunner().invoke(cli, arguments, standalone_mode=False)
        evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
        return {one["relation"] + " " + one["command"]: (one["state"], one["reason"]) for one in evidence["cells"]}

    schema = sound.read_text()
    assert states(schema)["public.notes SELECT"][0] == "proven"
    opened = states(schema + "CREATE VIEW shown AS SELECT * FROM notes; GRANT SELECT ON shown TO c_app;\n")
    assert opened["public.shown SELECT"][0] == "leak"
    state, reason = opened["public.notes SELECT"]
    assert state == "held" and "(public.shown) goes around" in reason
    guarded = "CREATE VIEW shown WITH (security_invoker) AS SELECT * FROM notes; GRANT SELECT ON shown TO c_app;\n"
    assert states(schema + guarded)["public.notes SELECT"][0] == "proven"


def test_what_the_prover_refutes_is_a_leak_when_its_rows_show_it_and_else_a_gap_that_says_why(
    sound: Path, tmp_path: Path
) -> None:
    def reading(guard: str) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
        sound.write_text(
            f"{schema} ALTER TABLE notes ADD lo integer NOT NULL DEFAULT 0, ADD hi integer NOT NULL DEFAULT 0; {guard}"
            "CREATE POLICY odd ON notes FOR SELECT USING (lo = hi AND lo > 500000 AND hi < 500002);"
        )
        arguments = ["scan", str(sound), "--budget", "0", "--output-dir", str(tmp_path / "out"), "-q"]
        code = CliRunner().invoke(cli, arguments, standalone_mode=False).return_value
        evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
        cell = next(c for c in evidence["cells"] if (c["relation"], c["command"]) == ("public.notes", "SELECT"))
        return code, cell, [one for one in evidence["findings"] if one["source"] == "probe"]

    schema = sound.read_text()
    code, cell, leaks = reading("")
    assert (code, cell["state"]) == (1, "leak")
    assert [(one["object"], one["command"], one["confirmed"]) for one in leaks] == [("public.notes", "SELECT", True)]
    assert "500001" in leaks[0]["attack"]
    code, cell, leaks = reading(
        "CREATE FUNCTION small() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.hi > 500000 THEN RAISE 'too large'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION small();"
    )
    assert (code, cell["state"], leaks) == (1, "not covered", [])
    assert "its rows cannot stand here: too large" in cell["reason"]
