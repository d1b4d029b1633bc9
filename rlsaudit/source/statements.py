"""An application's own statements: read from a file, or from what pg_stat_statements has seen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psycopg
from psycopg import sql

from rlsaudit.errors import UsageError
from rlsaudit.own import OwnStatement
from rlsaudit.source.files import read
from rlsaudit.source.script import MetaCommand, Session
from rlsaudit.source.splitter import split
from rlsaudit.source.tokens import Token, tokens

_NAMED = re.compile(r"^\s*--\s*(?:name|@name)\s*:?\s*([^\s:]+)", re.IGNORECASE)
_COMPARED = frozenset("=<>!~@#&|?^%")
"""What operators that compare are made of."""
_BETWEEN = frozenset({"like", "ilike", "in", "any", "between", "is", "not", "distinct", "from", "and"})
_SCHEMA = """
    SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_stat_statements'
"""
_RECORDED = """
    SELECT s.query
    FROM {}.pg_stat_statements s JOIN pg_catalog.pg_database d ON d.oid = s.dbid
    WHERE d.datname = pg_catalog.current_database() AND s.toplevel
    ORDER BY s.calls DESC, s.query
"""
_DATA = re.compile(
    r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*|\(\s*)*(?:SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|CALL|TABLE|COPY)\b",
    re.I | re.DOTALL,
)
_HOLDING = frozenset(
    "abort begin commit deallocate discard end listen release reset rollback savepoint set show start unlisten".split()
)
"""First words of what holds a transaction or a session together: each statement is run in a transaction of ours."""
_NUMBER = re.compile(r"\$\d+")
_NAME = re.compile(r":[A-Za-z_]\w*|:'[A-Za-z_]\w*'")
_PYTHON = re.compile(r"%(?:%|(?:\((\w+)\))?s\b)")


def from_files(paths: Sequence[Path]) -> tuple[OwnStatement, ...]:
    """The statements of several files, each under a label of its own; files of one name are told apart by their paths."""
    paths = tuple(dict.fromkeys(paths))
    names = [path.name for path in paths]
    return tuple(
        replace(one, label=f"{path.parent}/{one.label}") if names.count(path.name) > 1 else one
        for path in paths
        for one in from_file(path)
    )


def from_file(path: Path) -> tuple[OwnStatement, ...]:
    """The statements of an SQL file, each with its line and the name that a ``-- name: …`` above it gives.

    Parameters may be ``$1``, ``:name``, ``%s`` or ``%(name)s``.  BEGIN, COMMIT, SET and their like are left out.  Raises
    UsageError for a file that cannot be read, holds a psql command, data of COPY, or no statement.
    """
    file = read(path)
    lines = file.text.splitlines()
    found: dict[str, OwnStatement] = {}
    since = 0
    for item in split(file.text, file.name, Session()):
        if isinstance(item, MetaCommand):
            raise UsageError(f"{item.file}:{item.line}: \\{item.name}: a file of statements holds SQL alone")
        if item.copy_data is not None:
            raise UsageError(
                f"{item.file}:{item.line}: COPY … FROM STDIN takes what follows for its data; leave it out"
            )
        above = (_NAMED.match(line) for line in lines[since : item.line])
        named = [match.group(1) for match in above if match]
        since = item.line
        first = next((token.word for token in tokens(item.text)), "")
        if (not first and not item.text.strip(" \t\n;")) or first in _HOLDING:
            continue
        label = f"{path.name}:{item.line}" + (f" {named[-1]}" if named else "")
        same = sum(one.partition(" (")[0] == label for one in found)
        label += f" ({same + 1})" if same else ""
        found[label] = numbered(label, item.text)
    if not found:
        raise UsageError(f"{path}: holds no statement")
    return tuple(found.values())


def recorded(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[OwnStatement, ...]:
    """What pg_stat_statements (PostgreSQL manual, F.32) has seen in this database, most often called first.

    Its texts have ``$n`` where constants stood.  Raises UsageError when the extension is not there or may not be read.
    """
    row = connection.execute(_SCHEMA).fetchone()
    if row is None:
        raise UsageError(
            "the database has no extension pg_stat_statements; create it, or give the statements in a file with --statements"
        )
    try:
        query = sql.SQL(_RECORDED).format(sql.Identifier(str(row[0])))
        texts = [str(text) for (text,) in connection.execute(query).fetchall()]
    except psycopg.Error as error:
        raise UsageError(f"pg_stat_statements cannot be read: {' '.join(str(error).split())}") from error
    hidden = texts.count("<insufficient privilege>")
    if hidden:
        raise UsageError(
            f"pg_stat_statements hides {hidden} of {len(texts)} statements from this login; grant it pg_read_all_stats"
        )
    own = [
        text
        for text in texts
        if _DATA.match(text) and "pg_catalog.pg_" not in text and "pg_stat_statements" not in text
    ]
    if not own:
        raise UsageError(
            "pg_stat_statements holds no statement on this database's own relations; run the application first"
        )
    return tuple(numbered(f"pg_stat_statements:{number}", text) for number, text in enumerate(own, 1))


def numbered(label: str, text: str) -> OwnStatement:
    """``text`` with every style of parameter written as ``$n``, and the column that each is compared with.

    Raises UsageError for more than one statement: one of them could end the transaction that it is run in.
    """
    every = [token for token in tokens(text) if token.text != ";"]  # without comments around them
    if any(token.text == ";" and every and every[0].end <= token.start < every[-1].start for token in tokens(text)):
        raise UsageError(f"{label}: holds more than one statement; give each by itself")
    whole, given = _numbered(text[every[0].start : every[-1].end] if every else "")
    read_ = list(tokens(whole))
    inserted = _inserted(read_)
    names = dict(given)
    for at, token in enumerate(read_):
        if _NUMBER.fullmatch(token.text):
            number = int(token.text[1:])
            names[number] = names.get(number) or inserted.get(number) or _compared(read_, at)
    return OwnStatement(label, whole, tuple(names.get(number, "") for number in range(1, max(names, default=0) + 1)))


def _numbered(text: str) -> tuple[str, dict[int, str]]:
    """The text with ``$n`` for ``:name``, ``%s`` and ``%(name)s``, and the names of those that have one."""
    parts: list[str] = []
    numbers: dict[str, int] = {}
    position = 0
    for token in tokens(text):
        if token.start < position or token.kind != "symbol":
            continue
        python = _PYTHON.match(text, token.start)
        if _NAME.fullmatch(token.text):
            key, end = token.text[1:].strip("'"), token.end
        elif python and python.group() != "%%":
            key, end = python.group(1) or f"%{len(numbers)}", python.end()
        else:
            if python:
                parts, position = [*parts, text[position : token.end]], python.end()
            continue
        parts += [text[position : token.start], f"${numbers.setdefault(key, len(numbers) + 1)}"]
        position = end
    whole = "".join(parts) + text[position:]
    return whole, {number: "" if key[0] == "%" else key for key, number in numbers.items()}


def _compared(read_: Sequence[Token], at: int) -> str:
    """The column that stands before the comparison in which the parameter at that place takes part."""
    compared = False
    for token in reversed(read_[max(0, at - 6) : at]):
        if _COMPARED.issuperset(token.text) or token.word in _BETWEEN:
            compared = True
        elif token.text not in "()" and not _NUMBER.fullmatch(token.text):
            return token.identifier if compared and token.kind in ("word", "name") else ""
    return ""


def _inserted(read_: Sequence[Token]) -> dict[int, str]:
    """Parameter → column of ``INSERT INTO t (a, b) VALUES ($1, $2)``, where a value is the parameter and no more."""
    words = [token.word for token in read_]
    if "insert" not in words or "values" not in words:
        return {}
    begin, values = words.index("insert"), words.index("values")
    opened = next((i for i in range(begin, values) if read_[i].text == "("), values)
    columns = [token.identifier for token in read_[opened:values] if token.kind in ("word", "name")]
    found: dict[int, str] = {}
    position, depth = 0, 0
    value: list[str] = []
    for token in read_[values + 1 :]:
        outermost = depth == 1
        depth += (token.text == "(") - (token.text == ")")
        if outermost and token.text in (",", ")"):
            if len(value) == 1 and _NUMBER.fullmatch(value[0]) and position < len(columns):
                found.setdefault(int(value[0][1:]), columns[position])
            position, value = position + 1, []
        elif depth == 1 and not outermost and token.text == "(":
            position, value = 0, []
        else:
            value.append(token.text)
    return found
