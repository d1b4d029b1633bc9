"""Reading SQL files from disk: encodings, archives that are no SQL, and staying inside a directory."""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlsaudit.errors import UsageError

_INCLUDES = re.compile(r"^\s*\\(?:i(?P<relative>r)?|include(?P<long>_relative)?)\s+(?P<name>[^\n]+)", re.MULTILINE)
_WIDE = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"), (codecs.BOM_UTF8, "utf-8-sig"))


@dataclass(frozen=True, slots=True)
class SqlFile:
    """SQL text and where it comes from."""

    text: str
    name: str
    """What messages call it."""
    path: Path | None = None
    root: Path | None = None
    """The directory that ``\\i`` may not leave; None for text without a place, which may include nothing."""


def read(path: Path, root: Path | None = None) -> SqlFile:
    """Read an SQL file; ``root`` is by default the directory it lies in.

    Raises UsageError in one line when it is missing, is no text, or is a pg_dump archive.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    return SqlFile(decode(data, str(path)), str(path), path, root or path.parent)


def decode(data: bytes, name: str) -> str:
    """SQL text of UTF-8 bytes (or UTF-16 with a mark, as Windows shells write it).  Raises UsageError."""
    if data.startswith(b"PGDMP"):
        raise UsageError(f"{name}: a pg_dump archive, not SQL; convert it: pg_restore --file=schema.sql {name}")
    encoding = next((encoding for mark, encoding in _WIDE if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}:{line}: not UTF-8; convert the file first (iconv -t UTF-8)") from error
    if "\0" in text:
        raise UsageError(f"{name}: holds NUL bytes, so it is no SQL text")
    return text


def included(name: str, by: SqlFile, *, relative: bool) -> SqlFile:
    """The file that ``\\i name`` (``\\ir`` when ``relative``) means in ``by``.

    Raises UsageError when it is missing or lies outside the source's directory.
    """
    if by.root is None or by.path is None:
        raise UsageError(f"\\i {name}: SQL from standard input has no directory to include from; name a file instead")
    root = by.root.resolve()
    bases = (by.path.parent,) if relative else (Path.cwd(), root, by.path.parent)
    inside = [path for base in bases if (path := (base / name).resolve()).is_relative_to(root)]
    if not inside:
        raise UsageError(
            f"\\i {name}: lies outside {root}, and only files below it are read; name a file that is above "
            "both, or pipe the files in order to standard input"
        )
    found = next((path for path in inside if path.is_file()), None)
    if found is None:
        raise UsageError(f"\\i {name}: no such file under {root}")
    return read(found, by.root)


def with_included(path: Path) -> tuple[Path, ...]:
    """An SQL file and every file that it may include; what cannot be read is left out."""
    known: dict[Path, None] = {}

    def follow(file: SqlFile) -> None:
        if file.path is None or file.path in known:
            return
        known[file.path] = None
        for found in _INCLUDES.finditer(file.text):
            name, relative = found["name"].strip().strip("'\""), bool(found["relative"] or found["long"])
            with suppress(UsageError):
                follow(included(name, file, relative=relative))

    with suppress(UsageError):
        follow(read(path))
    return tuple(known) or (path,)
