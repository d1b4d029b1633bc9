"""SQL text as tokens, grouped by parentheses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

Kind = Literal["word", "name", "string", "number", "parameter", "symbol"]
_LETTER = "A-Za-z_\\u0080-\\U0010ffff"
_TOKEN = re.compile(
    rf"""(?P<space>\s+|--[^\n]*)
    |(?P<comment>/\*)
    |(?P<escaped>[eE]'(?:[^'\\]|''|\\.)*')
    |(?P<string>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*')
    |(?P<name>(?:[uU]&)?"(?:[^"]|"")*")
    |(?P<dollar>\$(?:[{_LETTER}][{_LETTER}0-9]*)?\$)
    |(?P<parameter>\$\d+)
    |(?P<word>[{_LETTER}][{_LETTER}0-9$]*)
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<symbol>::|:=|\.\.|(?:(?!--|/\*)[+\-*/<>=~!@\#%^&|`?]){{1,63}}|.)""",
    re.VERBOSE | re.DOTALL,
)
_EDGE = re.compile(r"/\*|\*/")
_PARENTHESIS = re.compile(r"[()\[\]]")
_LONGEST, _LONGEST_STATEMENT, _DEEPEST = 100_000, 20_000, 50
_SIGNED = re.compile(r"[~!@#%^&|`?]")
QUERIES = frozenset({"select", "insert", "update", "delete", "with", "merge", "values", "table"})


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    kind: Kind
    text: str
    """Words in lower case, names and strings without their quotes."""

    @property
    def identifier(self) -> str:
        return self.text if self.kind in ("word", "name") else ""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """What stands between parentheses or brackets."""

    nodes: tuple[Node, ...]
    opening: str = "("


Node: TypeAlias = "Token | Group"
Nodes: TypeAlias = tuple[Node, ...]


def is_word(node: Node | None, *words: str) -> bool:
    return isinstance(node, Token) and node.kind == "word" and node.text in words


def is_symbol(node: Node | None, *symbols: str) -> bool:
    return isinstance(node, Token) and node.kind == "symbol" and node.text in symbols


def walk(nodes: Sequence[Node]) -> Iterator[Node]:
    """All nodes, those inside parentheses too."""
    for node in nodes:
        yield node
        if isinstance(node, Group):
            yield from walk(node.nodes)


def split(nodes: Sequence[Node], symbol: str) -> list[Nodes]:
    """The parts between a symbol of the outermost level; none of nothing."""
    found: list[list[Node]] = [[]]
    for node in nodes:
        if is_symbol(node, symbol):
            found.append([])
        else:
            found[-1].append(node)
    return [tuple(part) for part in found] if nodes else []


@lru_cache(maxsize=1024)
def legible(text: str) -> bool:
    """Whether a body is of a size that people write; reading one of megabytes would take longer than all other checks."""
    if len(text) > _LONGEST or (len(text) > _LONGEST_STATEMENT and max(map(len, text.split(";"))) > _LONGEST_STATEMENT):
        return False
    if text.count("(") + text.count("[") > _DEEPEST:
        depth = 0
        for match in _PARENTHESIS.finditer(text):
            depth = depth + 1 if match.group() in "([" else max(depth - 1, 0)
            if depth > _DEEPEST:
                return False
    return True


def parse(text: str) -> Nodes:
    """The text's tokens, grouped by parentheses; one that is missing ends its group.  Nothing of a text that is not legible."""
    if not legible(text):
        return ()
    stack: list[list[Node]] = [[]]
    openings: list[str] = []
    for token in _tokens(text):
        if is_symbol(token, "(", "["):
            stack.append([])
            openings.append(token.text)
        elif is_symbol(token, ")", "]"):
            if openings:
                inner = stack.pop()
                stack[-1].append(Group(tuple(inner), openings.pop()))
        else:
            stack[-1].append(token)
    while openings:
        inner = stack.pop()
        stack[-1].append(Group(tuple(inner), openings.pop()))
    return tuple(stack[0])


def _tokens(text: str) -> Iterator[Token]:
    position = 0
    while match := _TOKEN.match(text, position):
        kind, found, position = match.lastgroup, match.group(), match.end()
        match kind:
            case "comment":
                position = _after_comment(text, position)
            case "string":
                yield Token("string", found[found.index("'") + 1 : -1].replace("''", "'"))
            case "escaped":
                yield Token("string", re.sub(r"''|\\(.)", lambda m: m.group(1) or "'", found[2:-1], flags=re.DOTALL))
            case "dollar":
                closing = text.find(found, position)
                end = closing if closing >= 0 else len(text)
                yield Token("string", text[position:end])
                position = min(end + len(found), len(text))
            case "name":
                yield Token("name", found[found.index('"') + 1 : -1].replace('""', '"'))
            case "word":
                yield Token("word", found.lower())
            case "number" | "parameter":
                yield Token("number" if kind == "number" else "parameter", found)
            case "symbol":
                if not _SIGNED.search(found):
                    found = found.rstrip("+-") or found[0]
                position = match.start() + len(found)
                yield Token("symbol", found)


def _after_comment(text: str, position: int) -> int:
    depth = 1
    while depth and (edge := _EDGE.search(text, position)):
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return len(text) if depth else position
