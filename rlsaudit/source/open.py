"""What a SOURCE argument is, and the SQL files behind it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO, Literal

from rlsaudit.errors import UsageError
from rlsaudit.source import migrations
from rlsaudit.source.dsn import looks_like_dsn, redact
from rlsaudit.source.files import SqlFile, decode, read
from rlsaudit.source.layouts import passed_over, recognise

_NAMED = 5
"""Files that a sentence names."""
Kind = Literal["file", "directory", "stdin", "dsn", "snapshot"]


def detect(source: str) -> Kind:
    """``-`` is standard input; a URI, ``keyword=value`` or nothing (PG* variables) a DSN; the rest are paths.

    A file whose name ends in .json is a snapshot.  Raises UsageError, in one line, for a path that does not
    exist and for a URI that is not PostgreSQL's.
    """
    if source == "-":
        return "stdin"
    if source == "" or source.startswith(("postgresql://", "postgres://")):
        return "dsn"
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", source):
        raise UsageError(f"{redact(source)}: not a libpq URI; it must begin with postgresql://")
    path = Path(source)
    try:
        exists, is_directory = path.exists(), path.is_dir()
    except (OSError, ValueError):
        exists = is_directory = False
    if exists:
        return "directory" if is_directory else "snapshot" if path.suffix.lower() == ".json" else "file"
    if looks_like_dsn(source):
        return "dsn"
    raise UsageError(
        f"{redact(source)}: no such file or directory; SOURCE is an SQL file, a directory of migrations, "
        "a saved snapshot (.json), - or a connection string"
    )


def sql_files(source: str, stdin: BinaryIO) -> tuple[SqlFile, ...]:
    """The SQL behind a SOURCE that is a file, a directory or standard input, without what undoes migrations.

    Raises UsageError when it cannot be read or there is none.
    """
    kind = detect(source)
    if kind == "directory":
        return migrations.collect(recognise(Path(source)))
    file = read(Path(source)) if kind == "file" else SqlFile(decode(stdin.read(), "<stdin>"), "<stdin>")
    if not file.text.strip():
        raise UsageError(f"{file.name}: empty; nothing to audit")
    return (SqlFile(migrations.without_down(file.text), file.name, file.path, file.root),)


def layout(source: str) -> str:
    """How the directory of SOURCE was read, a sentence for the report; empty for what is no directory."""
    if detect(source) != "directory":
        return ""
    found = recognise(Path(source))
    first, last = (path.relative_to(found.directory) for path in (found.paths[0], found.paths[-1]))
    count = len(found.paths)
    run = f"1 file was run, {first}" if count == 1 else f"{count} files were run, {first} first and {last} last"
    left = [path.relative_to(source).as_posix() for path in passed_over(Path(source), found)]
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    missed = f" Not run, though it may belong to the schema: {', '.join(left[:_NAMED])}{more}." if left else ""
    return f"The migrations were read as {found.name}: {run}.{missed}"
