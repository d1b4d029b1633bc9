"""Reader for ``pg_node_tree`` text, the analysed expressions that the catalog stores (PostgreSQL 15 to 18).

Generic and fail-closed: it knows the token rules of the server's ``pg_strtok`` and the shapes of nodes, lists
and datums, not the node types.  Source: src/backend/nodes/outfuncs.c and read.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

MAX_DEPTH = 200
"""Nesting beyond this is refused, well inside Python's own recursion limit."""

_TOKEN = re.compile(r"[(){}]|(?:[^\s(){}\\]+|\\.)+", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_TAG = re.compile(r"[A-Z][A-Z0-9_]*\Z")
_NUMBER = re.compile(r"-?\d+\Z")
_BRACKETS = frozenset("{}()")
_LOCATION = re.compile(r":location -?\d+(?=[ }])")


class NodeTreeError(ValueError):
    """The text is not a node tree of a known shape; whoever reads it must answer "unknown"."""


@dataclass(frozen=True, slots=True)
class Node:
    """``{TAG :field value …}``.  Accessors raise NodeTreeError when a field is absent or of another shape."""

    tag: str
    fields: Mapping[str, Value]

    def get(self, field: str) -> Value:
        try:
            return self.fields[field]
        except KeyError:
            raise NodeTreeError(f"{self.tag} without {field}") from None

    def node(self, field: str) -> Node:
        value = self.get(field)
        if not isinstance(value, Node):
            raise NodeTreeError(f"{self.tag}.{field} is not a node")
        return value

    def optional(self, field: str) -> Node | None:
        return None if self.get(field) is None else self.node(field)

    def text(self, field: str) -> str:
        value = self.get(field)
        if not isinstance(value, str):
            raise NodeTreeError(f"{self.tag}.{field} is not a token")
        return value

    def integer(self, field: str) -> int:
        value = self.text(field)
        if not _NUMBER.match(value):
            raise NodeTreeError(f"{self.tag}.{field} is not a number")
        return int(value)

    def flag(self, field: str) -> bool:
        value = self.text(field)
        if value not in ("true", "false"):
            raise NodeTreeError(f"{self.tag}.{field} is not a boolean")
        return value == "true"

    def nodes(self, field: str) -> tuple[Node, ...]:
        """A list of nodes; absent (``<>``) is the empty list."""
        value = self.get(field)
        if value is None:
            return ()
        if not isinstance(value, tuple):
            raise NodeTreeError(f"{self.tag}.{field} is not a list")
        return tuple(_as_node(item, self.tag, field) for item in value)

    def walk(self) -> Iterator[Node]:
        """This node and every node below it."""
        yield self
        for value in self.fields.values():
            yield from nodes_in(value)


Value: TypeAlias = Node | tuple["Value", ...] | str | int | bytes | None
"""A field: node, list, token, number of an integer list, datum bytes, or None for ``<>``."""


def nodes_in(value: Value) -> Iterator[Node]:
    """Every node in a value, at any depth."""
    if isinstance(value, Node):
        yield from value.walk()
    elif isinstance(value, tuple):
        for item in value:
            yield from nodes_in(item)


def parse(text: str) -> Node:
    """The node that ``text`` denotes.  Raises NodeTreeError for anything unexpected."""
    # Where a node stood in its statement differs between tables that are otherwise alike; nobody reads it.
    return _parsed(_LOCATION.sub(":location -1", text))


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Node:
    value = parse_value(text)
    if not isinstance(value, Node):
        raise NodeTreeError("not a node")
    return value


def parse_value(text: str) -> Value:
    """Any value: ``prosqlbody`` of a BEGIN ATOMIC function is a list of lists of queries."""
    reader = _Reader(_tokens(text))
    try:
        value = reader.value(0)
    except IndexError:
        raise NodeTreeError("text ends early") from None
    reader.end()
    return value


def _as_node(value: Value, tag: str, field: str) -> Node:
    if not isinstance(value, Node):
        raise NodeTreeError(f"{tag}.{field} holds something that is not a node")
    return value


def _tokens(text: str) -> list[str]:
    text = text.rstrip()
    if (len(text) - len(text.rstrip("\\"))) % 2:
        raise NodeTreeError("text ends within an escape")  # the only thing that is no token
    return _TOKEN.findall(text)


def _plain(token: str) -> str | None:
    """A token's text: ``<>`` is null, ``""`` empty, quotes of a String node and backslashes removed."""
    if token == "<>":  # noqa: S105 - a token of the text, not a secret
        return None
    if token.startswith('"'):
        if len(token) < 2 or not token.endswith('"'):
            raise NodeTreeError("unterminated string")
        token = token[1:-1]
    return _ESCAPED.sub(r"\1", token) if "\\" in token else token


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self.size = len(tokens)
        self.tokens = [*tokens, "", ""]  # looking ahead needs no bounds
        self.position = 0

    def take(self) -> str:
        if self.position >= self.size:
            raise NodeTreeError("text ends early")
        self.position += 1
        return self.tokens[self.position - 1]

    def peek(self) -> str:
        return self.tokens[self.position]

    def end(self) -> None:
        if self.position != self.size:
            raise NodeTreeError("text goes on after the tree")

    def value(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise NodeTreeError("nested too deeply")
        token = self.take()
        if token == "{":  # noqa: S105
            return self.node(depth)
        if token == "(":  # noqa: S105
            return self.list(depth)
        if token in (")", "}"):
            raise NodeTreeError(f"unexpected {token}")
        if self.peek() == "[":
            return self.datum(token)
        return _plain(token)

    def node(self, depth: int) -> Node:
        tokens, position = self.tokens, self.position  # locals, because every token of a large catalog passes here
        tag = tokens[position]
        if not _TAG.match(tag):
            raise NodeTreeError(f"unexpected node tag {tag[:40]!r}")
        position += 1
        fields: dict[str, Value] = {}
        while (token := tokens[position]) != "}":
            # The token after a name is always its value, even one that begins with a colon (an alias may).
            name = token[1:]
            if token[:1] != ":" or not name or name in fields:
                raise NodeTreeError(f"{tag}: expected a field, found {token[:40]!r}")
            value = tokens[position + 1]
            if value not in _BRACKETS and tokens[position + 2] != "[":
                fields[name] = value if value.isalnum() else _plain(value)
                position += 2
            else:
                self.position = position + 1
                fields[name] = self.value(depth + 1)
                position = self.position
        self.position = position + 1
        return Node(tag, fields)

    def list(self, depth: int) -> tuple[Value, ...]:
        # Integer, OID, transaction id lists and bitmap sets carry a letter; strings of a plain list are
        # quoted.
        if self.peek() in ("i", "o", "x", "b"):
            self.take()
            return tuple(self.numbers(")"))
        items: list[Value] = []
        while self.peek() != ")":
            items.append(self.value(depth + 1))
        self.take()
        return tuple(items)

    def numbers(self, closing: str) -> Iterator[int]:
        while (token := self.take()) != closing:
            if not _NUMBER.match(token):
                raise NodeTreeError(f"expected a number, found {token[:40]!r}")
            yield int(token)

    def datum(self, length: str) -> bytes:
        """``4 [ 1 0 0 0 0 0 0 0 ]``: signed bytes; a by-value datum is written as 8 bytes whatever its
        length."""
        self.take()
        content = bytes(number & 0xFF for number in self.numbers("]"))
        if not length.isdigit() or len(content) < int(length):
            raise NodeTreeError("datum shorter than it says")
        return content
