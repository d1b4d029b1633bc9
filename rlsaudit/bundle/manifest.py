"""The files of one run as evidence: what they are, what they hash to, and which run came before.

``manifest.json`` names every file of the run and the manifest of the run before it; ``SHA256SUMS`` covers those files and
the manifest, in the form of coreutils, and is what a signature signs.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlsaudit import __version__, evidence
from rlsaudit.errors import UsageError
from rlsaudit.output import encoded
from rlsaudit.report import Report, Verdict

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
SSH_SIGNATURE = f"{SUMS}.sig"
ATTESTATION = "attestation.dsse.json"
OVER_SUMS = frozenset((SUMS, SSH_SIGNATURE, ATTESTATION))
"""What SHA256SUMS cannot cover, because it is that file or is made from it."""
_MANIFEST_AGAIN = "move it away, or choose another --output-dir"
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)")


@dataclass(frozen=True, slots=True)
class FileEntry:
    path: str
    """Relative to the directory of the run, with ``/`` between its parts."""
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Previous:
    """The run before: the hash of its manifest, and when it started."""

    sha256: str
    started: str


@dataclass(frozen=True, slots=True)
class Manifest:
    tool_version: str
    started: str
    """ISO 8601, UTC."""
    verdict: Verdict
    exit_code: int
    previous: Previous | None
    files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A directory that a run has written, by its manifest."""

    directory: Path
    manifest: Manifest
    sha256: str
    """Of the manifest."""


def sealed(files: Mapping[str, str], report: Report, previous: Previous | None) -> dict[str, str]:
    """``manifest.json`` and ``SHA256SUMS`` for the texts of a run by relative name."""
    entries = tuple(_entry(name, files[name]) for name in sorted(files))
    manifest = Manifest(
        __version__, report.timing.started, report.verdict, report.exit_code, previous, entries
    )  # fmt: skip
    text = evidence.written({name: evidence.plain(getattr(manifest, name)) for name in Manifest.__slots__})
    lines = [sums_line(one.path, one.sha256) for one in (*entries, _entry(MANIFEST, text))]
    return {MANIFEST: text, SUMS: "".join(lines)}


def _entry(name: str, text: str) -> FileEntry:
    content = encoded(text)
    return FileEntry(name, hashlib.sha256(content).hexdigest(), len(content))


def sums_line(name: str, digest: str) -> str:
    """A line of SHA256SUMS as coreutils writes it: one that begins with a backslash has a name with escapes."""
    shown = "".join(_ESCAPES.get(character, character) for character in name)
    return f"{'' if shown == name else chr(92)}{digest}  {shown}\n"


def parse_sums(text: str) -> dict[str, str]:
    """Name → sha256 of the lines of SHA256SUMS.  Raises ValueError that says which line is none."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} is not of the form of sha256sum")
        name = re.sub(r"\\([\\nr])", _unescaped, match[3]) if match[1] else match[3]
        if name in found:
            raise ValueError(f"line {number} names a file for the second time")
        found[name] = match[2]
    return found


def _unescaped(match: re.Match[str]) -> str:
    return {"\\": "\\", "n": "\n", "r": "\r"}[match[1]]


def load(directory: Path) -> Run:
    """The run whose files are in ``directory``.  Raises UsageError: no manifest, or one that no run wrote."""
    path = directory / MANIFEST
    try:
        content = path.read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return Run(directory, evidence.read(Manifest, text, str(path)), hashlib.sha256(content).hexdigest())


def before(output: Path, given: Path | None) -> Previous | None:
    """The run that the next one in ``output`` follows: that in the directory ``given``, else what ``output`` holds.

    Raises UsageError: nothing is in the directory given, or ``output`` holds files of these names that are not ours.
    """
    found = held(output)
    chosen = load(given) if given is not None else found
    return Previous(chosen.sha256, chosen.manifest.started) if chosen else None


def held(output: Path) -> Run | None:
    """The run that ``output`` holds, which the next one there replaces; None without.  Raises UsageError as ``before``."""
    if not (output / MANIFEST).exists():
        if (output / SUMS).exists():
            raise UsageError(f"{output / SUMS} is there without a {MANIFEST}, so no run wrote it: {_MANIFEST_AGAIN}")
        return None
    try:
        return load(output)
    except UsageError as error:
        raise UsageError(f"{error}; a run would replace it: {_MANIFEST_AGAIN}") from error


def clear(output: Path, earlier: Run | None, written: Mapping[str, str]) -> tuple[str, ...]:
    """Remove from ``output`` what the run ``earlier`` wrote and this one did not; gives what else is there.

    A file that is no longer as its run wrote it, or that no run wrote, is somebody's own and stays.
    """
    known = {one.path: one.sha256 for one in earlier.manifest.files} if earlier else {}
    kept = []
    for name in present(output):
        if name in written:
            continue
        path = output / name
        signature = earlier is not None and name in (SSH_SIGNATURE, ATTESTATION)
        if signature or (name in known and holds(path, known[name])):
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty, then
                path.parent.rmdir()
        else:
            kept.append(name)
    return tuple(kept)


def present(directory: Path) -> Iterator[str]:
    """Relative names of all files below ``directory``, and of what is neither file nor directory; links are not followed."""
    for place, directories, names in os.walk(directory):
        links = [name for name in directories if (Path(place) / name).is_symlink()]
        directories.sort()
        for name in sorted((*names, *links)):
            yield (Path(place) / name).relative_to(directory).as_posix()


def holds(path: Path, sha256: str) -> bool:
    """Whether it is a file whose content has this hash."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except OSError:
        return False
