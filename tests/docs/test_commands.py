"""Every command that README.md and docs/ print is run, as it stands, in a project that has the files it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlsaudit.source import server as scratch
from tests.integrations.conftest import ROOT, environment, git, install, tool
from tests.integrations.test_recipes import COMMANDS

pytestmark = pytest.mark.slow
EVERY_TIME = ("README.md",)
"""Pages whose commands are run with every change; the others' are run nightly."""

SCHEMA = """\
CREATE ROLE app_user LOGIN;
CREATE TABLE invoices (tenant_id int NOT NULL, id int NOT NULL, status text NOT NULL, PRIMARY KEY (tenant_id, id));
ALTER TABLE invoices ENABLE ROW LEVEL SECURITY;
ALTER TABLE invoices FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON invoices USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT ON invoices TO app_user;
"""
OPENING = "CREATE POLICY open ON invoices FOR SELECT USING (status = 'public');\n"
QUERIES = "-- name: get_invoice\nSELECT status FROM invoices WHERE id = $1;\n"
FLEET = """\
[defaults]
mode = "audit"
roles = ["app_user"]
[targets.billing]
source = "service=production"
[targets.reports]
source = "migrations/"
"""
# What ends with 1 because the project leaks.
TELLS = re.compile(r"\b(?:rlsaudit (?:scan|audit|diff|fleet|merge|replay|fix|evidence|report)|pytest)\b")
SHARED_MACHINE = "changes the machine that the tests run on"
NOT_RUN = {
    "pip install .": f"{SHARED_MACHINE}; tests/packaging installs it",
    "docker build -t rlsaudit .": "no container engine; tests/integrations/test_image.py holds what it copies",
    'docker run --rm --read-only --tmpfs /tmp -v "$PWD/db:/db:ro" -v rlsaudit-report:/work rlsaudit scan /db/migrations': (
        "no container engine"
    ),
    "install -D -m 0755 integrations/nightly.sh /usr/local/lib/rlsaudit/nightly": SHARED_MACHINE,
    "install -m 0644 integrations/systemd/rlsaudit.service integrations/systemd/rlsaudit.timer /etc/systemd/system/": (
        SHARED_MACHINE
    ),
    "systemctl enable --now rlsaudit.timer": SHARED_MACHINE,
    "install -m 0644 rlsaudit-report/rlsaudit.prom /var/lib/node_exporter/textfile/rlsaudit.prom": SHARED_MACHINE,
    'eval "$(_RLSAUDIT_COMPLETE=zsh_source rlsaudit)"': "zsh; tests/docs/test_manual.py asks for its script",
    "_RLSAUDIT_COMPLETE=fish_source rlsaudit | source": "fish; tests/docs/test_manual.py asks for its script",
    "man rlsaudit": "nothing is installed; tests/docs/test_manual.py reads the page with man",
    "rlsaudit fleet fleet.toml --dask tcp://scheduler:8786": "no such host; tests/fleet has a cluster of its own",
    "make bench CASES=cases": "downloads other people's tools, and takes hours",
    "python manage.py showmigrations --plan | sed 's/^\\[.\\]  //; s/\\./ /' |\n"
    '    while read -r app name; do python manage.py sqlmigrate "$app" "$name"; done | rlsaudit scan -': (
        "tests/source/test_frameworks.py runs it with a Django project"
    ),
}
PAGES = ("README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")))


