"""``evidence.json``: the only serialised form of a Report, and the way back.

The keys are those of the dataclasses, in their order; ``class_`` is written as ``class`` and every finding
carries its ``fingerprint``.  Readers may meet more keys in a later 1.x file and ignore them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from rlsaudit.errors import UsageError
from rlsaudit.finding import Finding
from rlsaudit.report import SCHEMA_VERSION, Report

__all__ = ["dump", "escaped", "parse", "plain", "read", "written"]

T = TypeVar("T")

_MEND = "render it again with `rlsaudit scan`, or take the file as it was written"
_FARTHEST = 1e12
_EXITS: dict[str, tuple[int, ...]] = {"clean": (0,), "exceptions": (0, 1), "not trustworthy": (3,)}
_KEYS = {"class_": "class"}
# Keys that other programs read come first, in the order of the documentation.
_FIRST = (
    "verdict",
    "exit_code",
    "sentence",
    "reasons",
    "population",
    "population_counted",
    "cells",
    "findings",
)
_LAST = ("waivers", "baseline", "history", "provenance", "timing")


def dump(report: Report) -> str:
    """The report as JSON text, the same bytes for equal reports.

    Characters that do not print (control, bidi, lone surrogates) are written as escapes, so the text is
    always valid UTF-8 and safe to look at.
    """
    names = [field.name for field in fields(report)]
    middle = [name for name in names if name not in _FIRST + _LAST]
    return written({name: plain(getattr(report, name)) for name in (*_FIRST, *middle, *_LAST)})


def written(document: Mapping[str, object]) -> str:
    """A file of rlsaudit as JSON text, the schema's version first."""
    whole = {"schema_version": SCHEMA_VERSION, **document}
    text = json.dumps(whole, ensure_ascii=False, allow_nan=False, indent=1)
    return "\n".join(map(escaped, text.split("\n"))) + "\n"


def parse(text: str, name: str = "evidence.json") -> Report:
    """The report that ``dump`` wrote.

    Raises UsageError, in one line that begins with ``name``, for anything that is not such a file.
    """
    report = read(Report, text, name)
    if report.exit_code not in _EXITS[report.verdict]:
        raise UsageError(f"{name}: exit_code {report.exit_code} does not fit the verdict {report.verdict!r}: {_MEND}")
    return report


def read(kind: type[T], text: str, name: str) -> T:
    """The dataclass ``kind`` out of a file that ``written`` made.  Raises UsageError as ``parse`` does."""
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{name}: not JSON ({reason}): {_MEND}") from None
    if not isinstance(document, dict) or "schema_version" not in document:
        raise UsageError(f"{name}: not an evidence file (no schema_version): give the evidence.json of a run")
    version = document["schema_version"]
    if not isinstance(version, str) or version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise UsageError(
            f"{name}: schema_version {_shown(version)} is not read by this rlsaudit, "
            f"which reads {SCHEMA_VERSION}: use the version of rlsaudit that wrote it"
        )
    try:
        made = _value(kind, document, "")
    except _DamagedError as error:
        raise UsageError(f"{name}: {error}: {_MEND}") from None
    assert isinstance(made, kind)
    return made


class _DamagedError(Exception):
    """A place in the document and what is wrong there."""


def document(value: object) -> dict[str, object]:
    """A dataclass as the object that ``written`` takes.  Raises TypeError for anything else."""
    found = plain(value)
    if not isinstance(found, dict):
        raise TypeError(f"{type(value).__name__} is no dataclass")
    return found


def plain(value: object) -> object:
    """Dataclasses as objects, tuples as lists, all the way down."""
    if is_dataclass(value) and not isinstance(value, type):
        document = {_KEYS.get(f.name, f.name): plain(getattr(value, f.name)) for f in fields(value)}
        if isinstance(value, Finding):
            document["fingerprint"] = value.fingerprint
        return document
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def escaped(line: str) -> str:
    """``line`` with what does not print spelled as JSON does, so that no terminal obeys it."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value")


@cache
def _shape(kind: type) -> tuple[tuple[str, str, Any, bool], ...]:
    """Name, key, type and whether it may be absent, of every field of a dataclass."""
    hints = get_type_hints(kind)
    return tuple(
        (
            f.name,
            _KEYS.get(f.name, f.name),
            hints[f.name],
            f.default is not MISSING or f.default_factory is not MISSING,
        )
        for f in fields(kind)
    )


def _value(kind: Any, value: object, place: str) -> object:
    """``value`` as the annotated type ``kind``; tuples stand in lists, dataclasses in objects."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return _object(kind, value, place)
    if origin is tuple:
        return tuple(_items(arguments, value, place))
    if origin is UnionType:
        return None if value is None else _value(arguments[0], value, place)
    if origin is Literal and not (isinstance(value, str) and value in arguments):
        _wrong(place, f"expected one of {', '.join(map(repr, arguments))}", value)
    if kind is float and type(value) is int and abs(value) < _FARTHEST:
        return float(value)
    if kind is float and type(value) is float and not abs(value) < _FARTHEST:
        _wrong(place, "expected a number that time can be counted in", value)
    if origin is None and type(value) is not kind:
        _wrong(place, f"expected {kind.__name__}", value)
    return value


def _items(arguments: tuple[Any, ...], value: object, place: str) -> Iterator[object]:
    if not isinstance(value, list):
        _wrong(place, "expected a list", value)
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    elif len(value) != len(arguments):
        _wrong(place, f"expected {len(arguments)} items", value)
    for number, (kind, item) in enumerate(zip(arguments, value, strict=True)):
        yield _value(kind, item, f"{place}[{number}]")


def _object(kind: type, value: object, place: str) -> object:
    if not isinstance(value, dict):
        _wrong(place, "expected an object", value)
    arguments = {}
    for name, key, hint, optional in _shape(kind):
        inner = f"{place}.{key}" if place else key
        if key in value:
            arguments[name] = _value(hint, value[key], inner)
        elif not optional:
            raise _DamagedError(f"{inner} is missing")
    made: object = kind(**arguments)
    if isinstance(made, Finding) and value.get("fingerprint") != made.fingerprint:
        raise _DamagedError(f"{place}.fingerprint does not fit the finding, which was changed after it was written")
    return made


def _wrong(place: str, expected: str, value: object) -> NoReturn:
    raise _DamagedError(f"{place}: {expected}, got {_shown(value)}")


def _shown(value: object) -> str:
    """A value in an error line: short, one line, nothing that a terminal would obey."""
    text = re.sub(r"\s+", " ", ascii(value))
    return text if len(text) <= 60 else text[:57] + "..."
