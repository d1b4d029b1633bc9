"""SQL that a function's body builds as text: what it will say, and what gets into it without quotes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from rlsaudit.checks._sql import Group, Node, Nodes, Token, is_symbol, is_word, parse, split

_QUOTING = frozenset({"quote_literal", "quote_ident", "quote_nullable"})
_HARMLESS = frozenset(
    {"length", "char_length", "array_length", "cardinality", "md5", "count", "to_regclass", "date_part"}
)
_SAFE_TYPES = re.compile(
    r"^(?:smallint|integer|int[248]?|bigint|numeric|decimal|real|double precision|double|float[48]?|boolean|bool|uuid|oid"
    r"|date|time(?:stamp)?(?:tz)?\b.*|interval|bytea|inet|cidr|reg\w+)(?:\(.*\))?(?:\[\])*$"
)
_SPECIFIER = re.compile(r"%(?:(\d+)\$)?-?\d*([sIL%])")
_PLACEHOLDER = "$9"
TAKES_SQL = frozenset(
    {
        "query_to_xml",
        "query_to_xmlschema",
        "query_to_xml_and_xmlschema",
        "ts_stat",
        "crosstab",
        "connectby",
        "dblink",
        "dblink_exec",
        "dblink_open",
    }
)


def safe_type(name: str) -> bool:
    """Whether no value of the type can change the meaning of SQL that it is put into."""
    return bool(_SAFE_TYPES.match(name))


@dataclass
class Texts:
    """Variables that hold SQL, as the expressions they were given."""

    loose: Callable[[tuple[str, ...]], bool]
    """Whether a name stands for text that the caller chooses."""
    known: dict[str, Nodes] = field(default_factory=dict)
    unsafe: dict[str, frozenset[str]] = field(default_factory=dict)
    """Variables with text that was put in without quotes, and whose text."""

    def give(self, name: str, nodes: Nodes) -> None:
        self.unsafe[name] = self.unsafe.get(name, frozenset()) | self.injected(nodes)
        if name in self.known and _mentions(nodes, name):
            nodes = tuple(new for node in nodes for new in ((Group(self.known[name]),) if _is(node, name) else (node,)))
        self.known[name] = nodes

    def injected(self, nodes: Nodes) -> frozenset[str]:
        """Names of what gets into the text as it is."""
        return frozenset(self._injected(nodes))

    def _injected(self, nodes: Nodes) -> Iterator[str]:
        position, value = 0, True
        cases: list[bool] = []
        while position < len(nodes):
            node = nodes[position]
            if is_word(node, "case"):
                cases.append(value)
                value = False
            elif is_word(node, "when", "then", "else") and cases:
                value = cases[-1] and not is_word(node, "when")
            elif is_word(node, "end") and cases:
                value = cases.pop()
            elif isinstance(node, Group) and value:
                yield from self._injected(node.nodes)
            elif isinstance(node, Token) and (node.identifier or node.kind == "parameter"):
                parts, position = _path(nodes, position)
                following = nodes[position] if position < len(nodes) else None
                if (
                    isinstance(following, Group)
                    and following.opening == "("
                    and not is_word(node, "in", "any", "and", "or")
                ):
                    if value:
                        yield from self._called(parts[-1], following)
                    position += 1
                elif value and not _cast_to_safe(nodes, position):
                    yield from self._named(parts)
                continue
            position += 1

    def _named(self, parts: tuple[str, ...]) -> Iterator[str]:
        if parts[0] in self.unsafe:
            yield from self.unsafe[parts[0]]
        elif self.loose(parts):
            yield ".".join(parts)

    def _called(self, name: str, group: Group) -> Iterator[str]:
        if name in _QUOTING or name in _HARMLESS:
            return
        if name != "format":
            yield from self._injected(group.nodes)
            return
        arguments = split(group.nodes, ",")
        pattern = arguments[0] if arguments else ()
        if not (len(pattern) == 1 and isinstance(pattern[0], Token) and pattern[0].kind == "string"):
            yield from self._injected(group.nodes)
            return
        for kind, number in _specifiers(pattern[0].text):
            if kind == "s" and number < len(arguments):
                yield from self._injected(arguments[number])

    def expanded(self, nodes: Nodes, using: Nodes) -> Nodes | None:
        """The SQL that the text will be, as far as it is known; what is put in stands as an expression."""
        inserted: list[Group] = []
        text = self._text(nodes, inserted, 0)
        if text is None:
            return None
        values = [Group(part) for part in split(using, ",")]
        return tuple(_filled(parse(text), inserted, values))

    def _text(self, nodes: Nodes, inserted: list[Group], depth: int) -> str | None:
        found = ""
        known = False
        for part in split(nodes, "||"):
            one = self._part(part, inserted, depth)
            known = known or one is not None
            found += one if one is not None else _inserted(part, inserted, "(")
        return found if known else None

    def _part(self, part: Nodes, inserted: list[Group], depth: int) -> str | None:
        first = part[0] if part else None
        if len(part) == 1 and isinstance(first, Token):
            if first.kind == "string":
                return first.text
            if first.identifier in self.known and depth < 8:
                return self._text(self.known[first.identifier], inserted, depth + 1)
        if len(part) == 1 and isinstance(first, Group):
            return self._text(first.nodes, inserted, depth + 1)
        last = part[-1] if part else None
        if len(part) >= 2 and isinstance(last, Group) and isinstance(name := part[-2], Token):
            if name.text in ("quote_ident", "quote_literal", "quote_nullable"):
                return _inserted(last.nodes, inserted, "{" if name.text == "quote_ident" else "(")
            if name.text == "format":
                return _formatted(last, inserted)
        return None


def _formatted(group: Group, inserted: list[Group]) -> str | None:
    arguments = split(group.nodes, ",")
    pattern = arguments[0][0] if arguments and len(arguments[0]) == 1 else None
    if not (isinstance(pattern, Token) and pattern.kind == "string"):
        return None
    found, end, following = "", 0, 1
    for match in _SPECIFIER.finditer(pattern.text):
        found += pattern.text[end : match.start()]
        end = match.end()
        if match.group(2) == "%":
            found += "%"
            continue
        number = int(match.group(1) or following)
        following = number + 1
        if number < len(arguments):
            plain = _cast_name(arguments[number])
            kind = "{" if match.group(2) == "I" or plain == "regclass" else "("
            found += _inserted(arguments[number], inserted, kind)
    return found + pattern.text[end:]


def _inserted(nodes: Nodes, inserted: list[Group], opening: str) -> str:
    inserted.append(Group(nodes, opening))
    return f" {_PLACEHOLDER}{len(inserted) - 1:05d} "


def _filled(nodes: Nodes, inserted: list[Group], using: list[Group]) -> Iterator[Node]:
    for node in nodes:
        if isinstance(node, Group):
            yield Group(tuple(_filled(node.nodes, inserted, using)), node.opening)
        elif node.kind == "parameter" and node.text.startswith(_PLACEHOLDER) and len(node.text) == 7:
            yield inserted[int(node.text[2:])]
        elif node.kind == "parameter" and int(node.text[1:]) <= len(using):
            yield using[int(node.text[1:]) - 1]
        else:
            yield node


def _specifiers(pattern: str) -> Iterator[tuple[str, int]]:
    following = 1
    for match in _SPECIFIER.finditer(pattern):
        if match.group(2) == "%":
            continue
        number = int(match.group(1) or following)
        following = number + 1
        yield match.group(2), number


def _path(nodes: Nodes, position: int) -> tuple[tuple[str, ...], int]:
    parts: list[str] = []
    while position < len(nodes):
        node = nodes[position]
        if not isinstance(node, Token) or not (node.identifier or node.kind == "parameter"):
            break
        parts.append(node.identifier or node.text)
        position += 1
        if position >= len(nodes) or not is_symbol(nodes[position], "."):
            break
        position += 1
    return tuple(parts), position


def _cast_name(nodes: Nodes) -> str:
    words = [node.text for node in nodes[-1:] if isinstance(node, Token)]
    return words[0] if words and len(nodes) > 1 and is_symbol(nodes[-2], "::") else ""


def _cast_to_safe(nodes: Nodes, position: int) -> bool:
    following = nodes[position + 1] if position + 1 < len(nodes) and is_symbol(nodes[position], "::") else None
    return isinstance(following, Token) and safe_type(following.text)


def _is(node: Node, name: str) -> bool:
    return isinstance(node, Token) and node.identifier == name


def _mentions(nodes: Nodes, name: str) -> bool:
    return any(_is(node, name) or (isinstance(node, Group) and _mentions(node.nodes, name)) for node in nodes)


def takes_sql(nodes: Nodes) -> Iterator[Nodes]:
    """First arguments of functions that run their argument as SQL."""
    for node, following in pairwise(nodes):
        if isinstance(node, Token) and node.identifier in TAKES_SQL and isinstance(following, Group):
            yield from split(following.nodes, ",")[:2]
    for node in nodes:
        if isinstance(node, Group):
            yield from takes_sql(node.nodes)
