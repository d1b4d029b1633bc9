"""Values of the encoding, and what the server's input functions make of text constants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rlsaudit.prove import smt
from rlsaudit.prove.smt import Term

_KINDS = {
    "smallint": "integer", "integer": "integer", "bigint": "integer", "text": "text",
    "character varying": "text", "name": "text", "boolean": "boolean", "uuid": "uuid",
}  # fmt: skip
RANGES = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}
UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_INTEGER = re.compile(r"[ \t\n]*[+-]?[0-9]+[ \t\n]*\Z")
_TRUTHS = {
    **dict.fromkeys(("true", "t", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


@dataclass(frozen=True, slots=True)
class Value:
    error: Term
    null: Term
    value: Term
    kind: str

    @property
    def is_null(self) -> Term:
        return self.null if self.error is smt.FALSE else smt.conjunction([smt.negation(self.error), self.null])

    @property
    def is_known(self) -> Term:
        known = smt.negation(self.null)
        return known if self.error is smt.FALSE else smt.conjunction([smt.negation(self.error), known])

    @property
    def is_true(self) -> Term:
        return smt.conjunction([self.is_known, self.value])

    @property
    def is_false(self) -> Term:
        return smt.conjunction([self.is_known, smt.negation(self.value)])


@dataclass(frozen=True, slots=True)
class Row:
    """A row under test and, inside subqueries, the witness rows by query number."""

    label: str
    witnesses: tuple[tuple[int, str], ...] = ()

    def witness(self, query: int) -> str:
        """The label of a subquery's witness, or nothing."""
        return next((label for number, label in reversed(self.witnesses) if number == query), "")


def kind_of(type_name: str) -> str:
    return _KINDS.get(type_name, type_name)


def sort_of(kind: str) -> smt.Sort:
    return "Bool" if kind == "boolean" else "Int"


def text_number(text: str) -> int:
    """A number for each text, different for different texts."""
    return int.from_bytes(b"\x01" + text.encode("utf-8", "surrogatepass"), "big")


def number_text(number: int) -> str | None:
    """The text a number stands for, when it stands for one."""
    if number <= 0:
        return None
    content = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return content[1:].decode("utf-8", "replace") if content[0] == 1 else None


def parsing(kind: str, type_name: str, text: str) -> list[Term]:
    term = smt.literal(text_number(text))
    valid = smt.function(f"valid {type_name}", "Bool", term)
    read = _read(kind, type_name, text)
    if read == "unknown":
        return []
    if read is None:
        return [smt.negation(valid)]
    parsed = smt.function(f"parse {kind}", sort_of(kind), term)
    return [valid, smt.equal(parsed, smt.literal(read))]


def one_or_zero(text: Term, type_name: str) -> Term:
    """Of integers only 1 and 0 read as a truth value."""
    number, truth = smt.function("parse integer", "Int", text), smt.function("parse boolean", "Bool", text)
    both = smt.conjunction(smt.function(f"valid {one}", "Bool", text) for one in (type_name, "boolean"))
    one, zero = (smt.equal(number, smt.literal(value)) for value in (1, 0))
    return smt.implication(both, smt.choice(truth, one, zero))


def _read(kind: str, type_name: str, text: str) -> int | bool | Literal["unknown"] | None:
    """What the type's input function gives: a value, None for an error, ``unknown`` where versions or forms
    differ."""
    if kind == "uuid":
        if UUID_TEXT.match(text):
            return int(text.replace("-", ""), 16)
        return None if len(re.findall(r"[0-9a-fA-F]", text)) != 32 else "unknown"
    if kind == "boolean":
        return _TRUTHS.get(text, None if not text.strip() else "unknown")
    if _INTEGER.match(text):
        number = int(text)
        limit = RANGES[type_name]
        return number if -limit <= number < limit else None
    return "unknown" if any(character.isdigit() for character in text) else None
