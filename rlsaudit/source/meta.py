"""Arguments of psql's backslash commands and the values of its variables (src/fe_utils/psqlscan*.l)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rlsaudit.catalog.identifiers import literal

_NAME = "A-Za-z_0-9\\u0080-\\U0010ffff"
_PIECE = re.compile(
    rf"""(?P<variable>:(?:[{_NAME}]+|'[{_NAME}]+'|"[{_NAME}]+"|\{{\?[{_NAME}]+\}}))
    |'(?P<quoted>(?:[^'\\\n]|''|\\.)*)'
    |(?P<name>"(?:[^"\n]|"")*")
    |(?P<broken>['"])
    |(?P<shell>`)
    |(?P<plain>[^ \t\r\f\v\n\\])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"''|\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))")
_CONTROL = {"n": "\n", "t": "\t", "b": "\b", "r": "\r", "f": "\f"}
_BLANK = re.compile(r"[ \t\r\f\v]*")
_COMMAND = re.compile(r"\\([^ \t\n\r\f\v\\]*)")


class Unreadable(Exception):
    """An argument that cannot be read: a backtick, or a quote that the line does not close."""


def substitute(token: str, variables: Mapping[str, str]) -> str | None:
    """The text that replaces ``:name``, ``:'name'``, ``:"name"`` or ``:{?name}``; None when it is not set."""
    if token.startswith(":{?"):
        return "TRUE" if token[3:-1] in variables else "FALSE"
    value = variables.get(token[1:].strip("'\""))
    if value is None or token[1] not in "'\"":
        return value
    return literal(value) if token[1] == "'" else '"' + value.replace('"', '""') + '"'


def command_name(text: str, position: int) -> tuple[str, int]:
    """The name of the backslash command at ``position`` and the position after it."""
    match = _COMMAND.match(text, position)
    assert match is not None
    return match.group(1), match.end()


def arguments(text: str, position: int, variables: Mapping[str, str] | None) -> tuple[tuple[str, ...], int]:
    """The arguments up to the end of the line, ``\\\\`` or the next command, and the position after them.

    Without ``variables`` nothing is evaluated, as in an inactive branch.  Raises Unreadable.
    """
    found: list[str] = []
    while True:
        blank = _BLANK.match(text, position)
        assert blank is not None
        position = blank.end()
        if position >= len(text) or text[position] == "\n":
            return tuple(found), position
        if text[position] == "\\":
            return tuple(found), position + 2 * text.startswith("\\\\", position)
        argument, position = _argument(text, position, variables)
        found.append(argument)


def _argument(text: str, position: int, variables: Mapping[str, str] | None) -> tuple[str, int]:
    pieces: list[str] = []
    while match := _PIECE.match(text, position):
        position = match.end()
        kind, piece = match.lastgroup, match.group()
        if kind == "quoted":
            pieces.append(_ESCAPE.sub(_unescape, match.group("quoted")))
        elif kind == "variable" and variables is not None:
            value = substitute(piece, variables)
            pieces.append(piece if value is None else value)
        elif kind == "shell" and variables is not None:
            raise Unreadable("a backtick would run a shell command; write the value itself")
        elif kind == "broken" and variables is not None:
            raise Unreadable(f"a quote ({piece}) is not closed on its line")
        else:
            pieces.append(piece)
    return "".join(pieces), position


def _unescape(match: re.Match[str]) -> str:
    octal, hexadecimal, character = match.groups()
    if octal:
        return chr(int(octal, 8))
    if hexadecimal:
        return chr(int(hexadecimal, 16))
    return _CONTROL.get(character, character) if character else "'"


def unquoted(argument: str) -> str:
    """An argument that may be a quoted identifier, without its quotes; case is kept, as by ``\\connect``."""
    return re.sub(r'"((?:[^"]|"")*)"', lambda match: match.group(1).replace('""', '"'), argument)


def boolean(text: str) -> bool | None:
    """A value as ``\\if`` reads it: any clear prefix of true, false, yes, no, on, off; None else."""
    word = text.strip().lower()
    if word in ("1", "on"):
        return True
    if word in ("0", "of", "off"):
        return False
    for full, value in (("true", True), ("false", False), ("yes", True), ("no", False)):
        if word and full.startswith(word):
            return value
    return None
