"""Which columns a function looks at whose body is text: by the names in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlsaudit.checks._routines import Token, reached, relations_read, tokens

from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Subject, kept


@dataclass(frozen=True, slots=True)
class Named:
    """A relation that the text of a function reads, and its columns that are named there."""

    relation: int
    links: frozenset[str]
    anchors: frozenset[str]
    tests: frozenset[str]


@kept
def _kept_answers(subject: Subject) -> dict[int, tuple[Named, ...]]:
    return {}


def read_in_function(subject: Subject, function: int) -> tuple[Named, ...]:
    """What the function reads, itself and in the functions that it calls."""
    known = _kept_answers(subject)
    if function not in known:
        found = (
            _columns(subject, relation, each)
            for each in reached(subject, function)
            for relation in relations_read(subject, each)
            if relation.kind != "sequence"
        )
        known[function] = tuple(dict.fromkeys(found))
    return known[function]


def _columns(subject: Subject, relation: Relation, function: Function) -> Named:
    text = tokens(function.source)
    names = {token.text for token in text if token.kind in ("word", "name")}
    named = {column.name for column in relation.columns if column.name in names}
    arguments = {name.lower() for name in function.argument_names if name}
    links: set[str] = set()
    anchors = named & set(subject.tenancy.principal_columns.get(relation.oid, ()))
    for left, right in _equalities(text):
        for side, other in ((left, right), (right, left)):
            column = side[-1].text if side[-1].text in named else ""
            if column and (other[-1].kind == "parameter" or other[-1].text in arguments):
                links.add(column)
            elif column and other[-1].is_symbol("("):
                anchors.add(column)
    if function.returns != "boolean":
        links |= {token.text for token in _selected(text) if token.text in named} - anchors
    key = subject.tenancy.of(relation.oid).key
    if not links and key in named and key not in anchors:
        links.add(key)
    return Named(relation.oid, frozenset(links), frozenset(anchors - links), frozenset(named - links - anchors))


Side = tuple[Token, ...]


def _equalities(text: tuple[Token, ...]) -> Iterator[tuple[Side, Side]]:
    """``a.b = c.d``, ``a = $1``, ``a = f(``, ``a = (SELECT f(``, ``a = ANY ($1)``: both sides, as far as they are names."""
    for index, token in enumerate(text):
        if token.is_symbol("=") and 0 < index < len(text) - 1 and text[index - 1].kind in ("word", "name", "parameter"):
            at = index + 1
            while at < len(text) - 1 and (text[at].is_symbol("(") or text[at].is_word("any", "select")):
                at += 1
            right = [text[at]]
            while at + 2 < len(text) and text[at + 1].is_symbol(".") and text[at + 2].kind in ("word", "name"):
                at += 2
                right.append(text[at])
            if at + 1 < len(text) and text[at + 1].is_symbol("("):
                right.append(text[at + 1])
            yield (text[index - 1],), tuple(right)


def _selected(text: tuple[Token, ...]) -> Iterator[Token]:
    """Names in select lists."""
    selecting = False
    for token in text:
        if token.is_word("select", "from"):
            selecting = token.text == "select"
        elif selecting and token.kind in ("word", "name"):
            yield token
