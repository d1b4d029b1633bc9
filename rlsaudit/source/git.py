"""``git:REF:path``: files of a commit, written out to be read as any others; nothing of the repository is touched.

The objects are read one by one, and not by ``git archive``, which leaves out what attributes tell it to.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rlsaudit.errors import UsageError

PREFIX = "git:"
_SECONDS = 120
_LINK, _SUBMODULE = "120000", "160000"
_INCLUDES = (b"\\i", b"\\ir")


@dataclass(frozen=True, slots=True)
class Checkout:
    """What a commit has at a path, in a directory of ours."""

    source: str
    """The file or directory there."""
    root: Path
    """What names in the repository are below."""
    commit: str


@contextmanager
def checkout(source: str) -> Iterator[Checkout]:
    """Write out ``git:REF:path`` of the repository of the working directory; gone again after the block.

    The path is from the repository's root, or from the working directory when it begins with ``./``, as git has it.
    Raises UsageError in one line: no git, no repository, unknown ref, nothing at the path.
    """
    reference, colon, path = source.removeprefix(PREFIX).partition(":")
    if not reference or not colon:
        raise UsageError(f"{source}: write git:REF:path, such as git:origin/main:migrations")
    prefix = _git("rev-parse", "--show-prefix", what=source).decode().strip()
    commit = _commit(source, reference)
    inside = _normal(source, f"{prefix}{path}" if path.startswith(("./", "../")) or path == "." else path)
    entries = _entries(source, commit, inside)
    if not entries:
        raise UsageError(f"{source}: {inside or '.'} is not in {reference} ({commit[:10]})")
    with tempfile.TemporaryDirectory(prefix="rlsaudit-git-") as made:
        root = Path(made).resolve()
        if inside in entries:  # a file; what it may include lies beside and below it
            content = _contents([entries[inside]])[0]
            if any(line.lstrip().startswith(_INCLUDES) for line in content.splitlines()):
                entries |= _entries(source, commit, str(PurePosixPath(inside).parent).replace(".", "", 1))
        for name, content in zip(entries, _contents(list(entries.values())), strict=True):
            target = root / name
            if not target.resolve().is_relative_to(root):
                raise UsageError(f"{source}: {name!r} lies outside the repository")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield Checkout(str(root / inside), root, commit)


def _commit(source: str, reference: str) -> str:
    try:
        return (
            _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{reference}^{{commit}}", what="")
            .decode()
            .strip()
        )
    except UsageError:
        shallow = _git("rev-parse", "--is-shallow-repository", what=source).decode().strip() == "true"
        mend = (
            "; the clone is shallow: fetch it (fetch-depth: 0 with actions/checkout)" if shallow else "; fetch it first"
        )
        raise UsageError(f"{source}: the repository has no commit {reference}{mend}") from None


def _normal(source: str, path: str) -> str:
    normal = os.path.normpath(path).replace(os.sep, "/") if path else "."
    if not _below(normal):
        raise UsageError(f"{source}: the path lies outside the repository; it is taken from the repository's root")
    return "" if normal == "." else normal


def _below(normal: str) -> bool:
    """Whether a path that is normal lies below the repository's root."""
    return not normal.startswith(("../", "/")) and normal != ".."


def _entries(source: str, commit: str, path: str) -> dict[str, str]:
    """Name → object of every file at or below the path; an SQL file that is a link is what it leads to in the commit.

    Raises UsageError for a link that leads to no file of the commit, and for a submodule below the path: what its files
    are no commit here says.
    """
    below = ["--", path] if path else []
    listed = _git("ls-tree", "-r", "-z", "--full-tree", commit, *below, what=source, literal=True)
    found = {}
    for entry in listed.split(b"\0"):
        about, tab, name = entry.partition(b"\t")
        if not tab:
            continue
        mode, _, given = about.decode().split()
        shown = os.fsdecode(name)
        if mode.startswith("100"):
            found[shown] = given
        elif mode == _LINK and shown.lower().endswith(".sql"):
            found[shown] = _linked(source, commit, shown, given)
        elif mode == _SUBMODULE and path:
            raise UsageError(f"{source}: {shown} is a submodule, whose files are in no commit of this repository")
    return found


def _linked(source: str, commit: str, name: str, given: str) -> str:
    """The object of the file that a link leads to; a link to a link is none."""
    target = os.path.normpath(f"{PurePosixPath(name).parent}/{os.fsdecode(_contents([given])[0])}")
    listed = (
        _git("ls-tree", "-z", "--full-tree", commit, "--", target, what=source, literal=True) if _below(target) else b""
    )
    mode, _, rest = listed.decode(errors="surrogateescape").partition(" ")
    if not mode.startswith("100"):
        raise UsageError(f"{source}: {name} is a link to {target}, which is no file of the commit")
    return rest.split()[1]


def _contents(objects: list[str]) -> list[bytes]:
    data = _git("cat-file", "--batch", what="", stdin="\n".join(objects).encode() + b"\n")
    found, at = [], 0
    for _ in objects:
        end = data.index(b"\n", at)
        size = int(data[at:end].split()[2])
        found.append(data[end + 1 : end + 1 + size])
        at = end + size + 2
    return found


def _git(*arguments: str, what: str, stdin: bytes = b"", literal: bool = False) -> bytes:
    options = ["--literal-pathspecs"] if literal else []
    try:
        done = subprocess.run(
            ["git", *options, *arguments],  # noqa: S607 - the user's git, by PATH
            input=stdin,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
        )
    except FileNotFoundError:
        raise UsageError(f"{what}: git is not installed, and git:REF:path is read with it") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{what}: git did not answer within {_SECONDS} seconds") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split()) or f"git ended with {done.returncode}"
        raise UsageError(f"{what}: {said.removeprefix('fatal: ')}")
    return done.stdout
