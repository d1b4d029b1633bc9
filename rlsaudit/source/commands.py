"""psql's backslash commands: which are carried out, which mean nothing here, which are refused."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict

from rlsaudit.errors import UsageError
from rlsaudit.source.execute import Executor
from rlsaudit.source.meta import unquoted
from rlsaudit.source.script import MetaCommand, Statement

_INCLUDES = {"i": False, "include": False, "ir": True, "include_relative": True}
# fmt: off
_DISPLAY = frozenset({
    "echo", "qecho", "warn", "timing", "pset", "x", "a", "t", "H", "html", "f", "C", "T",
    "encoding", "p", "print", "errverbose", "conninfo", "copyright", "?", "h", "help", "restrict",
    "unrestrict", "l", "l+", "list", "list+", "z", "z+", "sf", "sf+", "sv", "sv+", "setenv", "set",
    "unset", "gdesc", "s",
})
# fmt: on
_REFUSED = {
    "!": "it runs a shell command",
    "copy": "it reads or writes a file or a program; put the rows inline (\\copy … from stdin)",
    "o": "it writes a file or to a program",
    "out": "it writes a file or to a program",
    "w": "it writes a file",
    "write": "it writes a file",
    "g": "it sends the result to a file or a program",
    "gx": "it sends the result to a file or a program",
    "cd": "it changes the directory that files are read from; use \\ir",
    "getenv": "it reads the environment of this machine; write \\set with the value",
    "prompt": "nobody is there to answer; write \\set with the value",
    "password": "nobody is there to answer",
    "watch": "it never ends",
}


@dataclass(frozen=True, slots=True)
class Include:
    """Read another file here."""

    name: str
    relative: bool


@dataclass(frozen=True, slots=True)
class Connect:
    """Begin a new session in the same scratch database, as ``role`` when one is named."""

    role: str


def carry_out(item: Statement | MetaCommand, executor: Executor) -> Include | Connect | None:
    """Run a statement, or say what a backslash command asks the caller to do.

    Raises UsageError with file and line for a statement that fails and for a command that is refused.
    """
    if isinstance(item, Statement):
        executor.execute(item)
        return None
    where = f"{item.file}:{item.line}: \\{item.name}"
    if item.name in _INCLUDES:
        if not item.arguments:
            raise UsageError(f"{where} wants a file name")
        return Include(unquoted(item.arguments[0]), _INCLUDES[item.name])
    if item.name in ("c", "connect"):
        return _connect(item, where, executor)
    if item.name in _DISPLAY or item.name.startswith("d"):
        return None
    why = _REFUSED.get(item.name, "rlsaudit does not know it")
    raise UsageError(f"{where} is not carried out: {why}; remove it or put it between \\if false and \\endif")


def _connect(item: MetaCommand, where: str, executor: Executor) -> Connect:
    values = [unquoted(value) for value in item.arguments if not value.startswith("-reuse-previous")]
    if values and ("=" in values[0] or "://" in values[0]):
        try:
            given = conninfo_to_dict(values[0])
        except psycopg.Error as error:
            raise UsageError(f"{where}: the connection string cannot be read") from error
        server = any(given.get(name) for name in ("host", "hostaddr", "port", "service"))
        database, role = str(given.get("dbname") or ""), str(given.get("user") or "")
    else:
        database, role, *place = [value if value != "-" else "" for value in [*values, "", ""]]
        server = any(place)
    if server:
        raise UsageError(f"{where} is not carried out: it leads to another server; remove host and port")
    if database:
        executor.note(f"\\connect {database} stays in the scratch database")
    return Connect(role)
