"""GitLab, Azure Pipelines, Jenkins and pre-commit: linted, and their scripts run."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import junitparser
import pytest
import tree_sitter
import tree_sitter_groovy
import yaml

from tests.cli.conftest import LEAKY, SOUND
from tests.integrations.conftest import BIN, ROOT, broken, complaints, documents, environment, git, install, ran, tool

GITLAB = "templates/rlsaudit.yml"
AZURE = "integrations/azure/rlsaudit.yml"
JENKINS = "integrations/jenkins/Jenkinsfile"
HOOKS = ".pre-commit-hooks.yaml"
BASH = ("bash", "-eo", "pipefail", "-c")


def gitlab_lint(tmp_path: Path, text: str) -> str:
    """Both documents of a component, as one pipeline each: GitLab's schema knows ``spec`` as well as jobs.

    What jobs extend is put into them, because the schema looks less closely at hidden jobs.
    """
    spec, jobs = yaml.safe_load_all(text)
    base = jobs.pop(".rlsaudit")
    merged = {
        name: {
            key: base[key] | job[key] if isinstance(base.get(key), dict) and key in job else job.get(key, base.get(key))
            for key in (base | job).keys() - {"extends"}
        }
        for name, job in jobs.items()
    }
    builtin = ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci")
    for name, part in (("spec.yml", spec), ("jobs.yml", merged)):
        (tmp_path / name).write_text(yaml.safe_dump(part), encoding="utf-8")
    return complaints(tool("check-jsonschema"), *builtin, tmp_path / "spec.yml", tmp_path / "jobs.yml")


def test_gitlab_lint(tmp_path: Path) -> None:
    text = (ROOT / GITLAB).read_text(encoding="utf-8")
    assert not gitlab_lint(tmp_path, text)
    for old, new in (("when: always", "when: sometimes"), ("  rules:\n    - if:", "  rules:\n    - iff:"), ("  script:\n", "  scripts:\n"),
                     ("  inputs:\n", "  imputs:\n")):  # fmt: skip
        assert old in text
        assert gitlab_lint(tmp_path, text.replace(old, new)), new


def test_gitlab_inputs_stay_out_of_scripts() -> None:
    spec, jobs = documents(GITLAB)
    for job in jobs.values():
        assert "$[[" not in json.dumps([job.get("script"), job.get("before_script"), job.get("rules")])
    used = set(re.findall(r"\$\[\[ inputs\.([a-z-]+) \]\]", (ROOT / GITLAB).read_text(encoding="utf-8")))
    assert used == spec["spec"]["inputs"].keys()


def gitlab_job(name: str, **inputs: str) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Script, variables and artifacts of a job, ``extends`` and inputs followed."""
    spec, jobs = documents(GITLAB)
    values = {key: one.get("default", "") for key, one in spec["spec"]["inputs"].items()} | inputs
    filled = re.sub(
        r"\$\[\[ inputs\.([a-z-]+) \]\]",
        lambda found: json.dumps(values[found[1]])[1:-1],
        yaml.safe_dump(jobs, width=10_000, default_style='"'),
    )
    job, base = (yaml.safe_load(filled)[one] for one in (name, ".rlsaudit"))
    return "\n".join(job["script"]), base["variables"] | job["variables"], base["artifacts"] | job.get("artifacts", {})


def installed(script: str, directory: Path) -> str:
    """The script with the place of the virtual environment moved into ``directory``, where rlsaudit then is."""
    install(directory / "venv")
    return script.replace("/tmp/rlsaudit/", f"{directory}/venv/").replace(
        "/tmp/nothing.sql", f"{directory}/nothing.sql"
    )


def test_gitlab_scan(tmp_path: Path) -> None:
    (tmp_path / "my schema.sql").write_text(LEAKY)
    script, variables, artifacts = gitlab_job("rlsaudit", source="my schema.sql", budget="0", role="c_app")
    done = ran(*BASH, installed(script, tmp_path), cwd=tmp_path, env=environment(**variables))
    assert done.returncode == 1, done.stderr
    assert all((tmp_path / file).stat().st_size for file in artifacts["reports"].values())
    assert json.loads((tmp_path / artifacts["reports"]["codequality"]).read_text())


@pytest.mark.nightly
def test_gitlab_merge_request(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "1.sql").write_text(SOUND)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "db")
    git(tmp_path, "commit", "-qm", "notes")
    base = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "db" / "2.sql").write_text(LEAKY.removeprefix(SOUND))
    script, variables, _ = gitlab_job("rlsaudit-diff", source="db")
    script = installed(script, tmp_path)
    for commit, code in ((base, 1), ("0" * 40, 2)):
        env = environment(**variables, CI_MERGE_REQUEST_DIFF_BASE_SHA=commit)
        done = ran(*BASH, script, cwd=tmp_path, env=env)
        assert done.returncode == code, done.stderr
    assert "DANGEROUS" in (tmp_path / "rlsaudit-report" / "diff.md").read_text()


def test_azure_lint(tmp_path: Path) -> None:
    builtin = ("--builtin-schema", "vendor.azure-pipelines")
    assert not complaints(tool("check-jsonschema"), *builtin, ROOT / AZURE)
    for old, new in (
        ("  - bash: |", "  - bashh: |"),
        ("steps:\n  - task", "step:\n  - task"),
        ("type: string", "type: text"),
    ):
        assert complaints(tool("check-jsonschema"), *builtin, broken(tmp_path, AZURE, old, new)), new
    (definition,) = documents(AZURE)
    for step in definition["steps"]:
        assert "${{" not in step.get("bash", "")
        assert "$(" not in step.get("bash", "")


