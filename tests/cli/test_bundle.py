"""Whole runs as evidence: what they leave in the output directory, signed, chained, and the same for the same seed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rlsaudit.demo import demos, path

VOLATILE = ("runner_clock", "server_clock", "system_identifier", "command")


def _names(directory: Path) -> set[str]:
    return {str(one.relative_to(directory)) for one in directory.rglob("*") if one.is_file()}


def _manifest(directory: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    return told


def test_a_leaky_run_is_sealed_and_a_sound_one_after_it_leaves_nothing_of_it(rlsaudit, leaky, sound, tmp_path) -> None:
    report = tmp_path / "rlsaudit-report"
    assert rlsaudit("scan", leaky, "--budget", "0").code == 1
    told = _manifest(report)
    assert {"replay/F-1.sql", "replay/schema.sql", "TEST-rlsaudit.xml"} <= {one["path"] for one in told["files"]}
    assert (told["verdict"], told["exit_code"], told["previous"]) == ("exceptions", 1, None)
    assert rlsaudit("verify", report).code == 0
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=report, check=True)
    (report / "notes.txt").write_text("mine")
    ran = rlsaudit("scan", sound, "--budget", "0", "--format", "json,html")
    assert ran.code == 0
    assert [line for line in ran.said if "notes.txt" in line], "what is not of this run is told"
    assert _names(report) == {"evidence.json", "report.html", "manifest.json", "SHA256SUMS", "notes.txt"}
    assert _manifest(report)["previous"]["started"] == told["started"]
    assert rlsaudit("verify", report).code == 1, "somebody's own file is no evidence"
    (report / "notes.txt").unlink()
    assert rlsaudit("verify", report).code == 0


def test_nights_in_directories_of_their_own_are_chained_and_signed(rlsaudit, sound, tmp_path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed, so nothing was signed")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    audit = ("audit", sound, "--fail-on", "critical", "--sign-ssh", "key", "--output-dir")
    assert rlsaudit(*audit, "one").code in (0, 1)
    assert rlsaudit(*audit, "two", "--previous", "one").code in (0, 1)
    said = rlsaudit("verify", "one", "two", "--ssh-public-key", "key.pub")
    assert (said.code, said.output.splitlines()[-1]) == (0, "2 runs: no failure"), said.output
    shutil.rmtree(tmp_path / "one")
    assert rlsaudit("audit", sound, "--output-dir", "three", "--previous", "one").code == 2
    assert not (tmp_path / "three").exists()


def test_a_key_that_cannot_sign_ends_the_run_before_it_starts(rlsaudit, sound, tmp_path) -> None:
    for option, value in (("--sign-ssh", "nokey"), ("--sign-ed25519", "nokey")):
        ran = rlsaudit("scan", sound, option, value)
        assert (ran.code, len(ran.said)) == (2, 1), ran.errors
    assert not (tmp_path / "rlsaudit-report").exists()


def test_a_key_that_goes_away_during_the_run_does_not_take_the_reports_along(rlsaudit, sound, tmp_path) -> None:
    """An ssh-keygen that signs once, before the run."""
    fake = tmp_path / "bin" / "ssh-keygen"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\nmkdir {tmp_path}/used || exit 1\necho signature\n")
    fake.chmod(0o755)
    (tmp_path / "key").touch()
    extra = {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    ran = rlsaudit("audit", sound, "--sign-ssh", "key", extra=extra)
    assert ran.code == 2 and "written, but not signed" in ran.errors
    assert "SHA256SUMS.sig" not in _names(tmp_path / "rlsaudit-report")
    assert rlsaudit("verify", "rlsaudit-report").code == 0


@pytest.mark.nightly
@pytest.mark.slow
def test_two_runs_of_a_demo_are_the_same_but_for_times(rlsaudit, tmp_path) -> None:
    smallest = min(demos(), key=lambda demo: path(demo).stat().st_size)
    written = []
    for name in ("first", "second"):
        ran = rlsaudit("scan", path(smallest), "--seed", "7", "--budget", "0", "--output-dir", name)
        assert ran.code in (0, 1), ran.errors
        told = json.loads((tmp_path / name / "evidence.json").read_text())
        assert told["cells"] and told["statements"]
        told["timing"] = None
        told["provenance"] |= dict.fromkeys(VOLATILE)
        written.append(json.dumps(told, indent=1).splitlines())
    assert written[0] == written[1]
    assert _names(tmp_path / "first") == _names(tmp_path / "second")
    for name in _names(tmp_path / "first"):
        if name.startswith("replay/"):
            assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
