"""Fleets end to end: every target ends in a result, whatever happens to it, and is counted once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from rlsaudit.fleet.result import Entry, Fleet, document, earlier, entry, ordered
from rlsaudit.fleet.run import _asked
from rlsaudit.fleet.targets import Target
from rlsaudit.fleet.work import Job, end_all, work
from rlsaudit.output import exclusive

FLEET = """
[defaults]
mode = "audit"
retries = 0
[targets.sound]
source = "sound.sql"
[targets.open]
source = "open.sql"
[targets.gone]
source = "host=/nowhere dbname=x password=canary"
"""


def rlsaudit(directory: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "rlsaudit", "fleet", *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=300)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def entries(directory: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((directory / "rlsaudit-fleet" / "fleet.json").read_text())["entries"]
    return {one["name"]: one for one in found}


def test_every_target_has_a_result(schemas: Path) -> None:
    (schemas / "fleet.toml").write_text(FLEET)
    code, output = rlsaudit(schemas, "fleet.toml")
    assert code == 3
    found = entries(schemas)
    assert list(found) == ["gone", "open", "sound"]  # worst first
    assert {name: one["outcome"] for name, one in found.items()} == {
        "gone": "no verdict", "open": "exceptions", "sound": "clean",
    }  # fmt: skip
    assert "cannot connect" in found["gone"]["sentence"]
    assert ["critical", 1] in found["open"]["findings"]
    assert found["sound"]["cells"] == [["not covered", 4]]  # an audit covers none and says so
    out = schemas / "rlsaudit-fleet"
    assert {file.name for file in out.iterdir()} == {"sound", "open", "fleet.json", "index.html", "TEST-fleet.xml"}
    suite = ET.parse(out / "TEST-fleet.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "2")
    page = (out / "index.html").read_text()
    assert 'href="open/report.html"' in page
    assert 'href="gone/' not in page
    assert "NO VERDICT 3 targets: 1 no verdict, 1 exceptions, 1 clean" in output
    assert "canary" not in output + "".join(p.read_text() for p in out.rglob("*") if p.is_file())


def test_what_is_finished_stands_until_something_changes(schemas: Path) -> None:
    (schemas / "fleet.toml").write_text(FLEET)
    rlsaudit(schemas, "fleet.toml")
    before = entries(schemas)
    (schemas / "open.sql").write_text((schemas / "open.sql").read_text() + "-- touched\n")
    rlsaudit(schemas, "fleet.toml", "--resume")
    after = entries(schemas)
    assert {name for name, one in after.items() if one["stands"]} == {"sound"}
    assert after["sound"]["started"] == before["sound"]["started"]
    chained = json.loads((schemas / "rlsaudit-fleet" / "open" / "manifest.json").read_text())
    assert chained["previous"]
    rlsaudit(schemas, "fleet.toml", "--resume", "--fail-on", "low")
    assert not any(one["stands"] for one in entries(schemas).values())


@pytest.mark.nightly
def test_what_a_target_reads_from_beside_it_is_part_of_what_was_asked(schemas: Path) -> None:
    """Files that SQL includes, and the configuration and waivers of the directory that the fleet is started in."""
    (schemas / "tables.sql").write_text((schemas / "sound.sql").read_text())
    (schemas / "sound.sql").write_text("\\ir tables.sql\n")
    (schemas / "fleet.toml").write_text('[targets.sound]\nsource = "sound.sql"\nmode = "audit"\n')

    def stands() -> bool:
        rlsaudit(schemas, "fleet.toml", "--resume")
        return bool(entries(schemas)["sound"]["stands"])

    assert not stands()
    assert stands()
    (schemas / "tables.sql").write_text((schemas / "tables.sql").read_text().replace("FORCE ROW", "NO FORCE ROW"))
    assert not stands()
    (schemas / "rlsaudit.toml").write_text('fail_on = "low"\n')
    assert not stands()
    (schemas / "rlsaudit-waivers.toml").write_text("")
    assert not stands()
    assert stands()


@pytest.mark.nightly
def test_a_report_of_before_is_not_taken_for_a_new_one(schemas: Path) -> None:
    """Whoever gathers */TEST-*.xml must not find a pass of a target that has no verdict now; the chain goes on."""
    (schemas / "fleet.toml").write_text('[targets.one]\nsource = "sound.sql"\nmode = "audit"\nretries = 0\n')
    out, text = schemas / "rlsaudit-fleet", (schemas / "sound.sql").read_text()
    assert rlsaudit(schemas, "fleet.toml")[0] == 0
    before = json.loads((out / "one" / "manifest.json").read_text())
    (schemas / "sound.sql").write_text("CREATE TABLE broken (")
    for _ in range(2):
        assert rlsaudit(schemas, "fleet.toml")[0] == 3
        assert sorted(file.name for file in out.glob("*/*.xml")) == []
        assert 'href="one/' not in (out / "index.html").read_text()
    (schemas / "sound.sql").write_text(text)
    assert rlsaudit(schemas, "fleet.toml")[0] == 0
    assert json.loads((out / "one" / "manifest.json").read_text())["previous"] != before["previous"]
    assert 'href="one/report.html"' in (out / "index.html").read_text()
    assert rlsaudit(schemas, "fleet.toml", "--format", "json")[0] == 0
    assert 'href="one/' not in (out / "index.html").read_text()  # there is no such page


def test_two_fleets_do_not_write_one_report(schemas: Path) -> None:
    (schemas / "fleet.toml").write_text(FLEET)
    (schemas / "rlsaudit-fleet").mkdir()
    with exclusive(schemas / "rlsaudit-fleet"):
        code, output = rlsaudit(schemas, "fleet.toml")
    assert (code, "another run writes there" in output) == (2, True)
    assert not list((schemas / "rlsaudit-fleet").iterdir())


def test_nothing_is_tried_again_after_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def ended(arguments: list[str], target: Target) -> tuple[int, str]:
        tries.append(1)
        end_all()
        return 143, "ended"

    monkeypatch.setattr("rlsaudit.fleet.work._run", ended)
    monkeypatch.setattr("rlsaudit.fleet.work._ending", Event())
    work(Job(Target("one", "x", retries=3)))
    assert len(tries) == 1


def test_no_password_goes_into_what_was_asked() -> None:
    """Of all else that is hashed every part is written beside it, so that the password could be guessed."""
    sources = [f"host=a dbname=b password={word}" for word in ("canary", "finch")]
    assert len({_asked(Target("a", source), ()) for source in sources}) == 1


@pytest.mark.nightly
def test_a_live_target_stands_while_its_catalog_does(schemas: Path, server: Any) -> None:
    server.create_database("fleet_live")
    try:
        with server.connect("fleet_live") as connection:
            connection.execute((schemas / "sound.sql").read_text().encode())
        target = Target("live", server.conninfo("fleet_live"), ("f_app",), mode="audit")
        first = work(Job(target))
        known = entry(target, first, "")
        assert known.catalog
        assert work(Job(target, stands=known.catalog)).unchanged
        with server.connect("fleet_live") as connection:
            connection.execute("ALTER TABLE notes NO FORCE ROW LEVEL SECURITY")
        again = work(Job(target, stands=known.catalog))
        assert not again.unchanged
        assert entry(target, again, "").catalog != known.catalog
    finally:
        server.drop_database("fleet_live")
        with server.connect() as connection:
            connection.execute("DROP ROLE IF EXISTS f_app")


def test_the_time_limit_is_a_result(schemas: Path) -> None:
    slow = Target("slow", str(schemas / "sound.sql"), budget="60", time_limit=4, retries=0)
    done = work(Job(slow))
    assert done.exit_code == 3
    assert done.said.startswith("ended after its time limit of 4 s")
    assert entry(slow, done, "").outcome == "no verdict"


def test_a_run_without_a_verdict_is_tried_again(tmp_path: Path) -> None:
    target = Target("gone", "host=/nowhere dbname=x", mode="audit", retries=2)
    assert work(Job(target)).tries == 3
    wrong = Target("wrong", str(tmp_path / "missing.sql"), mode="audit", retries=2)
    assert work(Job(wrong)).tries == 1  # what is wrong with the input stays wrong


@pytest.mark.parametrize(
    ("outcomes", "counted", "code"),
    [
        (["clean"], 1, 0),
        (["clean", "exceptions"], 2, 1),
        (["exceptions", "no verdict"], 2, 3),
        (["clean"], 2, 3),  # a target is missing
        ([], 0, 3),
    ],
)
def test_the_verdict_of_all(outcomes: Sequence[Any], counted: int, code: int) -> None:
    found = ordered([Entry(f"t{i}", "x", outcome, 0, "") for i, outcome in enumerate(outcomes)])
    fleet = Fleet("1", "2026-01-01T00:00:00+00:00", 1.0, counted, found)
    assert fleet.exit_code == code
    assert list(earlier(document(fleet)).values()) == list(found)
    assert ("missing" in fleet.sentence) == (counted > len(found))


def test_an_interruption_keeps_what_is_finished(schemas: Path) -> None:
    (schemas / "fleet.toml").write_text(FLEET + '[targets.slow]\nsource = "sound.sql"\nmode = "scan"\nbudget = "120"\n')
    command = [sys.executable, "-m", "rlsaudit", "fleet", "fleet.toml", "--jobs", "4"]
    process = subprocess.Popen(command, cwd=schemas, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[3/4]"):
            break
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "Traceback" not in errors
    assert "4 targets: 2 no verdict, 1 exceptions, 1 clean" in output
    assert len(entries(schemas)) == 4
    left = subprocess.run(["pgrep", "-f", str(schemas)], capture_output=True, text=True, check=False).stdout.split()
    assert [pid for pid in left if pid != str(os.getpid())] == []
