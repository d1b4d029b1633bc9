"""A directory of migrations as a list of SQL files, without the parts that only undo."""

from __future__ import annotations

import re

from rlsaudit.source.files import SqlFile, read
from rlsaudit.source.layouts import Layout

# goose, sql-migrate, dbmate, rambler, node-pg-migrate, shmig; then tern and MyBatis, which mark only where undoing begins.
_UP = re.compile(
    r"\s*--\s*(?:(?:\+goose|\+migrate|migrate:|rambler)\s*up\b|[\s-]*up migration\s*$|=+ up =+)", re.IGNORECASE
)
_DOWN = re.compile(
    r"\s*(?:--\s*(?:(?:\+goose|\+migrate|migrate:|rambler)\s*down\b|[\s-]*down migration\s*$|=+ down =+)"
    r"|---- create above / drop below ----|--\s*//\s*@UNDO\b)",
    re.IGNORECASE,
)


def collect(layout: Layout) -> tuple[SqlFile, ...]:
    """The files of ``layout``, read, in order.  Raises UsageError for a file that is no SQL text."""
    files = (read(path, layout.directory) for path in layout.paths)
    return tuple(SqlFile(without_down(file.text), file.name, file.path, file.root) for file in files)


def without_down(text: str) -> str:
    """``text`` with what goose, sql-migrate, dbmate, node-pg-migrate, tern or MyBatis would run only to undo it left blank.

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
