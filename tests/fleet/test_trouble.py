"""A fleet in which something goes wrong with some targets: each of those is a result, and so is every other one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from rlsaudit.source.server import ScratchServer


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of something that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def strict(schemas: Path) -> Iterator[ScratchServer]:
    """A server with a sound database, that wants a password from everybody but its superuser."""
    with ScratchServer() as server:
        server.create_database("model")
        with server.connect("model") as connection:
            connection.execute((schemas / "sound.sql").read_text().encode())
            connection.execute("CREATE ROLE reader LOGIN PASSWORD 'the right one'")
        rules = server.directory / "data" / "pg_hba.conf"
        owner = rules.stat()
        rules.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
        os.chown(rules, owner.st_uid, owner.st_gid)
        with server.connect() as connection:
            connection.execute("SELECT pg_reload_conf()")
        yield server


def kill(said: str) -> int:
    """Kill every process of rlsaudit's that was given ``said`` and is no fleet; how many they were."""
    count = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "rlsaudit" in command and any(said in one for one in command):
            os.kill(int(place.name), signal.SIGKILL)
            count += 1
    return count


@pytest.mark.parametrize(
    "count", [pytest.param(8, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.nightly)]
)
def test_none_is_lost(count: int, silent: int, strict: ScratchServer, tmp_path: Path) -> None:
    # The port is one that nothing else on the machine has, and so tells the process that is to be killed.
    trouble = {
        "hangs": f"source = 'host=127.0.0.1 port={silent} dbname=hangs connect_timeout=3000'\ntime_limit = '5s'\nretries = 0\n",
        "killed": f"source = 'host=127.0.0.1 dbname=doomed_{silent} port={silent} connect_timeout=3000'\n",
        "stranger": f"source = 'host={strict.directory} user=reader dbname=model password=canary'\nretries = 0\n",
    }
    sound = [f"target_{number:03}" for number in range(count - len(trouble))]
    for name in sound:
        strict.create_database(name, "model")
    fine = {name: f"source = {json.dumps(strict.conninfo(name))}\n" for name in sound}
    targets = [f"[targets.{name}]\n{given}" for name, given in (trouble | fine).items()]
    (tmp_path / "fleet.toml").write_text(f'[defaults]\nmode = "audit"\nroles = ["f_app"]\n{"".join(targets)}')
    command = [sys.executable, "-m", "rlsaudit", "fleet", "fleet.toml", "--jobs", "3"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    kills = 0
    while kills < 2:  # it is tried again once
        assert process.poll() is None, process.stderr
        kills += kill(f"doomed_{silent}")
        time.sleep(0.2)
    output, errors = process.communicate(timeout=1800)
    assert "Traceback" not in errors
    assert process.returncode == 3
    out = tmp_path / "rlsaudit-fleet"
    found: dict[str, Any] = {one["name"]: one for one in json.loads((out / "fleet.json").read_text())["entries"]}
    assert found.keys() == {*trouble, *sound}
    assert {found[name]["outcome"] for name in sound} == {"clean"}
    assert {found[name]["outcome"] for name in trouble} == {"no verdict"}
    assert found["hangs"]["sentence"].startswith("ended after its time limit of 5 s")
    assert "ended by SIGKILL" in found["killed"]["sentence"]
    assert found["killed"]["tries"] == 2
    assert "password authentication failed" in found["stranger"]["sentence"]
    assert f"{count} targets: 3 no verdict, {count - 3} clean" in output
    cases = ET.parse(out / "TEST-fleet.xml").getroot()[0].findall("testcase")
    assert len(cases) == count + 1
    page = (out / "index.html").read_text()
    assert [name for name in found if name not in page] == []
    assert "canary" not in output + errors + page
