"""What users and clients write themselves, and where policies and functions read it."""

from __future__ import annotations

import re
from functools import lru_cache

from rlsaudit.checks._routines import reached, relations_read, tokens

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, walk
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Subject

CLAIMS = {"user_metadata": "app_metadata", "raw_user_meta_data": "raw_app_meta_data"}
"""What users of an authentication service edit themselves, and what beside it only the service writes."""
CLAIM = re.compile(r"(?<![A-Za-z_])(?:user_metadata|raw_user_meta_data)(?![A-Za-z_])")
_CLIENT = re.compile(r"request\.(?:headers?|cookies?)(?:\.|\Z)", re.IGNORECASE)
"""Settings in which a gateway hands on what the client sent."""


def claims_read(subject: Subject, policy: str, atom: Expression) -> list[tuple[str, Function | None]]:
    """Claims and client settings that a condition of a policy reads, each with the function that reads it.

    ``policy`` is the policy's text.  What a client sends is left out where it is looked up in a table: it may be a
    credential then, such as the key of an API.
    """
    found: list[tuple[str, Function | None]] = []
    parts = tuple(walk(atom))
    looked_up = {inner for part in parts if isinstance(part, e.Subquery) and part.relations for inner in walk(part)}
    inside: set[Expression] = set()
    for part in parts:
        if not isinstance(part, e.Call) or not part.user:
            continue
        for function in reached(subject, part.function):
            keyed = part in looked_up or bool(relations_read(subject, function))
            named = [what for what in _named_in(function.source) if what in CLAIMS or not keyed]
            found += [(what, function) for what in named]
            if named and part.inlined is not None:
                inside.update(walk(part.inlined))
    for part in parts:
        what = _named(part)
        if what and part not in inside and (what in CLAIMS or part not in looked_up):
            found.append((what, None))
    if any(isinstance(part, e.Opaque) for part in parts):
        # Subscripts of jsonb are not modelled; what the policy names anywhere may be named here.
        found += [(what, None) for what in _named_in(policy) if what in CLAIMS]
    return list(dict.fromkeys(found))


@lru_cache(maxsize=65536)
def _named(part: Expression) -> str:
    match part:
        case e.Constant(value=str(value), type="text[]") if value.startswith("\\x") and (found := _inside(value)):
            return found
        case e.Constant(value=str(value)) | e.Setting(name=value) if claim := CLAIM.search(value):
            return claim.group()
        case e.Column(name=name) if name in CLAIMS:
            return name
        case e.Setting(name=name) if _CLIENT.match(name):
            return name
    return ""


def _inside(image: str) -> str:
    """The claim in the stored form of an array of texts, as the server writes it in hexadecimal."""
    try:
        plain = bytes.fromhex(image[2:]).decode("latin-1")
    except ValueError:
        return ""
    claim = re.search("|".join(sorted(CLAIMS)), plain)
    return claim.group() if claim else ""


def _named_in(text: str) -> list[str]:
    """The same, as strings and names of SQL text."""
    found: list[str] = []
    for token in tokens(text):
        if token.kind == "string" and _CLIENT.match(token.text):
            found.append(token.text)
        elif token.kind != "number" and (claim := CLAIM.search(token.text)):
            found.append(claim.group())
    return list(dict.fromkeys(found))
