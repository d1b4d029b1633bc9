"""The tokens of a function kept as text."""

from __future__ import annotations

import re

from rlsaudit.catalog.nodetree import NodeTreeError

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>\d+(?![\w.]))|(?P<quoted>"(?:[^"]|"")+")
    |(?P<word>[A-Za-z_]\w*)|(?P<parameter>\$\d+)
    |(?P<operator>::|:=|->>|->|<>|!=|<=|>=|[=<>](?![-+*/<>=~!@\#%^&|`?])|[().,;\[\]])
    |(?P<other>[-+*/<>=~!@\#%^&|`?:]+|\d[\w.]*))""",
    re.VERBOSE,
)
_STRING_OR_COMMENT = re.compile(r"('(?:[^']|'')*')|--[^\n]*|/\*.*?\*/", re.DOTALL)


def tokens_of(source: str) -> list[tuple[str, str]]:
    """The tokens of a function's text without its comments.  Raises NodeTreeError for what is none."""
    if "\\" in source:
        raise NodeTreeError("a backslash")  # what it means depends on the kind of string
    text = _STRING_OR_COMMENT.sub(lambda match: match.group(1) or " ", source)
    tokens: list[tuple[str, str]] = []
    position, text = 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise NodeTreeError("unknown token")
        tokens.append((match.lastgroup, match.group(match.lastgroup)))
        position = match.end()
    return tokens
