"""The statements of a function's body, branches and loops laid flat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rlsaudit.checks._sql import QUERIES, Node, Nodes, Token, is_symbol, is_word, parse

_DELIMITERS = frozenset({"begin", "declare", "exception", "loop", "else", "then"})
_CONDITIONS = frozenset({"if", "elsif", "elseif", "while", "when", "exit", "continue", "assert"})
StatementKind = Literal["query", "condition", "assign", "return", "raise", "execute", "end"]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    kind: StatementKind
    nodes: Nodes
    targets: tuple[str, ...] = ()
    """Variables that it gives values to."""
    using: Nodes = ()


@lru_cache(maxsize=1024)
def statements(text: str, language: str) -> tuple[Statement, ...]:
    """The statements of a body, in their order; branches and loops are laid flat."""
    found: list[Statement] = []
    for piece, declared in _pieces(parse(text), language == "plpgsql"):
        statement = _declaration(piece) if declared else _statement(piece)
        if statement is not None:
            found.append(statement)
    return tuple(found)


def _pieces(nodes: Nodes, procedural: bool) -> Iterator[tuple[Nodes, bool]]:
    """Statements and the heads of branches and loops, and whether they stand in a DECLARE."""
    piece: list[Node] = []
    cases, declared = 0, False
    for node in nodes:
        word = node.text if isinstance(node, Token) and node.kind == "word" else ""
        first = not piece
        if is_symbol(node, ";"):
            yield tuple(piece), declared
            piece, cases = [], 0
            continue
        if word == "case" and not first:
            cases += 1
        elif word == "end" and cases:
            cases -= 1
        elif word == "atomic" and len(piece) == 1 and is_word(piece[0], "begin"):
            piece = []
            continue
        elif procedural and word in _DELIMITERS and not cases and _delimits(word, piece):
            yield tuple(piece), declared
            piece = []
            declared = word == "declare" or (declared and word != "begin")
            continue
        piece.append(node)
    yield tuple(piece), declared


def _delimits(word: str, piece: list[Node]) -> bool:
    if word in ("begin", "declare", "exception"):
        return not piece
    return not (word == "then" and piece and is_word(piece[0], "merge", "with"))


def _declaration(piece: Nodes) -> Statement | None:
    for position, node in enumerate(piece):
        if is_symbol(node, ":=", "=") or is_word(node, "default", "for"):
            name = piece[0].identifier if isinstance(piece[0], Token) else ""
            kind: StatementKind = "query" if is_word(node, "for") and len(piece) > position + 2 else "assign"
            return Statement(kind, piece[position + 1 :], (name,) if name else ())
    return None


def _statement(piece: Nodes) -> Statement | None:
    while piece and is_symbol(piece[0], "<<", "#"):
        ends = [i for i, node in enumerate(piece) if is_symbol(node, ">>")]
        piece = piece[ends[0] + 1 :] if ends else piece[3:]
    if not piece or not isinstance(piece[0], Token):
        return Statement("query", piece) if piece else None
    word, rest = piece[0].text if piece[0].kind == "word" else "", piece[1:]
    if word == "end":
        return Statement("end", rest)
    if word in _CONDITIONS:
        when = [i for i, node in enumerate(rest) if is_word(node, "when")] if word in ("exit", "continue") else []
        return Statement("condition", rest[when[0] + 1 :] if when else rest)
    if word in ("for", "foreach"):
        return _loop(rest)
    if word == "open":
        ends = [i for i, node in enumerate(rest) if is_word(node, "for")]
        return _query(rest[ends[0] + 1 :]) if ends else None
    if word == "return":
        rest = rest[1:] if is_word(rest[0] if rest else None, "query", "next") else rest
        inner = _query(rest)
        return (
            Statement("execute", inner.nodes, (), inner.using) if inner.kind == "execute" else Statement("return", rest)
        )
    if word == "perform":
        return Statement("query", (Token("word", "select"), *rest))
    if word == "raise":
        return Statement("raise", rest)
    if word in QUERIES or word == "execute":
        return _query(piece)
    return _assignment(piece)


def _assignment(piece: Nodes) -> Statement:
    for position, node in enumerate(piece):
        if is_symbol(node, ":=", "="):
            left = [part.identifier for part in piece[:position] if isinstance(part, Token) and part.identifier]
            return Statement("assign", piece[position + 1 :], (".".join(left),))
    return Statement("query", piece)


def _loop(rest: Nodes) -> Statement:
    inside = [i for i, node in enumerate(rest) if is_word(node, "in")]
    if not inside:
        return Statement("query", rest)
    names = tuple(node.identifier for node in rest[: inside[0]] if isinstance(node, Token) and node.identifier)
    inner = _query(rest[inside[0] + 1 :])
    kind: StatementKind = (
        inner.kind if is_word((*inner.nodes, None)[0], *QUERIES) or inner.kind == "execute" else "assign"
    )
    return Statement(kind, inner.nodes, names, inner.using)


def _query(nodes: Nodes) -> Statement:
    """A query, or EXECUTE, with the variables of its INTO."""
    dynamic = is_word((*nodes, None)[0], "execute")
    nodes = nodes[1:] if dynamic else nodes
    kept: list[Node] = []
    targets: list[str] = []
    using: Nodes = ()
    position = 0
    while position < len(nodes):
        node = nodes[position]
        if is_word(node, "into") and not (kept and is_word(kept[-1], "insert", "merge")):
            position += 1
            names, position = _targets(nodes, position)
            targets += names
            continue
        if dynamic and is_word(node, "using"):
            into = [i for i in range(position, len(nodes)) if is_word(nodes[i], "into")]
            using = nodes[position + 1 : into[0] if into else len(nodes)]
            position = into[0] if into else len(nodes)
            continue
        kept.append(node)
        position += 1
    return Statement("execute" if dynamic else "query", tuple(kept), tuple(targets), using)


def _targets(nodes: Nodes, position: int) -> tuple[list[str], int]:
    """Names after INTO, ``a, b.c``."""
    found: list[str] = []
    if is_word(nodes[position] if position < len(nodes) else None, "strict"):
        position += 1
    expected = True
    while position < len(nodes):
        node = nodes[position]
        if expected and isinstance(node, Token) and node.identifier:
            found.append(node.identifier)
        elif (
            is_symbol(node, ".")
            and found
            and isinstance(following := (*nodes, Token("symbol", ""))[position + 1], Token)
        ):
            found[-1] += f".{following.identifier}"
            position += 1
        elif not is_symbol(node, ","):
            break
        expected = is_symbol(node, ",")
        position += 1
    return found, position