def blocks(name: str) -> list[list[str]]:
    """The fenced sh blocks of a page, each as its commands."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [list(commands(block)) for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]


def commands(block: str) -> Iterator[str]:
    """Whole commands: a line, or as many as the shell needs; a comment behind one is left out."""
    pending = ""
    for line in block.splitlines():
        pending = f"{pending}\n{re.sub(r'(^|  +)# .*', '', line)}".strip()
        if pending and not pending.endswith(("|", "\\")):
            yield pending
            pending = ""
    assert not pending, pending


BLOCKS = [(page, number, block) for page in PAGES for number, block in enumerate(blocks(page))]


@dataclass(frozen=True)
class Project:
    """A repository with everything that a command may name, and the environment of a person who works in it."""

    template: Path
    variables: dict[str, str]

    def run(self, command: str, place: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=place,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    home, template = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("project")
    venv = tmp_path_factory.mktemp("venv")
    install(venv)
    for name in ("python", "pytest"):
        (venv / "bin" / name).symlink_to(Path(sys.executable).parent / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(scratch._SETTINGS, "shared_preload_libraries", "pg_stat_statements")
        with scratch.ScratchServer() as server:
            live(server)
            with server.connect() as connection:
                where = connection.info
                address = {"PGHOST": where.host, "PGPORT": str(where.port), "PGUSER": "postgres"}
            services(home, template, address)
            variables = environment(
                **address,
                HOME=home,
                PGDATABASE="app",
                PGSERVICEFILE=home / ".pg_service.conf",
                VENV=venv,
                RLSAUDIT_BUDGET="0",
                RLSAUDIT_JOBS="1",
                SSH_AUTH_SOCK=home / "agent",
            )
            variables["PATH"] = f"{venv / 'bin'}:{server.binary('psql').parent}:{os.environ['PATH']}"
            made = Project(template, variables)
            agent = subprocess.Popen([tool("ssh-agent"), "-D", "-a", home / "agent"], stdout=subprocess.DEVNULL)
            try:
                fill(made, home)
                (venv / ".installed").touch()
                yield made
            finally:
                agent.terminate()
                agent.wait()


@pytest.fixture(scope="module")
def seen() -> set[tuple[str, ...]]:
    """What was run already, each command with those before it in its block."""
    return set()


def live(server: scratch.ScratchServer) -> None:
    server.create_database("app")
    with server.connect("app") as connection:
        connection.execute((SCHEMA + OPENING).encode())
        connection.execute("CREATE EXTENSION pg_stat_statements; SELECT pg_stat_statements_reset()")
        connection.execute("INSERT INTO invoices VALUES (1, 1, 'open')")
        connection.execute("SELECT status FROM invoices WHERE id = 1")


def services(home: Path, template: Path, address: dict[str, str]) -> None:
    told = "\n".join(f"{name.removeprefix('PG').lower()}={value}" for name, value in address.items())
    (home / ".pg_service.conf").write_text("".join(
        f"[{name}]\n{told}\ndbname={database}\n"
        for name, database in (("production", "app"), ("staging", "app"), ("cluster", "postgres"))
    ))  # fmt: skip
    (template / "services").mkdir()
    (template / "services" / "pg_service.conf").write_text(f"[one]\n{told}\ndbname=app\n")


def fill(project: Project, home: Path) -> None:
    """The files of the project, and what earlier runs left: reports, and two nights, chained and signed."""
    place = project.template
    shutil.copy(ROOT / "Makefile", place)
    files = {
        "pyproject.toml": '[tool.rlsaudit]\nroles = ["app_user"]\n',
        "schema.sql": SCHEMA + OPENING,
        "migrations/1_invoices.sql": SCHEMA,
        "migrations/2_open.sql": OPENING,
        "db/migrations/1_invoices.sql": SCHEMA,
        "fleet.toml": FLEET,
        "migrate-as-usual": '#!/bin/sh\nexec psql -X -q -d "$DATABASE_URL" -f schema.sql\n',
    }
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    (place / "migrate-as-usual").chmod(0o755)
    git(place, "init", "--quiet", "--initial-branch=main")
    git(place, "add", "db")
    git(place, "commit", "--quiet", "--message", "base")
    git(place, "update-ref", "refs/remotes/origin/main", "HEAD")
    (place / "db/migrations/2_open.sql").write_text(OPENING, encoding="utf-8")
    prepared = f"""
        mkdir -m 0700 {home}/.ssh && ssh-keygen -q -t ed25519 -N '' -C '' -f {home}/.ssh/nightly
        cp {home}/.ssh/nightly nightly && cp {home}/.ssh/nightly.pub nightly.pub && ssh-add -q nightly
        echo "nightly@example.com $(cat nightly.pub)" > allowed_signers
        openssl genpkey -algorithm ed25519 -out nightly.pem
        rlsaudit scan -q schema.sql --output-dir evidence/2026-11-20 --sign-ssh nightly > scan.txt || test $? = 1
        cp -r evidence/2026-11-20 rlsaudit-report && export RLSAUDIT_SIGN_SSH=nightly
        rlsaudit audit -q schema.sql --output-dir evidence/2026-11-21 --previous evidence/2026-11-20 > audit.txt || test $? = 1
    """
    done = project.run(f"set -e\n{prepared}", place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (place / "rlsaudit-report/replay/F-1.sql").exists()


@pytest.mark.parametrize(
    ("page", "number", "block"),
    [
        pytest.param(*one, id=f"{one[0]}-{one[1]}", marks=() if one[0] in EVERY_TIME else pytest.mark.nightly)
        for one in BLOCKS
    ],
)
def test_commands_run(
    page: str, number: int, block: list[str], project: Project, seen: set[tuple[str, ...]], tmp_path: Path
) -> None:
    if tuple(block) in seen:
        return  # done before, from the same state
    place = tmp_path / "project"
    shutil.copytree(project.template, place, symlinks=True)
    if any("queries.sql" in command for command in block):
        (place / "queries.sql").write_text(QUERIES, encoding="utf-8")
    for position, command in enumerate(block, 1):
        seen.add(tuple(block[:position]))
        if command in NOT_RUN:
            subprocess.run(["bash", "-n", "-c", command], check=True)
        elif command not in COMMANDS.values():
            done = project.run(command, place)
            assert done.returncode == 0 or (done.returncode == 1 and TELLS.search(command)), (
                f"{command}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )


def test_nothing_that_is_printed_goes_unseen() -> None:
    """A command stands in an sh block, and what is not run stands on a page."""
    printed = {command for _, _, block in BLOCKS for command in block}
    assert not NOT_RUN.keys() - printed
    assert set(COMMANDS.values()) <= printed
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert set(re.findall(r"^\$ (.*)", text, re.MULTILINE)) <= printed, page
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            typed = re.search(r"^(rlsaudit|make|pytest) [a-z-]+", block, re.MULTILINE)
            assert language == "sh" or not typed or page == "docs/cli.md", f"{page}: {typed}"


@pytest.mark.parametrize(
    "wrong", ["rlsaudit scan nothing.sql", "rlsaudit scan schema.sql --such", "rlsaudit scan service=none"]
)
def test_a_command_that_does_not_work_is_seen(wrong: str, project: Project) -> None:
    assert project.run(wrong, project.template).returncode not in (0, 1)
