"""Trigger functions that can do nothing but refuse: RAISE, RETURN, and IF over what calls no function of the schema."""

from __future__ import annotations

import re
from itertools import pairwise

from rlsaudit.catalog.nodetree import NodeTreeError
from rlsaudit.catalog.relations import Trigger
from rlsaudit.catalog.routines import Function
from rlsaudit.catalog.tokens import tokens_of

_HARMLESS = frozenset(
    {"in", "and", "or", "not", "any", "when", "coalesce", "current_setting", "format", "lower", "upper"}
)
"""What may stand before a parenthesis."""
_AS_IT_IS = frozenset({"null", "old", "new", "coalesce ( new , old )", "coalesce ( old , new )"})
"""Of RETURN: the row as the statement has it, or none."""
_WHEN = re.compile(r"\bWHEN \((.*)\) EXECUTE (FUNCTION|PROCEDURE) ", re.DOTALL)
Tokens = list[tuple[str, str]]


def only_refuses(trigger: Trigger, function: Function) -> bool:
    """Whether the trigger either raises an error or lets the row pass as it is, and changes nothing besides.

    Fail-closed: False for what is not understood, and for what never raises.
    """
    if function.language != "plpgsql":
        return False
    condition = _WHEN.search(trigger.definition)
    try:
        pure = condition is None or _pure(tokens_of(condition.group(1)))
        return pure and _Body(tokens_of(function.source)).refuses()
    except NodeTreeError:
        return False


class _Body:
    def __init__(self, tokens: Tokens) -> None:
        self._tokens = [(kind, text.lower() if kind == "word" else text) for kind, text in tokens]
        self._at = 0
        self._raises = False

    def refuses(self) -> bool:
        if self._word() != "begin":
            return False
        self._at += 1
        understood = self._statements(("end",)) and self._word() == "end"
        rest = [text for _, text in self._tokens[self._at + 1 :]]
        return understood and rest in ([], [";"]) and self._raises

    def _word(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _statements(self, until: tuple[str, ...]) -> bool:
        while self._word() not in until:
            if not self._statement():
                return False
        return True

    def _statement(self) -> bool:
        first = self._word()
        if first == "if":
            return self._if()
        if first not in ("raise", "return"):
            return False
        said = self._upto(";")
        if first == "return":
            return " ".join(text for _, text in said[1:]) in _AS_IT_IS
        self._raises |= not said[1:2] or said[1][1] not in ("notice", "warning", "info", "log", "debug")
        return _pure(said[1:])

    def _if(self) -> bool:
        while self._word() in ("if", "elsif", "elseif"):
            if not _pure(self._upto("then")[1:]) or not self._statements(("elsif", "elseif", "else", "end")):
                return False
        if self._word() == "else":
            self._at += 1
            if not self._statements(("end",)):
                return False
        ended = [text for _, text in self._tokens[self._at : self._at + 3]]
        self._at += 3
        return ended == ["end", "if", ";"]

    def _upto(self, end: str) -> Tokens:
        """The tokens up to that one, which is passed."""
        begun = self._at
        while self._word() != end:
            if self._at >= len(self._tokens):
                raise NodeTreeError(f"the end without {end}")
            self._at += 1
        self._at += 1
        return self._tokens[begun : self._at - 1]


def _pure(tokens: Tokens) -> bool:
    """No subquery, no assignment, and no call but of what reads only."""
    words = [text.lower() if kind == "word" else text for kind, text in tokens]
    called = {before for before, here in pairwise(words) if here == "("}
    names = {text for kind, text in tokens if kind == "quoted"}
    calls = {one for one in called if re.fullmatch(r"\w+", one) or one in names}
    return calls <= _HARMLESS and not {"select", ":=", "perform", "execute", "call"} & set(words)
