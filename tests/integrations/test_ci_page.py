"""What docs/ci.md tells people to copy is linted, and names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from rlsaudit import docs
from tests.integrations.conftest import ROOT, complaints, documents, ran, tool

PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
(ACTION,) = documents("action.yml")
PINNED = re.sub("COMMIT", "0123456789abcdef0123456789abcdef01234567", BLOCKS[".github/workflows/rlsaudit.yml"])


def workflow_lint(tmp_path: Path, text: str) -> str:
    place = tmp_path / ".github" / "workflows"
    place.mkdir(parents=True, exist_ok=True)
    (place / "rlsaudit.yml").write_text(text, encoding="utf-8")
    schema = ("--builtin-schema", "vendor.github-workflows")
    said = complaints(tool("check-jsonschema"), *schema, place / "rlsaudit.yml")
    return said + complaints(tool("zizmor"), "--offline", "--quiet", place / "rlsaudit.yml")


def test_the_workflow(tmp_path: Path) -> None:
    assert not workflow_lint(tmp_path, PINNED)
    for old, new in (
        ("runs-on:", "run-on:"),
        ("checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8", "checkout@v5"),
        ("  pull_request:", "  pull_request_target:"),
    ):
        assert old in PINNED
        assert workflow_lint(tmp_path, PINNED.replace(old, new)), new


def test_the_inputs_are_those_of_the_action_and_the_component() -> None:
    jobs = yaml.safe_load(PINNED)["jobs"]
    used = {name for job in jobs.values() for name in job["steps"][1]["with"]}
    assert used <= ACTION["inputs"].keys()
    table = re.search(r"\| input \| meaning \|\n\|---\|---\|\n(.*?)\n\n", PAGE, re.DOTALL)
    assert table
    firsts = [line.split("|")[1] for line in table[1].splitlines()]
    assert {name for first in firsts for name in re.findall(r"`([a-z-]+)`", first)} == ACTION["inputs"].keys()
    (included,) = yaml.safe_load(BLOCKS[".gitlab-ci.yml"])["include"]
    spec = documents("templates/rlsaudit.yml")[0]["spec"]["inputs"]
    required = {name for name, one in spec.items() if "default" not in one}
    assert required <= included["inputs"].keys() <= spec.keys()


def test_the_pre_commit_configuration(tmp_path: Path) -> None:
    file = tmp_path / ".pre-commit-config.yaml"
    file.write_text(BLOCKS[".pre-commit-config.yaml"], encoding="utf-8")
    assert not complaints(tool("pre-commit"), "validate-config", file)
    (hook,) = yaml.safe_load(file.read_text())["repos"][0]["hooks"]
    assert hook["id"] in {one["id"] for one in documents(".pre-commit-hooks.yaml")[0]}


def test_the_drop_in_of_the_service(tmp_path: Path) -> None:
    (added,) = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    unit = tmp_path / "rlsaudit.service"
    text = (ROOT / "integrations/systemd/rlsaudit.service").read_text(encoding="utf-8")
    text = text.replace("/usr/local/lib/rlsaudit/nightly", "/bin/true").replace(
        "man:rlsaudit(1)", "https://example.com/"
    )
    for more, sound in ((added, True), (added.replace("ReadWritePaths", "ReadWritePath"), False)):
        unit.write_text(f"{text}\n{more}", encoding="utf-8")
        assert bool(ran(tool("systemd-analyze"), "verify", unit).stderr) is not sound
    assert added.count("TEXTFILE_DIR") == 1
    assert "TEXTFILE_DIR" in (ROOT / "integrations/nightly.sh").read_text(encoding="utf-8")


def test_the_commands_exist() -> None:
    known = {name.split()[0] for name, _ in docs.commands()}
    for page in (ROOT / "docs/ci.md", *(ROOT / "docs/recipes").glob("*.md")):
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            used = re.findall(r"(?:^|[|&] +|work )rlsaudit +(?:rlsaudit +)?([a-z]+)", block, re.MULTILINE)
            assert set(used) <= known, page
    assert 'VOLUME ["/work", "/tmp"]' in (ROOT / "Dockerfile").read_text(encoding="utf-8")
