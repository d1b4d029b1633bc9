"""Two nights of one schema: the second goes on where the first had learnt least."""

from __future__ import annotations

import json
import stat

import pytest

MORE = "".join(
    f"""
CREATE TABLE more_{n} (tenant_id integer NOT NULL, id integer, a text, PRIMARY KEY (tenant_id, id));
ALTER TABLE more_{n} ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON more_{n} USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::integer));
GRANT SELECT, INSERT, UPDATE, DELETE ON more_{n} TO c_app;
"""
    for n in range(3)
)


def said(directory) -> str:
    notes = json.loads((directory / "rlsaudit-report" / "evidence.json").read_text())["notes"]
    return " ".join(note for note in notes if "Random workloads" in note or "learnt" in note)


def test_a_short_budget_says_nothing_of_nights(rlsaudit, tmp_path, sound) -> None:
    assert rlsaudit("scan", sound, "--budget", "1", "--database", "kept").code == 0
    assert said(tmp_path) == ""
    assert [*tmp_path.rglob("learnt-*")] == []


@pytest.mark.nightly
def test_the_second_night_goes_on_from_the_first(rlsaudit, tmp_path, sound) -> None:
    sound.write_text(sound.read_text() + MORE)
    night = ("scan", sound, "--budget", "20", "--database", "kept")
    assert rlsaudit(*night).code == 0
    assert "neighbourhoods of tables; fewest rounds so far" in said(tmp_path)
    (path,) = tmp_path.glob("kept/learnt-*.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = {one["relation"]: one for one in json.loads(path.read_text())["places"]}
    visited = [name for name, one in first.items() if one["rounds"]]
    changed = visited[-1]
    sound.write_text(sound.read_text() + f"CREATE POLICY more ON {changed} FOR UPDATE USING (tenant_id < 0);")
    assert rlsaudit(*night).code in (0, 1)
    assert f"; {len(first)} were known from earlier nights" in said(tmp_path)
    second = {one["relation"]: one for one in json.loads(path.read_text())["places"]}
    assert sum(one["rounds"] for one in second.values()) > sum(
        first[name]["rounds"] for name in visited if name != changed
    )
    assert [name for name in visited if second[name]["fingerprint"] != first[name]["fingerprint"]] == [changed]
    path.write_text("{")
    rlsaudit(*night)
    assert "is not used, and is written anew" in said(tmp_path)
    assert json.loads(path.read_text())["places"]
