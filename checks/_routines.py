"""What the text of a function says: its tokens without comments, what it calls, which relations it reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rlsaudit.checks._sql import legible

from rlsaudit.catalog.identifiers import literal
from rlsaudit.catalog.names import meant
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Subject, kept

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*)
    |(?P<comment>/\*)
    |(?P<escape>[eE]'(?:[^'\\]|''|\\.)*')
    |(?P<string>'(?:[^']|'')*')
    |(?P<dollar>\$(?:[A-Za-z_]\w*)?\$)
    |(?P<name>"(?:[^"]|"")+")
    |(?P<word>[A-Za-z_\u0080-\U0010ffff][\w$]*)
    |(?P<parameter>\$\d+)
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<symbol>::|:=|=>|<>|!=|.)""",
    re.VERBOSE | re.DOTALL,
)
_EDGE = re.compile(r"/\*|\*/")
_CALLED_BY = frozenset({"from", "join", "update", "into", "using"})


@dataclass(frozen=True, slots=True)
class Token:
    """``kind``: word, name (quoted identifier), string, parameter, number or symbol; ``text``: lower case for a word,
    without quotes for a name and a string."""

    kind: str
    text: str
    start: int
    end: int

    def is_word(self, *words: str) -> bool:
        return self.kind == "word" and self.text in words

    def is_symbol(self, *symbols: str) -> bool:
        return self.kind == "symbol" and self.text in symbols


@dataclass(frozen=True, slots=True)
class Called:
    """``name(arguments)``: the tokens of each argument, and where the whole of it stands in the text."""

    schema: str
    name: str
    arguments: tuple[tuple[Token, ...], ...]
    start: int
    end: int


@lru_cache(maxsize=8192)
def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a function's text, comments and white space left out; none of a text that is not legible."""
    return tuple(_tokens(text)) if legible(text) else ()


def _tokens(text: str) -> Iterator[Token]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return
        start, position = position, match.end()
        kind = match.lastgroup or "symbol"
        whole = match.group()
        if kind == "comment":
            position = _past_comment(text, start)
        elif whole[:1] == "$" and match.group("dollar") is not None:
            closing = text.find(whole, position)
            end = closing if closing >= 0 else len(text)
            yield Token("string", text[position:end], start, min(end + len(whole), len(text)))
            position = min(end + len(whole), len(text))
        elif kind == "escape":
            yield Token("string", whole[2:-1].replace("''", "'"), start, position)
        elif kind in ("string", "name"):
            yield Token(kind, whole[1:-1].replace(whole[0] * 2, whole[0]), start, position)
        elif kind != "space":
            yield Token(kind, whole.lower() if kind == "word" else whole, start, position)


def _past_comment(text: str, start: int) -> int:
    depth = 0
    for match in _EDGE.finditer(text, start):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)


def calls(text: str) -> Iterator[Called]:
    """Every ``name(…)`` in the text, inner ones too."""
    found = tokens(text)
    for index, token in enumerate(found[:-1]):
        if token.kind in ("word", "name") and found[index + 1].is_symbol("("):
            qualified = index >= 2 and found[index - 1].is_symbol(".") and found[index - 2].kind in ("word", "name")
            arguments, end = _arguments(found, index + 2)
            start = found[index - 2].start if qualified else token.start
            yield Called(found[index - 2].text if qualified else "", token.text, arguments, start, end)


def _arguments(found: Sequence[Token], index: int) -> tuple[tuple[tuple[Token, ...], ...], int]:
    depth, parts, current = 0, list[list[Token]](), list[Token]()
    for token in found[index:]:
        if token.is_symbol("(", "["):
            depth += 1
        elif token.is_symbol(")", "]"):
            if depth == 0:
                return tuple(map(tuple, [*parts, current] if current or parts else [])), token.end
            depth -= 1
        if depth == 0 and token.is_symbol(","):
            parts.append(current)
            current = []
        else:
            current.append(token)
    return tuple(map(tuple, [*parts, current])), found[-1].end


def constant(argument: Sequence[Token]) -> str | None:
    """The string or number that an argument is, casts apart; None when it is anything else."""
    plain = [token for token in argument if not token.is_symbol("(", ")")]
    negative = bool(plain) and plain[0].is_symbol("-")
    plain = plain[1:] if negative else plain
    if not plain or plain[0].kind not in ("string", "number"):
        return None
    if len(plain) > 1 and not plain[1].is_symbol("::"):
        return None
    return ("-" if negative else "") + plain[0].text


def relations_read(subject: Subject, function: Function) -> tuple[Relation, ...]:
    """Relations that stand after FROM, JOIN, UPDATE, INTO or USING in its text, or that it depends on."""
    catalog = subject.catalog
    found = dict.fromkeys(catalog.mentions("function", function.oid, "relation"))
    for schema, name, _ in relation_names(function.source):
        found |= dict.fromkeys(one.oid for one in meant(catalog, function, catalog.relations_named(name), schema))
    return tuple(one for oid in found if (one := catalog.find_relation(oid)) is not None)


def relation_names(text: str) -> Iterator[tuple[str, str, int]]:
    """(schema or empty, name, position) of what stands where a relation may."""
    found = tokens(text)
    for index, token in enumerate(found[:-1]):
        if not token.is_word(*_CALLED_BY):
            continue
        at = index + 1
        while at < len(found) and found[at].is_word("only", "lateral"):
            at += 1
        if at >= len(found) or found[at].kind not in ("word", "name"):
            continue
        if at + 2 < len(found) and found[at + 1].is_symbol(".") and found[at + 2].kind in ("word", "name"):
            if not (at + 3 < len(found) and found[at + 3].is_symbol("(")):
                yield found[at].text, found[at + 2].text, found[at].start
        elif not (at + 1 < len(found) and found[at + 1].is_symbol("(")) or token.is_word("into"):
            yield "", found[at].text, found[at].start


@kept
def _kept_reached(subject: Subject) -> dict[int, tuple[Function, ...]]:
    return {}


def reached(subject: Subject, function: int) -> tuple[Function, ...]:
    """The function, first, and the user functions that it may call, by dependencies and by the names in its text."""
    known = _kept_reached(subject)
    if function not in known:
        seen: dict[int, Function] = {}
        waiting = [function]
        while waiting:
            one = subject.catalog.function(waiting.pop())
            if one is None or one.oid in seen:
                continue
            seen[one.oid] = one
            waiting.extend(subject.catalog.mentions("function", one.oid, "function"))
            for call in calls(one.source):
                named = subject.catalog.functions_named(call.name)
                waiting.extend(f.oid for f in meant(subject.catalog, one, named, call.schema))
        known[function] = tuple(seen.values())
    return known[function]


def rewrite(function: Function, changes: Sequence[tuple[str, str]]) -> str:
    """Replaces the function by itself with parts of its text changed; owner, privileges and attributes stay."""
    text = f"pg_get_functiondef({literal(function.signature)}::regprocedure)"
    for old, new in dict.fromkeys(changes):
        text = f"replace({text}, {literal(old)}, {literal(new)})"
    tag = "rewrite"
    while f"${tag}$" in text:
        tag += "_"  # a name or a value that ends the quote would let the rest of it run
    return f"DO ${tag}$ BEGIN EXECUTE {text}; END ${tag}$;"
