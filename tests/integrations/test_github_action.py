"""action.yml: linted, and its scripts run as the runner runs them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import LEAKY, SOUND
from tests.integrations.conftest import ROOT, Done, broken, complaints, documents, environment, git, install, ran, tool

ACTION = "action.yml"
(DEFINITION,) = documents(ACTION)
STEPS: list[dict[str, Any]] = DEFINITION["runs"]["steps"]
SCHEMA = ("--builtin-schema", "vendor.github-actions")


def test_its_linters_are_content() -> None:
    assert not complaints(tool("check-jsonschema"), *SCHEMA, ROOT / ACTION)
    assert not complaints(tool("zizmor"), "--offline", "--quiet", ROOT / ACTION)
    check_inputs_stay_out_of_scripts(DEFINITION)


@pytest.mark.parametrize(
    ("old", "new"),
    [("using: composite", "using: shell"), ("      shell: bash\n", ""), ("default: scan", "value: scan")],
)
def test_the_schema_sees_what_is_wrong(tmp_path: Path, old: str, new: str) -> None:
    assert complaints(tool("check-jsonschema"), *SCHEMA, broken(tmp_path, ACTION, old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"$rlsaudit" scan', '"$rlsaudit" scan ${{ inputs.source }}', "template-injection"),
        ("setup-python@e797f83bcb11b83ae66e0230d6156d7c80228e7c", "setup-python@v6", "unpinned-uses"),
    ],
)
def test_the_security_linter_sees_what_is_wrong(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in complaints(tool("zizmor"), "--offline", "--quiet", broken(tmp_path, ACTION, old, new))


def check_inputs_stay_out_of_scripts(definition: dict[str, Any]) -> None:
    for step in definition["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40}", step.get("uses", "a/b@" + "0" * 40))
    used = set(re.findall(r"inputs\.([a-z-]+)", (ROOT / ACTION).read_text(encoding="utf-8")))
    assert used == definition["inputs"].keys()


@pytest.mark.parametrize("step", [step for step in STEPS if "run" in step], ids=lambda step: step["name"])
def test_the_scripts_are_sound_shell(tmp_path: Path, step: dict[str, Any]) -> None:
    script = tmp_path / "step.sh"
    script.write_text(step["run"], encoding="utf-8")
    assert not complaints(tool("shellcheck"), "--shell", "bash", script)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A repository in which rlsaudit is installed where the first steps put it."""
    work = tmp_path / "work"
    work.mkdir()
    install(tmp_path / "temp" / "rlsaudit")
    git(work, "init", "-q", "-b", "main")
    return work


