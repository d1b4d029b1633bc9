"""Strings that match a regular expression, made directly from it: the common part of POSIX and Python syntax.  Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_CLASSES = {
    "alpha": "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "digit": "0123456789",
    "upper": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "lower": "abcdefghijklmnopqrstuvwxyz",
    "xdigit": "0123456789abcdef",
    "space": " ",
    "blank": " ",
    "punct": "-._",
}
_CLASSES["alnum"] = _CLASSES["digit"] + _CLASSES["alpha"]
_CLASSES["word"] = _CLASSES["alnum"] + "_"
_ESCAPES = {"d": _CLASSES["digit"], "w": _CLASSES["word"], "s": " "}
_ANY = _CLASSES["lower"] + _CLASSES["digit"]
_PRINTABLE = "".join(chr(code) for code in range(32, 127))
_BOUND = re.compile(r"\{(\d*)(,?)(\d*)\}")
_LONGEST = 64
"""Repetitions of one part, where the pattern allows any number."""


class Unreadable(Exception):
    """The pattern uses what this reader does not know."""


@dataclass(frozen=True, slots=True)
class Part:
    """One character of a set, or one of several sequences, repeated ``low`` to ``high`` times."""

    characters: str = ""
    options: tuple[tuple[Part, ...], ...] = ()
    low: int = 1
    high: int = 1


def matches(pattern: str, number: int, count: int) -> tuple[str, ...]:
    """Up to ``count`` strings that match, none of them made twice for different numbers where there is room.

    Raises Unreadable.
    """
    options = _Reader(pattern).read()
    found: list[str] = []
    for variant in range(count * 2):
        text = _Maker(number * 31 + variant if variant else number, variant).sequence(options[variant % len(options)])
        if text not in found and text.isprintable():
            found.append(text)
    return tuple(found[:count])


@dataclass
class _Maker:
    """Takes the digits of ``number`` for choices, from the end of the text to its start, so that ends differ first."""

    number: int
    variant: int

    def sequence(self, parts: Sequence[Part]) -> str:
        return "".join(reversed([self._part(part) for part in reversed(parts)]))

    def _part(self, part: Part) -> str:
        room = part.high - part.low
        # Mostly a few more than the least: the least leaves no room for a mark, the most is long.
        times = part.low + min(room, (6, 0, 1, 12, room)[self.variant % 5]) if room else part.low
        return "".join(reversed([self._once(part) for _ in range(times)]))

    def _once(self, part: Part) -> str:
        if part.options:
            return self.sequence(part.options[self.variant % len(part.options)])
        self.number, place = divmod(self.number, len(part.characters))
        return part.characters[place]


@dataclass
class _Reader:
    pattern: str
    at: int = 0
    _depth: int = field(default=0)

    def read(self) -> tuple[tuple[Part, ...], ...]:
        options = self._options()
        if self.at < len(self.pattern):
            raise Unreadable
        return options

    def _options(self) -> tuple[tuple[Part, ...], ...]:
        options: list[list[Part]] = [[]]
        while (character := self._peek()) and character != ")":
            if character == "|":
                self.at += 1
                options.append([])
            elif character in "^$":
                self.at += 1
            else:
                part = self._repeated(self._atom())
                options[-1] += [part] if part is not None else []
        return tuple(tuple(one) for one in options)

    def _peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def _atom(self) -> Part | None:
        character = self._peek()
        self.at += 1
        if character == "(":
            return self._group()
        if character == "[":
            return Part(self._set())
        if character == ".":
            return Part(_ANY)
        if character == "\\":
            return self._escape()
        if character in "*+?{":
            raise Unreadable
        return Part(character)

    def _group(self) -> Part:
        if self._peek() == "?":
            if self.pattern[self.at + 1 : self.at + 2] != ":":
                raise Unreadable
            self.at += 2
        self._depth += 1
        if self._depth > 20:
            raise Unreadable
        options = self._options()
        if self._peek() != ")":
            raise Unreadable
        self.at += 1
        self._depth -= 1
        return Part(options=options)

    def _escape(self) -> Part | None:
        character = self._peek()
        self.at += 1
        if character in ("A", "Z", "m", "M", "y", "b"):
            return None
        if character in _ESCAPES:
            return Part(_ESCAPES[character])
        if not character or character.isalnum():
            raise Unreadable
        return Part(character)

    def _repeated(self, part: Part | None) -> Part | None:
        character = self._peek()
        if part is None or not character or character not in "*+?{":
            return part
        low, high = {"*": (0, _LONGEST), "+": (1, _LONGEST), "?": (0, 1)}.get(character, (0, 0))
        self.at += 1
        if character == "{":
            bound = _BOUND.match(self.pattern, self.at - 1)
            if bound is None:
                raise Unreadable
            low = int(bound[1] or 0)
            high = low if not bound[2] else int(bound[3]) if bound[3] else low + _LONGEST
            self.at = bound.end()
        if self._peek() in ("?", "+"):
            self.at += 1  # greedy or not, what matches is the same
        if high < low or low > 1000:
            raise Unreadable
        return Part(part.characters, part.options, low, min(high, low + _LONGEST))

    def _set(self) -> str:
        negated = self._peek() == "^"
        self.at += negated
        found: list[str] = []
        first = True
        while (character := self._peek()) != "]" or first:
            first = False
            if not character:
                raise Unreadable
            found += self._member(character)
        self.at += 1
        listed = "".join(dict.fromkeys(found))
        if negated:
            listed = "".join(c for c in _ANY if c not in listed) or "".join(c for c in _PRINTABLE if c not in listed)
        if not listed:
            raise Unreadable
        return listed

    def _member(self, character: str) -> str:
        if character == "[":
            named = re.compile(r"\[:(\w+):\]").match(self.pattern, self.at)
            if named is None or named[1] not in _CLASSES:
                raise Unreadable
            self.at = named.end()
            return _CLASSES[named[1]]
        self.at += 1
        if character == "\\":
            escaped = self._peek()
            self.at += 1
            if escaped in _ESCAPES:
                return _ESCAPES[escaped]
            if not escaped or escaped.isalnum():
                raise Unreadable
            character = escaped
        if self._peek() == "-" and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
            last = self.pattern[self.at + 1]
            self.at += 2
            if last == "\\" or ord(last) < ord(character) or ord(last) > 126:
                raise Unreadable
            return "".join(chr(code) for code in range(ord(character), ord(last) + 1))
        return character
