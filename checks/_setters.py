"""Functions that say for whom a session acts: where they give a setting its value, for how long, and who calls them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rlsaudit.checks._routines import Token, calls, constant, reached, tokens

from rlsaudit.catalog.routines import Function
from rlsaudit.check import Subject, kept

_PLAIN_SET = re.compile(
    r"\bSET\s+(?P<scope>LOCAL\s+|SESSION\s+)?\"?(?P<name>[a-z_][\w$]*(?:\.[\w$]+)+)\"?\s*(?:=|\bTO\b)\s*(?P<value>'[^']*'|\w+)?",
    re.IGNORECASE,
)
_FALSE = frozenset({"false", "f", "off", "no", "n", "0"})
_TRUE = frozenset({"true", "t", "on", "yes", "y", "1"})


Span = Literal["transaction", "session", "unknown"]


@dataclass(frozen=True, slots=True)
class Setter:
    """One place in a function where a setting is given a value."""

    function: Function
    setting: str
    span: Span
    value: tuple[Token, ...]
    old: str
    """The text of the call or statement."""
    new: str
    """The same for the transaction only."""

    @property
    def clears(self) -> bool:
        return constant(self.value) == "" or (len(self.value) == 1 and self.value[0].is_word("null", "default"))


@kept
def setters(subject: Subject) -> tuple[Setter, ...]:
    """Every place in the schema's own functions where a setting is given a value."""
    return tuple(
        setter
        for function in subject.catalog.functions
        if function.extension is None and function.language in ("sql", "plpgsql")
        for setter in _setters(function)
    )


def _setters(function: Function) -> Iterator[Setter]:
    source = function.source
    for call in calls(source):
        if call.name != "set_config" or call.schema not in ("", "pg_catalog") or len(call.arguments) != 3:
            continue
        name = constant(_unnamed(call.arguments[0]))
        if name is not None and call.arguments[2]:
            last = call.arguments[2]
            span = _span(function, _unnamed(last))
            old = source[call.start : call.end]
            new = source[call.start : _unnamed(last)[0].start] + "true" + source[last[-1].end : call.end]
            yield Setter(function, name.lower(), span, _unnamed(call.arguments[1]), old, new)
    yield from _plain(function, source)
    dynamic = False
    for token in tokens(source):
        dynamic = (dynamic or token.is_word("execute")) and not token.is_symbol(";")
        if token.kind == "string" and dynamic:
            yield from _plain(function, token.text)


def _plain(function: Function, text: str) -> Iterator[Setter]:
    """``SET name = …`` as a statement, also inside the string of an EXECUTE."""
    code = _without_strings(text) if text is function.source else text
    for match in _PLAIN_SET.finditer(code):
        if "." not in match["name"]:
            continue
        scope = (match["scope"] or "").strip().lower()
        old = text[match.start() : match.end()]
        new = re.sub(r"^SET\s+(SESSION\s+)?", "SET LOCAL ", old, flags=re.IGNORECASE)
        value = tokens(text[match.start("value") : match.end("value")]) if match["value"] else ()
        span: Span = "transaction" if scope == "local" else "session"
        yield Setter(function, match["name"].lower(), span, value, old, new)


def _without_strings(text: str) -> str:
    """The text with comments blanked out and strings emptied, every position kept."""
    kept = [" "] * len(text)
    for token in tokens(text):
        if token.kind != "string" or token.end - token.start < 80:
            kept[token.start : token.end] = text[token.start : token.end]
        if token.kind == "string":
            inner = "x" * max(0, token.end - token.start - 2)
            kept[token.start + 1 : token.end - 1] = inner
    return "".join(kept)


def _unnamed(argument: tuple[Token, ...]) -> tuple[Token, ...]:
    """The value of ``name => value``."""
    named = len(argument) > 2 and argument[1].is_symbol("=>", ":=")
    return argument[2:] if named else argument


def _span(function: Function, argument: tuple[Token, ...]) -> Span:
    if not argument:
        return "unknown"
    negated = argument[0].is_word("not")
    first = argument[1] if negated and len(argument) > 1 else argument[0]
    if first.text.lower() in _TRUE:
        return "session" if negated else "transaction"
    if first.text.lower() in _FALSE:
        return "transaction" if negated else "session"
    return "unknown"


def callers(subject: Subject, function: Function) -> tuple[str, ...]:
    """Application roles whose sessions run the function: by calling it, or another that does, or by a trigger."""
    found: dict[str, None] = {}
    outer = [
        one for one in subject.catalog.functions
        if one.oid == function.oid or any(inner.oid == function.oid for inner in reached(subject, one.oid))
    ]  # fmt: skip
    for role in subject.tenancy.roles:
        if any(subject.visibility.may_execute(role.oid, one) for one in outer if "trigger" not in one.returns):
            found[role.name] = None
        for trigger in subject.catalog.triggers:
            relation = subject.catalog.find_relation(trigger.relation)
            fires = trigger.enabled != "disabled" and any(one.oid == trigger.function for one in outer)
            if relation and fires and any(subject.visibility.may(role.oid, relation, c) for c in trigger.events):
                found[role.name] = None
    return tuple(found)
