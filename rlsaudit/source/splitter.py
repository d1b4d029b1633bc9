"""Splitting an SQL script into statements and meta-commands exactly where psql splits it.

The rules are those of psql's own lexer (src/fe_utils/psqlscan.l) and main loop: quotes, dollar quotes, nested
comments, parentheses, ``BEGIN ATOMIC`` bodies, ``\\;``, variables, ``\\if``, inline COPY data.  Nothing here
reads files or talks to a server: a ``Session`` carries what is learnt between two statements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rlsaudit.errors import UsageError
from rlsaudit.source import meta
from rlsaudit.source.script import Ending, MetaCommand, Session, Statement
from rlsaudit.source.tokens import COMMENT_EDGE, CONTINUES, QUOTE_BODY, TOKEN

_HEADS = (("create", "function"), ("create", "procedure"))
_LONG_HEADS = (("create", "or", "replace", "function"), ("create", "or", "replace", "procedure"))

_DATA_END = re.compile(r"^\\\.\r?$", re.MULTILINE)
_FROM_STDIN = re.compile(r"\bfrom\s+stdin\b", re.IGNORECASE)
_WHOLE_LINE = frozenset({"!", "copy", "ef", "ev", "sf", "sv", "h", "help", "w", "write", "o", "out"})


@dataclass(slots=True)
class _Branch:
    """One open ``\\if``: is its branch active, was any, is this ``\\else``, and what to go back to."""

    active: bool
    taken: bool
    saved: tuple[int, bool, int, int, list[str]]
    last: bool = False


def split(text: str, file: str, session: Session) -> Iterator[Statement | MetaCommand]:
    """The statements and meta-commands of a script, in order, lazily (``session`` may change between two).

    ``\\set``, ``\\unset`` and the ``\\if`` family are carried out here.  Raises UsageError with file and line
    for what cannot be: backticks, an ``\\if`` without ``\\endif``, a quote that is never closed.
    """
    splitter = _Splitter(text, file, session)
    while splitter.advance():
        yield from splitter.found
        splitter.found.clear()
    yield from splitter.found


class _Splitter:
    def __init__(self, text: str, file: str, session: Session) -> None:
        self.text = text
        self.file = file
        self.session = session
        self.found: list[Statement | MetaCommand] = []
        self.position = 0
        self.line = 1
        self.counted = 0
        self.removed: tuple[int, int] = (0, 0)
        self.branches: list[_Branch] = []
        self.expanding: list[str] = []
        self.mode = ""
        self.mode_line = 1
        self.comment_depth = 0
        self.sent = ""
        self._reset()

    def advance(self) -> bool:
        """Read on until something is found; False at the end of the script, which may find something."""
        while self.position < len(self.text):
            self.position = self._step(self.text, self.position)
            if self.found:
                return True
        self._check_closed()
        if self.started:
            self._finish("eof")
        return False

    @property
    def active(self) -> bool:
        return not self.branches or self.branches[-1].active

    def _reset(self) -> None:
        self.parts: list[str] = []
        self.started = False
        self.start_line = 1
        self.depth = 0
        self._forget_words()

    def _forget_words(self) -> None:
        self.begin_depth = 0
        self.words: list[str] = []
        self.previous = ""
        self.copy_in = False

    def _line_at(self, position: int) -> int:
        if not self.expanding and position >= self.counted:
            self.line += self.text.count("\n", self.counted, position)
            self.counted = position
            newline, lines = self.removed
            if position > newline:
                self.line += lines
                self.removed = (0, 0)
        return self.line

    def _refuse(self, what: str, line: int | None = None) -> UsageError:
        return UsageError(f"{self.file}:{self.line if line is None else line}: {what}")

    def _step(self, text: str, position: int) -> int:
        """Consume one token of ``text``, which is the script or a variable's value; the position after it."""
        if self.mode:
            return self._inside(text, position)
        match = TOKEN.match(text, position)
        assert match is not None and match.lastgroup is not None
        kind, token = match.lastgroup, match.group()
        if kind == "space":
            if self.started:
                self.parts.append(token)
            return match.end()
        line = self._line_at(position)
        if kind == "meta":
            return self._backslash(text, position)
        if kind == "end" and self.depth == 0 and self.begin_depth == 0:
            return self._semicolon(match.end())
        if kind == "comment":
            self._open("c", token, line)
        else:
            if not self.started:
                self.started, self.start_line = True, line
            if kind != "variable" or not self._variable(token):
                self._plain_token(kind, token, line)
        return match.end()

    def _plain_token(self, kind: str, token: str, line: int) -> None:
        if kind in ("escape", "plain", "quote", "name", "dollar"):
            standard = self.session.standard_conforming_strings
            modes = {"escape": "e", "plain": "'", "quote": "'" if standard else "e", "name": '"'}
            self._open(modes.get(kind, token), token, line)
            self.previous = ""
            return
        self.parts.append(token[1:] if kind == "literal" else token)
        if kind == "open":
            self.depth += 1
        elif kind == "close":
            self.depth = max(self.depth - 1, 0)
        elif kind == "word":
            self._word(token.lower())
        if kind != "word":
            self.previous = ""

    def _word(self, word: str) -> None:
        """psql's heuristic: inside CREATE FUNCTION, BEGIN and CASE open what END closes."""
        if len(self.words) < 4:
            self.words.append(word)
        head = tuple(self.words)
        if self.depth == 0:
            if head[:2] in _HEADS or head in _LONG_HEADS:
                if word == "begin" or (word == "case" and self.begin_depth):
                    self.begin_depth += 1
                elif word == "end" and self.begin_depth:
                    self.begin_depth -= 1
            if self.words[0] == "copy" and self.previous == "from" and word == "stdin":
                self.copy_in = True
        self.previous = word

    def _open(self, mode: str, token: str, line: int) -> None:
        self.mode, self.mode_line = mode, line
        if mode == "c":
            self.comment_depth = 1
        if mode != "c" or self.started:
            self.parts.append(token)

    def _inside(self, text: str, position: int) -> int:
        """Consume the rest of a quote or comment, or as much of it as ``text`` holds."""
        if self.mode == "c":
            return self._comment(text, position)
        if self.mode.startswith("$"):
            found = text.find(self.mode, position)
            stop = len(text) if found < 0 else found + len(self.mode)
            closed = found >= 0
        else:
            body = QUOTE_BODY[self.mode].match(text, position)
            assert body is not None
            stop = body.end()
            closed = stop < len(text)
            stop += closed
        if closed and self.mode == "e" and (again := CONTINUES.match(text, stop)):
            stop, closed = again.end(), False  # a continued literal keeps its kind
        self.parts.append(text[position:stop])
        if closed:
            self.mode = ""
        return stop

    def _comment(self, text: str, position: int) -> int:
        edge = COMMENT_EDGE.search(text, position)
        stop = edge.end() if edge else len(text)
        if edge:
            self.comment_depth += 1 if edge.group() == "/*" else -1
            if self.comment_depth == 0:
                self.mode = ""
        if self.started:
            self.parts.append(text[position:stop])
        return stop

    def _variable(self, token: str) -> bool:
        """Put a variable's value in place of its name; False when it stays as it is."""
        value = meta.substitute(token, self.session.variables) if self.active else None
        if value is None:
            return False
        if not (token[1].isalnum() or token[1] == "_"):
            self.parts.append(value)  # quoted already, not read again
            return True
        if token in self.expanding:
            raise self._refuse(f"the psql variable {token} refers to itself")
        self.expanding.append(token)
        position = 0
        while position < len(value):
            position = self._step(value, position)
        self.expanding.pop()
        return True

    def _semicolon(self, position: int) -> int:
        if not self.active:
            self._forget_words()
        elif not self.started:
            self._reset()
        elif self.copy_in and not self.expanding:
            data, line, position = self._copy_data(position)
            self._finish(";", data=data, line=line)
        else:
            self._finish(";")
        return position

    def _copy_data(self, position: int) -> tuple[str, int, int]:
        """Take the data lines that begin after this line; what else stands in this line stays to be read."""
        newline = self.text.find("\n", position)
        if newline < 0:
            return "", self.line, position
        line = self._line_at(newline) + 1 + self.removed[1]
        end = _DATA_END.search(self.text, newline + 1)
        stop, after = (end.start(), end.end()) if end else (len(self.text), len(self.text))
        data = self.text[newline + 1 : stop]
        if not self.text[position:newline].strip():
            return data, line, after
        self.removed = newline, self.removed[1] + self.text.count("\n", newline, after)
        self.text = self.text[:newline] + self.text[after:]
        return data, line, position

    def _finish(self, ending: Ending, *, argument: str = "", data: str | None = None, line: int = 0) -> None:
        self.sent = "".join(self.parts).rstrip() if self.started else self.sent
        start = self.start_line if self.started else self.line
        if self.sent:
            self.found.append(Statement(self.sent, self.file, start, data, line, ending, argument))
        self._reset()

    def _backslash(self, text: str, position: int) -> int:
        """Read a backslash command; carry it out when it concerns the text itself, else hand it on."""
        name, after = meta.command_name(text, position)
        newline = text.find("\n", after)
        rest = text[after : newline if newline >= 0 else len(text)].strip()
        if name == "copy" and self.active:
            return self._client_copy(rest, after + len(text[after:].split("\n", 1)[0]))
        if name in _WHOLE_LINE:
            values: tuple[str, ...] = (rest,) if rest else ()
            stop = newline if newline >= 0 else len(text)
        else:
            try:
                values, stop = meta.arguments(text, after, self.session.variables if self.active else None)
            except meta.Unreadable as error:
                raise self._refuse(f"\\{name}: {error}") from error
        if name in ("if", "elif", "else", "endif"):
            self._condition(name, " ".join(values))
        elif self.active:
            return self._command(name, values, rest, stop)
        return stop

    def _command(self, name: str, values: tuple[str, ...], rest: str, stop: int) -> int:
        if name == "set" and values:
            self.session.variables[values[0]] = "".join(values[1:])
        elif name == "unset" and values:
            self.session.variables.pop(values[0], None)
        elif name in ("r", "reset"):
            self._reset()
        elif name in ("q", "quit"):
            self.branches.clear()
            return len(self.text)
        elif (name in ("g", "gx", "crosstabview") and not values) or name in ("gset", "gexec"):
            ending: Ending = "gset" if name == "gset" else "gexec" if name == "gexec" else "g"
            argument = values[0] if values else ""
            if self.copy_in and not self.expanding:
                data, line, stop = self._copy_data(stop)
                self._finish(ending, argument=argument, data=data, line=line)
            else:
                self._finish(ending, argument=argument)
        else:
            self.found.append(MetaCommand(name, values, rest, self.file, self.line))
        return stop

    def _client_copy(self, rest: str, stop: int) -> int:
        """``\\copy … from stdin`` takes the lines that follow; others decide about any other ``\\copy``."""
        line = self.line
        if not _FROM_STDIN.search(rest) or self.expanding:
            self.found.append(MetaCommand("copy", (rest,), rest, self.file, line))
            return stop
        data, data_line, stop = self._copy_data(stop)
        self.found.append(Statement(f"COPY {rest.rstrip(';')}", self.file, line, data, data_line))
        return stop

    def _condition(self, name: str, expression: str) -> None:
        if name == "if":
            value = self.active and self._truth(expression)
            self.branches.append(_Branch(value, value or not self.active, self._state()))
            return
        if not self.branches:
            raise self._refuse(f"\\{name} without \\if")
        branch = self.branches[-1]
        if branch.active:
            branch.saved = self._state()
        else:
            count, self.started, self.start_line, self.depth, self.words = branch.saved
            del self.parts[count:]
        if name == "endif":
            self.branches.pop()
            return
        if branch.last:
            raise self._refuse(f"\\{name} after \\else")
        branch.last = name == "else"
        branch.active = not branch.taken and (name == "else" or self._truth(expression))
        branch.taken = branch.taken or branch.active

    def _state(self) -> tuple[int, bool, int, int, list[str]]:
        return len(self.parts), self.started, self.start_line, self.depth, list(self.words)

    def _truth(self, expression: str) -> bool:
        value = meta.boolean(expression)
        if value is None:
            raise self._refuse(f"\\if wants true or false, not {expression!r}")
        return value

    def _check_closed(self) -> None:
        if self.mode:
            kinds = {"c": "comment", '"': "quoted identifier", "'": "string", "e": "string"}
            kind = kinds.get(self.mode, f"string quoted with {self.mode}")
            raise self._refuse(f"a {kind} begins here and is never closed", self.mode_line)
        if self.branches:
            raise self._refuse("\\if without \\endif at the end of the script", self._line_at(len(self.text)))
