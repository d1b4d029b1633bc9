"""A directory of migrations as a list of SQL files in the order in which they are applied."""

from __future__ import annotations

import re
from pathlib import Path

from rlsaudit.errors import UsageError
from rlsaudit.source.files import SqlFile, read

_CONVENTIONAL = ("supabase/migrations", "migrations")
_UNDO_DIRECTORIES = frozenset({"revert", "verify", "down", "rollback", "undo"})
_UNDO_FILE = re.compile(r"(?:^|[._-])(?:down|undo|rollback|revert)\.sql\Z|^U\d[\d._]*__", re.IGNORECASE)
_FLYWAY = re.compile(r"([VR])(\d+(?:[._]\d+)*)?__", re.IGNORECASE)

# goose, sql-migrate, dbmate, rambler; then tern and MyBatis, which mark only where undoing begins.
_UP = re.compile(r"\s*--\s*(?:\+goose|\+migrate|migrate:|rambler)\s*up\b", re.IGNORECASE)
_DOWN = re.compile(
    r"\s*(?:--\s*(?:\+goose|\+migrate|migrate:|rambler)\s*down\b|---- create above / drop below ----"
    r"|--\s*//\s*@UNDO\b)",
    re.IGNORECASE,
)


def collect(directory: Path) -> tuple[SqlFile, ...]:
    """The ``.sql`` files under ``directory`` in version order, without those and without parts that undo.

    A ``migrations`` (or ``supabase/migrations``) directory inside is taken alone.  Numbers count as numbers:
    ``V2__`` before ``V10__``, ``0002`` before ``0010``; Flyway's repeatable ``R__`` files come last.  Raises
    UsageError when no file is left.
    """
    for name in _CONVENTIONAL:
        if any(_forward(directory / name)):
            directory = directory / name
            break
    paths = sorted(_forward(directory), key=lambda path: _order(path.relative_to(directory)))
    if not paths:
        raise UsageError(f"{directory}: no .sql migrations there; name the directory that holds them, or a file")
    files = (read(path, directory) for path in paths)
    return tuple(SqlFile(without_down(file.text), file.name, file.path, file.root) for file in files)


def without_down(text: str) -> str:
    """``text`` with what goose, sql-migrate, dbmate, tern or MyBatis would run only to undo it left blank.

    Line numbers stay as they are.
    """
    if not re.search(_DOWN.pattern, text, re.IGNORECASE | re.MULTILINE):
        return text
    kept: list[str] = []
    undoing = False
    for line in text.splitlines(keepends=True):
        undoing = bool(_DOWN.match(line)) or (undoing and not _UP.match(line))
        kept.append("\n" if undoing else line)
    return "".join(kept)


def _forward(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    found: list[Path] = []
    for path in directory.rglob("*.[sS][qQ][lL]"):
        parents = path.relative_to(directory).parts[:-1]
        hidden = any(part.startswith(".") or part == "node_modules" for part in parents)
        if path.is_file() and not hidden and not _UNDO_DIRECTORIES.intersection(parents):
            found.append(path)
    return [path for path in found if not _UNDO_FILE.search(path.name)]


def _order(path: Path) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    return tuple(_natural(part) for part in path.parts)


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key in which digits count as a number and Flyway's versions as lists of numbers."""
    flyway = _FLYWAY.match(name)
    if flyway:
        last = int(flyway.group(1) in "Rr")
        version = [int(number) for number in re.findall(r"\d+", flyway.group(2) or "")]
        return ((2 * last, 0, ""), *((0, number, "") for number in version), (-1, 0, name))
    pieces = re.findall(r"\d+|\D+", name)
    return (*((0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in pieces), (-1, 0, name))
