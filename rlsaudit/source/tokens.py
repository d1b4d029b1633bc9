"""The tokens of SQL text as psql's lexer sees them, and the reading of one statement's tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LETTER = "A-Za-z_\\u0080-\\U0010ffff"
TOKEN = re.compile(
    rf"""(?P<space>[ \t\n\r\f\v]+|--[^\n\r]*)
    |(?P<comment>/\*)
    |(?P<escape>[eE]')
    |(?P<plain>[bBxXnN]'|[uU]&')
    |(?P<quote>')
    |(?P<name>(?:[uU]&)?")
    |(?P<word>[{_LETTER}][{_LETTER}0-9$]*)
    |(?P<dollar>\$(?:[{_LETTER}][{_LETTER}0-9]*)?\$)
    |(?P<other>\$?[0-9][{_LETTER}0-9]*|::|:=)
    |(?P<variable>:(?:[{_LETTER}0-9]+|'[{_LETTER}0-9]+'|"[{_LETTER}0-9]+"|\{{\?[{_LETTER}0-9]+\}}))
    |(?P<literal>\\[;:])
    |(?P<meta>\\)
    |(?P<open>\()|(?P<close>\))|(?P<end>;)
    |(?P<symbol>.)""",
    re.VERBOSE | re.DOTALL,
)
QUOTE_BODY = {
    "'": re.compile(r"[^']*(?:''[^']*)*"),
    "e": re.compile(r"[^'\\]*(?:(?:''|\\.)[^'\\]*)*\\?", re.DOTALL),
    '"': re.compile(r'[^"]*(?:""[^"]*)*'),
}
"""What may stand between the quotes of a string, an ``E''`` string and a quoted identifier."""
CONTINUES = re.compile(r"[ \t\f\v]*(?:--[^\n\r]*)?[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*'")
"""What continues a string on another line, as the server sees it; psql, reading line by line, does not."""
COMMENT_EDGE = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True)
class Token:
    """A word, name, string or symbol of a statement, and where it stands."""

    kind: str
    """``word``, ``name`` (quoted identifier), ``string`` or ``symbol``."""
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The keyword in lower case; empty for anything that is quoted or a symbol."""
        return self.text.lower() if self.kind == "word" else ""

    @property
    def identifier(self) -> str:
        """The name that a word or quoted identifier stands for."""
        return self.text[1:-1].replace('""', '"') if self.kind == "name" else self.text.lower()


def tokens(statement: str, *, standard_strings: bool = True) -> Iterator[Token]:
    """The tokens of one complete statement, lazily, without white space and comments."""
    position = 0
    while match := TOKEN.match(statement, position):
        kind, start, position = match.lastgroup, position, match.end()
        if kind == "space":
            continue
        if kind == "comment":
            position = _after_comment(statement, position)
            continue
        if kind in ("escape", "plain", "quote", "name", "dollar"):
            position = _after_quote(statement, position, kind, match.group(), standard_strings)
            yield Token("name" if kind == "name" else "string", statement[start:position], start, position)
        else:
            yield Token("word" if kind == "word" else "symbol", match.group(), start, position)


def _after_comment(text: str, position: int) -> int:
    depth = 1
    while depth and (edge := COMMENT_EDGE.search(text, position)):
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return len(text) if depth else position


def _after_quote(text: str, position: int, kind: str, token: str, standard_strings: bool) -> int:
    if kind == "dollar":
        found = text.find(token, position)
        return len(text) if found < 0 else found + len(token)
    escapes = kind == "escape" or (kind == "quote" and not standard_strings)
    body = QUOTE_BODY['"' if kind == "name" else "e" if escapes else "'"].match(text, position)
    assert body is not None
    return min(body.end() + 1, len(text))
