"""The pages are up to date, and what they tell people to type exists."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rlsaudit import config, docs, markdown, waivers
from rlsaudit.check import Check
from rlsaudit.cli import cli
from rlsaudit.config_keys import KEYS
from rlsaudit.report import Format

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WRITTEN = (
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *sorted(f"docs/{page.relative_to(ROOT / 'docs')}" for page in (ROOT / "docs").rglob("*.md")),
)
MEND = "run `make docs`"


def test_committed_pages_are_up_to_date() -> None:
    for name, text in docs.pages().items():
        page = ROOT / "docs" / name
        assert page.is_file(), f"docs/{name} is missing: {MEND}"
        assert page.read_text(encoding="utf-8") == text, f"docs/{name} is old: {MEND}"


def test_no_page_is_left_of_a_check_that_is_gone() -> None:
    stale = {f"checks/{page.name}" for page in (ROOT / "docs/checks").glob("*.md")} - docs.pages().keys()
    assert not stale, MEND


def test_writing_is_deterministic_and_removes_stale_pages(tmp_path: Path) -> None:
    docs.write(tmp_path)
    (tmp_path / "checks/RLS999.md").write_text("old")
    (tmp_path / "cli.md").write_text("old")
    written = docs.write(tmp_path)
    assert {str(path.relative_to(tmp_path)): path.read_text() for path in written} == docs.pages()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(written)


def test_every_command_and_option_has_help() -> None:
    for name, command in docs.commands():
        assert command.help, name
        for one in command.params:
            assert not isinstance(one, click.Option) or one.help, f"{name} {one.name}"


@pytest.mark.parametrize("name", [one for one in WRITTEN if one != "docs/cli.md"])
def test_every_command_that_is_printed_exists(name: str) -> None:
    known = dict(docs.commands())
    for line in _commands((ROOT / name).read_text(encoding="utf-8")):
        typed = line.split("#")[0]
        words = typed.split()
        command = known.get(" ".join(words[:2])) or known.get(words[0])
        assert command, f"{name}: rlsaudit {line}"
        options = {option for one in command.params for option in one.opts}
        assert set(re.findall(r"(?<=\s)--?[a-z][a-z0-9-]*", typed)) <= options, f"{name}: rlsaudit {line}"


def test_every_environment_prefix_and_exit_code_of_the_readme_is_real() -> None:
    assert "RLSAUDIT_" in README
    assert all(f"| {code} |" in README for code in (0, 1, 2, 3))


@pytest.mark.parametrize("name", [one for one in WRITTEN if one != "docs/cli.md"])
def test_every_make_target_that_is_printed_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = (ROOT / name).read_text(encoding="utf-8")
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_the_configurations_that_are_printed_parse(tmp_path: Path) -> None:
    waived, examples = [], []
    guide = (ROOT / "docs/guides/configuring.md").read_text(encoding="utf-8")
    for example in _blocks(guide + README, "toml"):
        (waived if "waiver" in tomllib.loads(example) else examples).append(example)
    (tmp_path / waivers.FILENAME).write_text("".join(waived), encoding="utf-8")
    assert waivers.load(None, tmp_path)
    for example in examples:
        (tmp_path / config.FILENAME).write_text(example, encoding="utf-8")
        config.load(None, tmp_path)
    example = next(one for one in examples if "roles" in tomllib.loads(one))
    (tmp_path / config.FILENAME).write_text(example, encoding="utf-8")
    loaded = config.load(None, tmp_path)
    given = tomllib.loads(example)
    assert loaded.declared.roles == tuple(given["roles"])
    assert loaded.declared.context is not None
    assert [persona.name for persona in loaded.declared.context.personas] == [
        persona["name"] for persona in given["context"]["personas"]
    ]
    assert loaded.declared.relations.keys() == given["relations"].keys()


def test_every_key_says_what_it_is_and_which_flag_wins_over_it() -> None:
    rows = [line.split(" | ") for line in docs.configuration().splitlines() if line.startswith("| `")]
    assert all(row[1].strip() for row in rows)
    assert all(row[2].strip() for row in rows if len(row) == 5)
    assert next(row for row in rows if "`fail_on`" in row[0])[:2] == ["| `fail_on`", "critical/high/medium/low/info"]
    assert any("`RLSAUDIT_FAIL_ON`" in row[-1] for row in rows if "`fail_on`" in row[0])
    assert all(f"| `{key}` |" in docs.configuration() for keys in KEYS.values() for key in keys)


def test_the_examples_of_contributing_are_a_check_and_a_format() -> None:
    check, format_ = (
        _run(block) for block in _blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "python")
    )
    assert any(isinstance(value, Check) for value in check.values())
    assert any(isinstance(value, Format) for value in format_.values())


@pytest.mark.parametrize("name", WRITTEN)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{name}: {target}"


def test_usage_is_refused_without_a_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_prose_cannot_break_out_of_markdown() -> None:
    assert markdown.text("a <b> and `SELECT * FROM <t>` and *") == "a \\<b> and `SELECT * FROM <t>` and \\*"
    assert markdown.cell("a | b") == "a \\| b"


def test_the_command_line_is_documented_whole() -> None:
    page = docs.command_line()
    assert all(f"## {name}\n" in page for name, _ in docs.commands())
    assert {name.split()[0] for name, _ in docs.commands()} == set(cli.commands)


def _commands(text: str) -> Iterator[str]:
    """What follows ``rlsaudit`` in code: in blocks, at the start of a line or in a pipe, and in code spans."""
    for block in re.findall(r"^```(?:sh|console|yaml)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from re.findall(r"(?:^|[|$] |run: )rlsaudit ([a-z].*)", block, re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`rlsaudit ([a-z][^`]*)`", prose)


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def _run(block: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    return names