def step(workspace: Path, name: str, **variables: str | Path) -> Done:
    """Run a step's script in ``workspace``, its ``env:`` empty but for ``variables``."""
    definition = next(one for one in STEPS if one.get("name") == name)
    temp = workspace.parent / "temp"
    files = {name: temp / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for file in files.values():
        file.write_text("")
    script = temp / "script.sh"
    script.write_text(definition["run"], encoding="utf-8")
    given = {**dict.fromkeys(definition["env"], ""), **files, "RUNNER_TEMP": temp, **variables}
    return ran("bash", "--noprofile", "--norc", "-eo", "pipefail", script, cwd=workspace, env=environment(**given))


def outputs(workspace: Path) -> dict[str, str]:
    text = (workspace.parent / "temp" / "github_output").read_text()
    return dict(line.split("=", 1) for line in text.splitlines())


def summary(workspace: Path) -> str:
    return (workspace.parent / "temp" / "github_step_summary").read_text()


def scan(workspace: Path, **variables: str | Path) -> Done:
    given = {"MODE": "scan", "SOURCE": "my schema.sql", "REPORT": "report", "RLSAUDIT_OUTPUT_DIR": "report"}
    formats = DEFINITION["inputs"]["format"]["default"]
    return step(workspace, "Run rlsaudit", **{**given, "RLSAUDIT_FORMAT": formats, "RLSAUDIT_BUDGET": "0", **variables})


def test_a_scan_keeps_its_exit_code_and_leaves_what_is_uploaded(workspace: Path) -> None:
    (workspace / "my schema.sql").write_text(LEAKY)
    done = scan(workspace, FAIL_ON="critical")
    assert done.returncode == 1, done.stderr
    assert outputs(workspace) == {"exit-code": "1", "sarif": "report/rlsaudit.sarif"}
    assert "public.notes" in summary(workspace)
    assert "::error file=my schema.sql,line=" in done.stdout
    assert {"evidence.json", "report.html", "TEST-rlsaudit.xml", "rlsaudit.sarif"} <= {
        path.name for path in (workspace / "report").iterdir()
    }


@pytest.mark.nightly
def test_a_sound_schema_passes(workspace: Path) -> None:
    (workspace / "my schema.sql").write_text(SOUND)
    done = scan(workspace, RLSAUDIT_ROLE="c_app")
    assert done.returncode == 0, done.stderr
    assert outputs(workspace)["exit-code"] == "0"


def test_what_an_earlier_run_left_is_not_told_again(workspace: Path) -> None:
    (workspace / "report").mkdir()
    (workspace / "report" / "summary.md").write_text("all is well")
    (workspace / "report" / "rlsaudit.sarif").write_text("{}")
    done = scan(workspace, SOURCE="nowhere.sql")
    assert done.returncode == 2
    assert outputs(workspace) == {"exit-code": "2"}
    assert not summary(workspace)


def test_an_input_is_no_shell_code(workspace: Path) -> None:
    done = scan(workspace, SOURCE="$(touch pwned);`touch pwned`", FAIL_ON="'; touch pwned")
    assert done.returncode == 2
    assert not (workspace / "pwned").exists()
    assert scan(workspace, MODE="destroy").returncode == 2


@pytest.fixture
def pull(workspace: Path) -> dict[str, str]:
    """A branch that opens a hole, merged into main as GitHub checks it out; main has gone on meanwhile."""
    migrations = workspace / "db"
    migrations.mkdir()
    (migrations / "1_notes.sql").write_text(SOUND)
    git(workspace, "add", "db")
    git(workspace, "commit", "-qm", "notes")
    git(workspace, "checkout", "-q", "-b", "change")
    (migrations / "2_everyone.sql").write_text(LEAKY.removeprefix(SOUND))
    git(workspace, "add", "db")
    git(workspace, "commit", "-qm", "everyone")
    head = git(workspace, "rev-parse", "HEAD")
    git(workspace, "checkout", "-q", "main")
    (workspace / "README").write_text("x")
    git(workspace, "add", "README")
    git(workspace, "commit", "-qm", "readme")
    git(workspace, "update-ref", "refs/remotes/origin/main", "HEAD")
    git(workspace, "checkout", "-q", "--detach", "main")
    git(workspace, "merge", "-q", "--no-ff", "-m", "merge", "change")
    return {"MODE": "diff", "SOURCE": "db", "REPORT": "report", "PULL_HEAD": head, "GITHUB_BASE_REF": "main"}


@pytest.mark.nightly
def test_a_pull_request_that_opens_a_hole_fails(workspace: Path, pull: dict[str, str]) -> None:
    done = step(workspace, "Run rlsaudit", **pull)
    assert done.returncode == 1, done.stderr
    assert outputs(workspace) == {"exit-code": "1"}
    assert "DANGEROUS" in summary(workspace)
    assert "2_everyone.sql" in summary(workspace)


@pytest.mark.nightly
def test_a_pull_request_without_the_merge_is_held_against_where_it_began(workspace: Path, pull: dict[str, str]) -> None:
    git(workspace, "checkout", "-q", "--detach", "change")
    assert step(workspace, "Run rlsaudit", **pull).returncode == 1
    (workspace / "db" / "2_everyone.sql").write_text("CREATE INDEX ON notes (body);\n")
    git(workspace, "commit", "-qam", "an index")
    safe = step(workspace, "Run rlsaudit", **{**pull, "PULL_HEAD": git(workspace, "rev-parse", "HEAD")})
    assert safe.returncode == 0, safe.stdout
    assert "SAFE" in summary(workspace)


@pytest.mark.nightly
def test_the_first_migration_is_held_against_nothing(workspace: Path, pull: dict[str, str]) -> None:
    git(workspace, "mv", "db", "migrations")
    git(workspace, "commit", "-qm", "moved")
    head = git(workspace, "rev-parse", "HEAD")
    done = step(workspace, "Run rlsaudit", **{**pull, "PULL_HEAD": head, "SOURCE": "migrations"})
    assert done.returncode == 1, done.stderr


def test_the_wrong_checkout_is_no_pass(workspace: Path, pull: dict[str, str]) -> None:
    git(workspace, "checkout", "-q", "--detach", "main")  # what pull_request_target checks out
    done = step(workspace, "Run rlsaudit", **pull)
    assert (done.returncode, outputs(workspace)) == (2, {"exit-code": "2"})
    assert "not the pull request" in done.stdout
    git(workspace, "checkout", "-q", "--detach", "change")
    git(workspace, "update-ref", "-d", "refs/remotes/origin/main")
    done = step(workspace, "Run rlsaudit", **pull)
    assert done.returncode == 2
    assert "no commit origin/main" in done.stdout


GH = """#!/bin/sh
printf '%s\\n' "$*" >>gh.log
case "$*" in *--paginate*) cat earlier ;; esac
"""


@pytest.mark.parametrize(("earlier", "call"), [("", "--method POST repos/o/r/issues/7/comments"),
                                               ("41\n42\n", "--method PATCH repos/o/r/issues/comments/41 ")])  # fmt: skip
def test_one_comment_is_written_and_then_changed(workspace: Path, earlier: str, call: str) -> None:
    stub = workspace / "bin" / "gh"
    stub.parent.mkdir()
    stub.write_text(GH)
    stub.chmod(0o755)
    (workspace / "earlier").write_text(earlier)
    (workspace / "report").mkdir()
    (workspace / "report" / "summary.md").write_text("DANGEROUS")
    given = {"REPORT": "report", "PULL": "7", "GITHUB_REPOSITORY": "o/r", "GH_TOKEN": "x"}
    path = f"{stub.parent}:{environment()['PATH']}"
    done = step(workspace, "Comment on the pull request", **given, PATH=path)
    assert done.returncode == 0, done.stderr
    assert call in (workspace / "gh.log").read_text()
    assert (workspace.parent / "temp" / "rlsaudit-comment.md").read_text() == "<!-- rlsaudit -->\nDANGEROUS"
    stub.write_text("#!/bin/sh\nexit 1\n")
    assert "::warning::" in step(workspace, "Comment on the pull request", **given, PATH=path).stdout


@pytest.mark.parametrize(("version", "wanted"), [("", "/the/action"), ("0.1.0", "rlsaudit==0.1.0")])
def test_the_action_installs_its_own_code_or_a_version(workspace: Path, version: str, wanted: str) -> None:
    stub = workspace / "python"
    stub.write_text(
        '#!/bin/sh\nif [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; else echo "$*"; fi\n'
    )
    stub.chmod(0o755)
    done = step(workspace, "Install rlsaudit", PYTHON=stub, VERSION=version, ACTION="/the/action")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted]
