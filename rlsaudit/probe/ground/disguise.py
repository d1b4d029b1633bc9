"""Marks in other forms: what upper, lower, reverse, md5, sha256, encode and their like make of a text.  Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

_ENCODED = re.compile(r"[0-9A-Za-z+/]{8,}={0,2}")


def words(text: str, plain: Iterable[str]) -> Iterator[str]:
    """``plain``, the words of ``text``, and those that an encoding may have made: base64, and hex of a bytea."""
    for word in plain:
        yield word
        if word[0] == "x":
            yield word[1:]
    if any(sign in text for sign in "+/="):
        yield from _ENCODED.findall(text)


def disguises(marks: Mapping[str, str], taken: Collection[str]) -> dict[str, str]:
    """Form → mark, for every form that stands for one owner's marks only and is nobody's own text (``taken``)."""
    found: dict[str, str] = {}
    doubtful = set[str]()
    for mark, owner in marks.items():
        for form in _forms(mark):
            known = found.setdefault(form, mark)
            if form in taken or marks[known] != owner:
                doubtful.add(form)
    return {form: mark for form, mark in found.items() if form not in doubtful and form not in marks}


def _forms(mark: str) -> Iterator[str]:
    encoded = mark.encode()
    for algorithm in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512"):
        yield hashlib.new(algorithm, encoded, usedforsecurity=False).hexdigest()
    if len(mark) < 6 or not (any(c.isdigit() for c in mark) and any(c.isalpha() for c in mark)):
        return  # a number read backwards may well be another one
    yield from (mark.upper(), mark.lower(), mark.capitalize(), mark.title(), mark[::-1], mark[::-1].upper())
    yield encoded.hex()
    yield base64.b64encode(encoded).decode()
    yield base64.b64encode(encoded).decode().rstrip("=")