def test_azure_scan(tmp_path: Path) -> None:
    (tmp_path / "schema.sql").write_text(LEAKY)
    report = tmp_path / "staging" / "rlsaudit"
    install(tmp_path / "agent" / "rlsaudit")
    (definition,) = documents(AZURE)
    defaults = {one["name"]: one.get("default", "") for one in definition["parameters"]}
    values = {**defaults, "source": "schema.sql", "budget": "0"}
    scan, summary = (
        one for one in definition["steps"] if one.get("displayName") in ("rlsaudit", "Summary of rlsaudit")
    )
    codes = []
    for step in (scan, summary):
        given = {
            name: re.sub(r"\$\{\{ parameters\.(\w+) \}\}", lambda found: values[found[1]], value).replace(
                "$(Build.ArtifactStagingDirectory)", str(tmp_path / "staging")
            )
            for name, value in step["env"].items()
        }
        given = {name: value for name, value in given.items() if value}  # the agent sets no empty variable
        env = environment(**given, AGENT_TEMPDIRECTORY=tmp_path / "agent")
        done = ran("bash", "--noprofile", "--norc", "-c", step["bash"], cwd=tmp_path, env=env)
        codes.append(done.returncode)
    assert codes == [1, 0], done.stderr
    assert done.stdout.strip() == f"##vso[task.uploadsummary]{report}/summary.md"
    assert junitparser.JUnitXml.fromfile(str(report / "TEST-rlsaudit.xml")).failures


def groovy_faults(text: str) -> bool:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_groovy.language()))
    return parser.parse(text.encode()).root_node.has_error


def test_jenkins_lint() -> None:
    text = (ROOT / JENKINS).read_text(encoding="utf-8")
    assert not groovy_faults(text)
    assert groovy_faults(text.replace("'''\n", "\n", 1))
    assert groovy_faults(text.replace("environment {", "environment", 1))
    sections = re.findall(r"(?m)^    (\w+)", text)
    assert sections == ["agent", "options", "environment", "stages", "post"]  # of a declarative pipeline, in order
    assert "GString" not in text
    assert '"""' not in text  # nothing is put into a script by Groovy


def test_jenkins_scan(tmp_path: Path) -> None:
    text = (ROOT / JENKINS).read_text(encoding="utf-8")
    variables = dict(re.findall(r"(?m)^ +([A-Z_]+) = '([^']*)'", text))
    (script,) = re.findall(r"sh '''(.*?)'''", text, re.DOTALL)
    lines = [line for line in textwrap.dedent(script).splitlines() if " -m " not in line]  # all but the installation
    install(tmp_path / ".rlsaudit-venv")
    (tmp_path / "db" / "migrations").mkdir(parents=True)
    (tmp_path / "db" / "migrations" / "1.sql").write_text(LEAKY)
    done = ran("sh", "-xe", "-c", "\n".join(lines), cwd=tmp_path, env=environment(**variables, RLSAUDIT_BUDGET="0"))
    assert done.returncode == 1, done.stderr
    assert (tmp_path / re.findall(r"testResults: '([^']+)'", text)[0]).is_file()


def test_the_scripts_are_sound_shell(tmp_path: Path) -> None:
    scripts = [gitlab_job("rlsaudit")[0], gitlab_job("rlsaudit-diff")[0]]
    scripts += [step["bash"] for step in documents(AZURE)[0]["steps"] if "bash" in step]
    for number, text in enumerate(scripts):
        (tmp_path / f"{number}.sh").write_text(text)
    assert len(scripts) == 5
    assert not complaints(tool("shellcheck"), "--shell", "bash", *sorted(tmp_path.glob("*.sh")))


def test_pre_commit_manifest(tmp_path: Path) -> None:
    lint = (tool("pre-commit"), "validate-manifest")
    assert not complaints(*lint, ROOT / HOOKS)
    for old, new in (("language: python", "language: pithon"), ("  entry: ", "  entri: "), (r"\.sql$", r"(\.sql$")):
        assert complaints(*lint, broken(tmp_path, HOOKS, old, new)), new


def test_pre_commit_runs_the_hook(tmp_path: Path) -> None:
    """By pre-commit itself; only the making of its environment is left out, rlsaudit being here already."""
    hooks = tmp_path / "hooks"
    work = tmp_path / "work"
    for directory in (hooks, work):
        directory.mkdir()
        git(directory, "init", "-q", "-b", "main")
    (hooks / HOOKS).write_text(
        (ROOT / HOOKS).read_text(encoding="utf-8").replace("language: python", "language: system")
    )
    git(hooks, "add", HOOKS)
    git(hooks, "commit", "-qm", "hooks")
    chosen = [{"id": "rlsaudit", "args": ["db"]}]
    config = {"repos": [{"repo": str(hooks), "rev": git(hooks, "rev-parse", "HEAD"), "hooks": chosen}]}
    (work / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    (work / "db").mkdir()
    env = environment(PRE_COMMIT_HOME=tmp_path / "cache") | {"PATH": f"{BIN}:{environment()['PATH']}"}
    for text, code in ((LEAKY, 1), (SOUND, 0)):
        (work / "db" / "1.sql").write_text(text)
        git(work, "add", "db")
        done = ran(tool("pre-commit"), "run", "--all-files", cwd=work, env=env)
        assert done.returncode == code, done.stdout + done.stderr
    (work / "db" / "1.sql").rename(work / "db" / "1.txt")
    git(work, "add", "-A", "db")
    assert "(no files to check)Skipped" in ran(tool("pre-commit"), "run", "--all-files", cwd=work, env=env).stdout
