"""What a function reaches, by the text of its body and of those it calls: tenant data, what it writes, cursors.  Pure.

Wide rather than narrow: a word that is a relation's name counts as that relation, and SQL that is put together at run
time as all of them.  What is thought to touch tenant data is only called more often, and asked for a result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.routines import Function
from rlsaudit.tenancy.model import Tenancy

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_STRING = re.compile(r"'(?:[^']|'')*'")
_WORD = re.compile(r'"((?:[^"]|"")+)"|([A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*)')
_DYNAMIC = re.compile(r"\bexecute\b|\b(query|table|schema|database|cursor)_to_xml|\bdblink", re.IGNORECASE)
_SENDS = re.compile(r"\bpg_notify\s*\(|\bnotify\b", re.IGNORECASE)
_READABLE = frozenset({"sql", "plpgsql"})
_WRITTEN = re.compile(
    r'\b(?:insert\s+into|update(?:\s+only)?|delete\s+from(?:\s+only)?|merge\s+into|truncate(?:\s+table)?)\s+(?:[\w$"]+\.)?"?([\w$]+)',
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Touch:
    """What one function may reach."""

    tenant_data: bool
    writes: bool
    """A statement of it writes a relation with tenant data."""
    cursors: bool
    """It may leave cursors open."""


def touches(catalog: Catalog, tenancy: Tenancy, function: Function) -> Touch:
    """What ``function`` and the functions that it calls may reach."""
    guarded = frozenset(
        relation.name.lower()
        for relation in catalog.relations
        if relation.kind != "sequence" and (tenancy.of(relation.oid).tenant_data or not relation.holds_rows)
    )
    found = tuple(_called(catalog, function))
    texts = [_body(one.source) for one in found]
    dynamic = any(runs_text(one) for one in found)
    words = set[str]().union(*(words_of(_STRING.sub("''", text)) for text in texts))
    written = {name.lower() for text in texts for name in _WRITTEN.findall(text)}
    cursors = any("refcursor" in text.lower() for text in (*texts, function.returns, *function.argument_types))
    return Touch(dynamic or not guarded.isdisjoint(words), not guarded.isdisjoint(written), cursors)


def sending(catalog: Catalog, function: Function) -> tuple[str, ...]:
    """The bodies of ``function`` and of those that it calls, where one of them sends a notification; else nothing."""
    bodies = tuple(_body(one.source) for one in _called(catalog, function))
    return bodies if any(_SENDS.search(body) for body in bodies) else ()


def runs_text(function: Function) -> bool:
    """Whether its body runs SQL that it puts together."""
    return function.language not in _READABLE or _DYNAMIC.search(_body(function.source)) is not None


def _called(catalog: Catalog, function: Function) -> Iterator[Function]:
    seen: dict[int, Function] = {}
    waiting = [function]
    while waiting:
        one = waiting.pop()
        if one.oid in seen:
            continue
        seen[one.oid] = one
        named = words_of(_body(one.source))
        waiting += [other for other in catalog.functions if other.extension is None and other.name.lower() in named]
    return iter(seen.values())


def _body(source: str) -> str:
    return _COMMENT.sub(" ", source)


@lru_cache(maxsize=4096)
def words_of(text: str) -> frozenset[str]:
    return frozenset((quoted or plain).lower() for quoted, plain in _WORD.findall(text))
