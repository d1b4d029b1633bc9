"""Whether the files of runs are as the runs wrote them: hashes, manifest, signatures, and what the record says of itself.

Every answer is a part that is in order, one that fails, or a note of what could not be told.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

from rlsaudit import evidence
from rlsaudit.bundle import manifest as files
from rlsaudit.bundle.attestation import check_attestation
from rlsaudit.bundle.manifest import ATTESTATION, MANIFEST, OVER_SUMS, SSH_SIGNATURE, SUMS, Manifest, Run
from rlsaudit.bundle.ssh import SignatureError, check_ssh, check_ssh_key
from rlsaudit.errors import UsageError
from rlsaudit.report import Report

EVIDENCE = "evidence.json"
_MARKS = (MANIFEST, SUMS, EVIDENCE)


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that was looked at, and what is to be said of it."""

    state: Literal["ok", "FAIL", "note"]
    place: str
    """Directory or file, as it was given."""
    text: str


@dataclass(frozen=True, slots=True)
class Trust:
    """Public keys that signatures are held against; every kind that is given must have signed."""

    allowed_signers: Path | None = None
    identity: str = ""
    ssh_public_key: Path | None = None
    ed25519_public_key: Path | None = None

    @property
    def given(self) -> bool:
        return bool(self.allowed_signers or self.ssh_public_key or self.ed25519_public_key)


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of one directory; ``run`` is None when its manifest cannot be read."""

    directory: Path
    run: Run | None
    parts: tuple[Part, ...]

    @property
    def failed(self) -> bool:
        return any(part.state == "FAIL" for part in self.parts)


def directories(given: Iterable[Path]) -> tuple[Path, ...]:
    """Directories of runs among those given and below them.  Raises UsageError for one that is and holds none."""
    found: dict[Path, Path] = {}
    for one in given:
        if not one.is_dir():
            raise UsageError(f"{one}: no such directory")
        runs = [one] if _is_run(one) else sorted(place for place in one.rglob("*") if place.is_dir() and _is_run(place))
        if not runs:
            raise UsageError(f"{one}: neither the output directory of a run, nor are there any below it")
        found |= {run.resolve(): run for run in runs}
    return tuple(found.values())


def _is_run(place: Path) -> bool:
    return any((place / name).is_file() for name in _MARKS)


def verify(directory: Path, trust: Trust) -> Verified:
    """Look at one run.  Raises UsageError for keys that are none."""
    try:
        run = files.load(directory)
    except UsageError as error:
        return Verified(directory, None, (Part("FAIL", str(directory), str(error)),))
    sums, unreadable = _sums(directory)
    if sums is None:
        return Verified(directory, run, (Part("FAIL", str(directory / SUMS), unreadable),))
    parts = [*_files(directory, sums), *_manifest(directory, run.manifest, sums)]
    if not parts:
        parts.append(Part("ok", str(directory), f"{len(sums)} files are as {SUMS} and {MANIFEST} say, and no others"))
    parts += [*_record(directory, run.manifest), *_signatures(directory, run.manifest, trust)]
    return Verified(directory, run, tuple(parts))


def _sums(directory: Path) -> tuple[dict[str, str] | None, str]:
    try:
        text = (directory / SUMS).read_bytes().decode()
        found = files.parse_sums(text)
        if text != "".join(files.sums_line(name, digest) for name, digest in found.items()):
            return None, "not as the run wrote it: spaces, line ends or the form of a line were changed"
        return found, ""
    except OSError as error:
        return None, f"cannot be read: {error.strerror or error}"
    except ValueError as error:
        return None, f"not what sha256sum writes: {error}"


def _files(directory: Path, sums: dict[str, str]) -> Iterator[Part]:
    """What fails of the hashes: changed, missing and added files."""
    there = set(files.present(directory))
    for name in sorted(sums.keys() | (there - OVER_SUMS)):
        place = str(directory / name)
        if name not in sums:
            yield Part("FAIL", place, f"added: {SUMS} does not name it")
        elif name not in there:
            yield Part("FAIL", place, "missing")
        elif not stat.S_ISREG((directory / name).lstat().st_mode):
            yield Part("FAIL", place, "not a plain file")
        elif not files.holds(directory / name, sums[name]):
            yield Part("FAIL", place, f"changed: its sha256 is not that of {SUMS}")
    for name in sorted(there & OVER_SUMS):
        if not stat.S_ISREG((directory / name).lstat().st_mode):
            yield Part("FAIL", str(directory / name), "not a plain file")


def _manifest(directory: Path, manifest: Manifest, sums: dict[str, str]) -> Iterator[Part]:
    """Where manifest and SHA256SUMS, or the manifest and itself, do not agree."""
    place = str(directory / MANIFEST)
    if MANIFEST not in sums:
        yield Part("FAIL", place, f"{SUMS} does not cover it")
    listed = {one.path: one for one in manifest.files}
    for name in sorted(listed.keys() ^ (sums.keys() - {MANIFEST})):
        yield Part("FAIL", place, f"{name}: only {MANIFEST if name in listed else SUMS} names it")
    for name, one in listed.items():
        path = directory / name
        if name in sums and one.sha256 != sums[name]:
            yield Part("FAIL", place, f"{name}: its sha256 is another than in {SUMS}")
        elif name in sums and _is_file(path) and path.stat().st_size != one.size and files.holds(path, one.sha256):
            yield Part("FAIL", place, f"{name}: its size is another than that of the file")
    if started(manifest) is None:
        yield Part("FAIL", place, "its start is not a time with a time zone")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def started(manifest: Manifest) -> datetime | None:
    """When the run began; None where that is no time."""
    try:
        when = datetime.fromisoformat(manifest.started)
    except ValueError:
        return None
    return when if when.tzinfo else None


def _record(directory: Path, manifest: Manifest) -> Iterator[Part]:
    """What evidence.json says against the manifest, and against itself."""
    place = directory / EVIDENCE
    if EVIDENCE not in {one.path for one in manifest.files}:
        yield Part("note", str(directory), f"the run wrote no {EVIDENCE}, so there are only its renderings")
        return
    if not place.is_file():
        return  # told by the hashes
    try:
        report = evidence.parse(place.read_text(encoding="utf-8"), str(place))
    except UsageError as error:
        yield Part("FAIL", str(place), str(error).removeprefix(f"{place}: "))
        return
    except (OSError, UnicodeDecodeError):
        return  # told by the hashes
    said = (report.timing.started, report.verdict, report.exit_code)
    if said != (manifest.started, manifest.verdict, manifest.exit_code):
        yield Part("FAIL", str(place), f"start, verdict or exit code are not those of {MANIFEST}")
    for text in _waivers(report):
        yield Part("FAIL", str(place), text)


def _waivers(report: Report) -> Iterator[str]:
    """Exceptions that cannot have been judged so when the run began."""
    day = report.timing.started[:10]  # of ISO 8601, so that text compares as days do
    for one in report.waivers:
        if one.status == "in force" and "" < one.expires < day:
            yield f"the waiver for {one.matches} is said to be in force, but it ended on {one.expires}"
    covered = {name for one in report.waivers if one.status == "in force" for name in one.findings}
    for finding in report.findings:
        if finding.status == "waived" and finding.id not in covered:
            yield f"{finding.id} is said to be waived, but no waiver in force covers it"


def _signatures(directory: Path, manifest: Manifest, trust: Trust) -> Iterator[Part]:
    when = started(manifest)
    if when is None:
        return
    if trust.allowed_signers:
        check = partial(check_ssh, directory, trust.allowed_signers, trust.identity, when)
        yield _signed(directory / SSH_SIGNATURE, f"{trust.identity} as {trust.allowed_signers} has it", check)
    if trust.ssh_public_key:
        check = partial(check_ssh_key, directory, trust.ssh_public_key, when)
        yield _signed(directory / SSH_SIGNATURE, str(trust.ssh_public_key), check)
    if trust.ed25519_public_key:
        check = partial(check_attestation, directory, trust.ed25519_public_key)
        yield _signed(directory / ATTESTATION, str(trust.ed25519_public_key), check)
    if not trust.given:
        yield _unchecked(directory)


def _signed(signature: Path, who: str, check: Callable[[], None]) -> Part:
    if not signature.is_file():
        return Part("FAIL", str(signature), f"missing: the run is not signed by {who}")
    try:
        check()
    except (SignatureError, OSError, ValueError) as error:
        return Part("FAIL", str(signature), f"not a signature by {who}: {error}")
    return Part("ok", str(signature), f"signed by {who}")


def _unchecked(directory: Path) -> Part:
    """Without a key nothing can be said but that: who changes files can change their hashes."""
    there = [name for name in (SSH_SIGNATURE, ATTESTATION) if (directory / name).is_file()]
    if there:
        return Part("note", str(directory), f"signed ({', '.join(there)}), but not checked: give the public key")
    return Part("note", str(directory), "not signed: whoever can change the files can change their hashes as well")
