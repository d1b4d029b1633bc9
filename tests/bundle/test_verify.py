"""``rlsaudit verify`` finds what was done to the files of a run, and to a chain of runs; and says nothing else is wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rlsaudit.bundle import manifest
from rlsaudit.finding import Finding
from rlsaudit.report import Report, WaiverEntry

WAIVER = WaiverEntry(
    "waiver", "expired", "RLS001 on public.notes", "moves in spring", "security lead", "2026-05-01", "2026-10-31",
    findings=("F-1",),
)  # fmt: skip
FINDING = Finding("RLS001", "check", "A table is without row security", "high", "public.notes", "It is.", id="F-1")


@pytest.fixture
def exceptions(clean: Report) -> Report:
    """A run whose waiver had ended."""
    return replace(clean, verdict="exceptions", exit_code=1, findings=(FINDING,), waivers=(WAIVER,))


def reseal(directory: Path) -> None:
    """What a forger does who knows the format: new hashes for what is there, in manifest and sums."""
    told = json.loads((directory / "manifest.json").read_text())
    for one in told["files"]:
        content = (directory / one["path"]).read_bytes()
        one |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (directory / "manifest.json").write_text(json.dumps(told, indent=1) + "\n")
    names = [*(one["path"] for one in told["files"]), "manifest.json"]
    (directory / "SHA256SUMS").write_text(
        "".join(manifest.sums_line(n, hashlib.sha256((directory / n).read_bytes()).hexdigest()) for n in names)
    )


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_untouched_nights_are_in_order(rlsaudit, nights) -> None:
    said = rlsaudit("verify", *reversed(nights))
    assert (said.code, said.failures) == (0, [])
    assert sum("follows" in line for line in said.lines) == 3
    assert said.lines[-1] == "4 runs: no failure; no signature was checked, as no public key was given"
    assert rlsaudit("verify", nights[0].parent).lines[-1] == said.lines[-1], "a directory of runs stands for them"


def test_one_changed_byte_in_any_file_is_found(rlsaudit, write) -> None:
    directory = write("run", "2026-11-01T02:00:00+00:00", **{"replay/F-1.sql": "SELECT 1;\n"})
    names = sorted(manifest.present(directory))
    assert len(names) == 5
    for name in names:
        path = directory / name
        content = path.read_bytes()
        for place in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            said = rlsaudit("verify", directory)
            assert said.code == 1 and said.failures, f"{name} at {place}"
            assert any(name in line or name in ("SHA256SUMS", "manifest.json") for line in said.failures)
        path.write_bytes(content)
    assert rlsaudit("verify", directory).code == 0


@pytest.mark.parametrize("name", ["evidence.json", "replay/F-1.sql", "manifest.json", "SHA256SUMS"])
def test_a_deleted_file_is_named(rlsaudit, write, name) -> None:
    directory = write("run", "2026-11-01T02:00:00+00:00", **{"replay/F-1.sql": "SELECT 1;\n"})
    (directory / name).unlink()
    said = rlsaudit("verify", directory)
    assert said.code == 1 and any(name in line for line in said.failures)


@pytest.mark.parametrize("name", ["notes.txt", "replay/F-2.sql", "replay/deep/x", ".hidden", "new\nline"])
def test_an_added_file_is_named(rlsaudit, write, name) -> None:
    directory = write("run", "2026-11-01T02:00:00+00:00", **{"replay/F-1.sql": "SELECT 1;\n"})
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_text("x")
    said = rlsaudit("verify", directory)
    assert said.code == 1
    assert [line.partition(": ")[2].split(":")[0] for line in said.failures] == ["added"]
    assert len(said.lines) == 4, "a line each, whatever a file is called"


def test_a_link_to_the_right_bytes_is_no_file_of_the_run(rlsaudit, write, tmp_path) -> None:
    directory = write("run", "2026-11-01T02:00:00+00:00")
    moved = shutil.move(directory / "evidence.json", tmp_path / "elsewhere")
    (directory / "evidence.json").symlink_to(moved)
    assert rlsaudit("verify", directory).failures == [f"FAIL  {directory}/evidence.json: not a plain file"]


def test_names_that_lead_out_of_the_directory_are_not_followed(rlsaudit, write, tmp_path) -> None:
    directory = write("run", "2026-11-01T02:00:00+00:00")
    (tmp_path / "outside").write_text("x")
    with (directory / "SHA256SUMS").open("a") as sums:
        sums.write(manifest.sums_line("../outside", hashlib.sha256(b"x").hexdigest()))
    assert f"FAIL  {directory}/../outside: missing" in rlsaudit("verify", directory).failures


def test_manifest_and_sums_have_to_agree(rlsaudit, write) -> None:
    directory = write("run", "2026-11-01T02:00:00+00:00")
    told = json.loads((directory / "manifest.json").read_text())
    told["files"] = told["files"][:1]
    (directory / "manifest.json").write_text(json.dumps(told))
    content = (directory / "manifest.json").read_bytes()
    sums = (directory / "SHA256SUMS").read_text().splitlines()[:-1]
    sums.append(f"{hashlib.sha256(content).hexdigest()}  manifest.json")
    (directory / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    assert rlsaudit("verify", directory).failures == [
        f"FAIL  {directory}/manifest.json: evidence.json: only SHA256SUMS names it"
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"verdict": "clean"', '"verdict": "exceptions"'),
        ("2026-11-01T02", "2026-11-01T03"),
        ('"exit_code": 0', '"exit_code": 1'),
    ],
)
def test_the_manifest_says_of_the_run_what_its_evidence_says(rlsaudit, write, old, new) -> None:
    directory = write("run", "2026-11-01T02:00:00+00:00")
    edit(directory / "manifest.json", old, new)
    reseal(directory)
    assert rlsaudit("verify", directory).failures == [
        f"FAIL  {directory}/evidence.json: start, verdict or exit code are not those of manifest.json"
    ]


# The chain


Damage = Callable[[list[Path], Path], object]


@pytest.mark.parametrize(
    ("damage", "place", "what"),
    [
        (lambda n, t: shutil.rmtree(n[1]), "night-3", "the run of 2026-11-02T02:00:00+00:00 that it follows is missing"),
        (lambda n, t: (edit(n[1] / "evidence.json", '"seed": ', '"seed": 9'), reseal(n[1])), "night-3", "night-2 was replaced"),
        (lambda n, t: shutil.copytree(n[1], t / "copy"), "night-2", "the same run as"),
    ],
    ids=["deleted", "replaced", "copied"],
)  # fmt: skip
def test_what_was_done_to_a_night_is_named(rlsaudit, nights, tmp_path, damage: Damage, place, what) -> None:
    damage(nights, tmp_path)
    said = rlsaudit("verify", *(one for one in [*nights, tmp_path / "copy"] if one.is_dir()))
    assert said.code == 1
    assert any(what in line and place in line for line in said.failures), said.failures


def test_nights_whose_times_were_swapped_are_named(rlsaudit, nights) -> None:
    for night, old, new in ((nights[1], "02T02", "03T02"), (nights[2], "03T02", "02T02")):
        for name in ("manifest.json", "evidence.json"):
            edit(night / name, f'"started": "2026-11-{old}', f'"started": "2026-11-{new}')
        reseal(night)
    said = rlsaudit("verify", *nights)
    assert said.code == 1 and any("night-4" in line for line in said.failures), said.failures


def test_a_run_before_the_one_it_follows_is_out_of_order(rlsaudit, write) -> None:
    later = write("later", "2026-11-02T02:00:00+00:00")
    write("earlier", "2026-11-01T02:00:00+00:00", later)
    said = rlsaudit("verify", later.parent)
    assert any("out of order" in line and "later" in line for line in said.failures)


def test_a_chain_that_begins_anew_is_named(rlsaudit, nights, write) -> None:
    again = write("again", "2026-11-05T02:00:00+00:00")
    assert any("begins anew" in line for line in rlsaudit("verify", *nights, again).failures)
    assert rlsaudit("verify", again).code == 0


def test_what_came_before_the_first_run_given_is_said_not_to_be_checked(rlsaudit, nights) -> None:
    said = rlsaudit("verify", *nights[1:])
    assert said.code == 0
    assert any("follows a run of 2026-11-01T02:00:00+00:00 that was not given" in line for line in said.lines)


def test_runs_of_one_second_are_in_the_order_of_the_chain(rlsaudit, write) -> None:
    same = "2026-11-01T02:00:00+00:00"
    first = write("z", same)
    second = write("m", same, first)
    third = write("a", same, second)
    assert rlsaudit("verify", third, first, second).failures == []


# Waivers


def test_an_expired_waiver_edited_back_contradicts_itself(rlsaudit, write, exceptions) -> None:
    directory = write("run", "2026-11-01T02:00:00+00:00", report=exceptions)
    assert rlsaudit("verify", directory).code == 0
    edit(directory / "evidence.json", '"status": "expired"', '"status": "in force"')
    reseal(directory)
    [line] = rlsaudit("verify", directory).failures
    assert line.endswith("RLS001 on public.notes is said to be in force, but it ended on 2026-10-31")


def test_a_finding_that_no_waiver_covers_cannot_be_waived(rlsaudit, write, exceptions) -> None:
    directory = write("run", "2026-11-01T02:00:00+00:00", report=exceptions)
    edit(directory / "evidence.json", '"status": "open"', '"status": "waived"')
    reseal(directory)
    assert any("F-1 is said to be waived" in line for line in rlsaudit("verify", directory).failures)


def test_an_expired_waiver_edited_back_with_all_its_dates_breaks_the_chain(rlsaudit, write, exceptions) -> None:
    """Nothing in the run itself tells any more; the run after it does."""
    first = write("night-1", "2026-11-01T02:00:00+00:00", report=exceptions)
    second = write("night-2", "2026-11-02T02:00:00+00:00", first, report=exceptions)
    assert rlsaudit("verify", first, second).failures == []
    edit(first / "evidence.json", '"status": "expired"', '"status": "in force"')
    edit(first / "evidence.json", '"expires": "2026-10-31"', '"expires": "2026-12-31"')
    reseal(first)
    assert rlsaudit("verify", first).failures == []
    [line] = rlsaudit("verify", first, second).failures
    assert "night-1 was replaced or changed" in line


@pytest.mark.parametrize("arguments", [(), ("nowhere",), ("--identity", "me", "."), (".",)])
def test_usage(rlsaudit, arguments, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rlsaudit("verify", *arguments).code == 2


def test_names_that_would_move_the_cursor_are_spelled_out(rlsaudit, write) -> None:
    directory = write("run", "2026-11-01T02:00:00+00:00")
    (directory / "\x1b[2J\u202eok").write_text("x")
    said = rlsaudit("verify", directory)
    assert said.code == 1 and all(line.isprintable() for line in said.lines)
