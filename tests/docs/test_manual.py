"""The manual page, and what the shells complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlsaudit import docs, manual
from rlsaudit.cli import cli

PAGE = Path(__file__).parents[2] / "docs" / "rlsaudit.1"


def man(page: Path) -> tuple[str, str]:
    """The page as a person sees it, and what is wrong with it."""
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("no man and groff here")
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "100"}
    command = ["man", "--warnings", "-E", "UTF-8", "-l", str(page)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split()), done.stderr


def test_every_command_and_option_can_be_read() -> None:
    shown, wrong = man(PAGE)
    assert not wrong
    for name, command in docs.commands():
        assert f"rlsaudit {name}" in shown
        for option in command.params:
            assert option.param_type_name == "argument" or ", ".join(option.opts) in shown
    assert re.search(r"EXIT STATUS 0 clean.* 3 not trustworthy", shown)


def test_a_faulty_page_is_seen(tmp_path: Path) -> None:
    broken = tmp_path / "broken.1"
    broken.write_text(PAGE.read_text().replace(".SH COMMANDS", ".NONSENSE COMMANDS\n\\*[nothing]"))
    assert "warning" in man(broken)[1]


def test_text_is_never_a_request(tmp_path: Path) -> None:
    entry = manual.Entry("x", [".SH Not a heading", "'so a\\nb"], [("--a-b", "", "", ".TP … “quoted”")])
    page = tmp_path / "x.1"
    page.write_text(manual.page(["T.", "Exit codes: 0 clean"], [entry]), encoding="ascii")
    shown, wrong = man(page)
    assert not wrong
    assert all(text in shown for text in (".SH Not a heading", "'so a\\nb", "--a-b", ".TP … “quoted”"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, tmp_path: Path) -> None:
    program = tmp_path / "rlsaudit"
    program.write_text(f"#!{sys.executable}\nfrom rlsaudit.cli import main\nmain()\n")  # as pip writes it
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "_RLSAUDIT_COMPLETE": f"{shell}_source"}
    done = subprocess.run(["rlsaudit"], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{shell}_complete" in done.stdout
    if shell == "bash":
        asked = (
            'COMP_WORDS=(rlsaudit sc); COMP_CWORD=1; _rlsaudit_completion rlsaudit sc rlsaudit; echo "${COMPREPLY[@]}"'
        )
        del environment["_RLSAUDIT_COMPLETE"]
        command = ["bash", "-c", f"{done.stdout}\n{asked}"]
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert told.stdout.split() == ["scan"]
        assert "scan" in cli.commands
