"""The two files that seal a run, read by the tools that an auditor has."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from rlsaudit.bundle import manifest
from rlsaudit.errors import UsageError
from rlsaudit.output import write_all

ODD = ("plain.txt", "two words.txt", "back\\slash", "new\nline", "carriage\rreturn", "café \u202e", "-dash", " blank ")


def coreutils(directory: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    return subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=directory, capture_output=True, text=True, check=False
    )


def test_sha256sum_agrees_and_notices_a_change(write) -> None:
    directory = write("run", "2026-11-01T02:00:00+00:00", **{f"replay/{name}": "text\r\n\ud800" for name in ODD})
    done = coreutils(directory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": OK\n") == len(ODD) + 3, "evidence, JUnit and manifest, and the odd ones"
    (directory / "replay" / "back\\slash").write_text("other")
    assert coreutils(directory).returncode == 1


def test_lines_are_those_of_sha256sum(tmp_path) -> None:
    """For every odd name but that with a carriage return, which older versions do not escape."""
    for name in ODD:
        (tmp_path / name).write_text("x")
        done = subprocess.run(["sha256sum", "--", name], cwd=tmp_path, capture_output=True, check=True)
        digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
        line = manifest.sums_line(name, digest)
        assert "\r" in name or line.encode() == done.stdout
        assert manifest.parse_sums(line) == {name: digest}


@pytest.mark.parametrize("text", ["", "x\n", "a" * 64 + " x\n", "A" * 64 + "  x\n", ("a" * 64 + "  x\n") * 2])
def test_what_is_no_line_of_sha256sum(text) -> None:
    with pytest.raises(ValueError, match="line"):
        manifest.parse_sums(text)


def test_the_manifest_says_what_the_run_was(nights) -> None:
    told = json.loads((nights[1] / "manifest.json").read_text())
    assert list(told) == ["schema_version", "tool_version", "started", "verdict", "exit_code", "previous", "files"]
    assert (told["started"], told["verdict"], told["exit_code"]) == ("2026-11-02T02:00:00+00:00", "clean", 0)
    assert told["previous"] == {"sha256": manifest.load(nights[0]).sha256, "started": "2026-11-01T02:00:00+00:00"}
    assert json.loads((nights[0] / "manifest.json").read_text())["previous"] is None
    assert {one["path"]: one["size"] for one in told["files"]} == {
        name: (nights[1] / name).stat().st_size for name in ("evidence.json", "TEST-rlsaudit.xml")
    }


def test_the_run_before_is_what_the_directory_held_unless_another_is_named(nights, tmp_path) -> None:
    held, other = manifest.load(nights[0]), manifest.load(nights[3])
    assert manifest.before(nights[0], None) == manifest.Previous(held.sha256, held.manifest.started)
    assert manifest.before(nights[0], nights[3]) == manifest.Previous(other.sha256, other.manifest.started)
    assert manifest.before(tmp_path / "new", None) is None
    with pytest.raises(UsageError, match="cannot be read"):
        manifest.before(nights[0], tmp_path / "nothing")


@pytest.mark.parametrize(("name", "text"), [("manifest.json", '{"name": "my web app"}'), ("SHA256SUMS", "x")])
def test_files_of_somebody_else_are_not_replaced(tmp_path, name, text) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="--output-dir"):
        manifest.before(tmp_path, None)


def test_what_an_earlier_run_left_goes_and_what_is_not_its_own_stays(write, clean) -> None:
    directory = write(
        "run", "2026-11-01T02:00:00+00:00",
        **{"old.html": "x", "edited.html": "x", "replay/F-1.sql": "x", manifest.SSH_SIGNATURE: "x"},
    )  # fmt: skip
    (directory / "edited.html").write_text("x, and a remark")
    (directory / "notes.txt").write_text("mine")
    earlier = manifest.held(directory)
    files = manifest.sealed({"evidence.json": "{}"}, clean, manifest.before(directory, None))
    write_all(directory, files)
    kept = manifest.clear(directory, earlier, {"evidence.json": "{}", **files})
    assert kept == ("edited.html", "notes.txt")
    assert set(manifest.present(directory)) == {
        "edited.html",
        "notes.txt",
        "evidence.json",
        "manifest.json",
        "SHA256SUMS",
    }
    assert not (directory / "replay").exists()


def test_nothing_goes_from_a_directory_without_a_run(tmp_path) -> None:
    for name in ("report.html", manifest.SSH_SIGNATURE, "replay/mine.sql"):
        write_all(tmp_path, {name: "x"})
    assert manifest.clear(tmp_path, None, {}) == (manifest.SSH_SIGNATURE, "report.html", "replay/mine.sql")
    assert len(list(manifest.present(tmp_path))) == 3
