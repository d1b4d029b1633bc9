"""Candidate values for a column: each carries its tenant's mark wherever the type has room for one.

Pure.  Nothing here knows whether a value is valid; the server decides that (``seed``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from rlsaudit.catalog.relations import Column

_LENGTH = re.compile(r"\((\d+)(?:,\s*(-?\d+))?\)")
_QUOTED = re.compile(r"'((?:[^']|'')*)'")
_NUMBER = re.compile(r"(?<![\w.'])-?\d+(?:\.\d+)?(?![\w'])")


_OVER = re.compile(
    r"(^|_)(revoked|deleted|removed|disabled|archived|expire[sd]?|ended|left|suspended|banned|blocked|cancell?ed|deactivated"
    r"|closed|terminated|valid_(to|until))(_?(at|on|by|date|time))?$"
)


def usually_empty(column: Column) -> bool:
    """A nullable column that says that a row is over (revoked_at, deleted_at): filled, policies would hide the row."""
    return not column.not_null and column.default is None and bool(_OVER.search(column.name.lower()))


def candidates(
    column: Column, tenant: int, serial: int, mined: tuple[str, ...] = (), *, mined_first: bool = False
) -> tuple[str, ...]:
    """Values to try, the best first: marked ones, then those mined from constraints and policies, then plain ones.

    ``tenant`` (0, 1, 2 …) chooses the band, ``serial`` the place in it; both together never repeat.
    """
    if column.enum_labels:
        shift = serial % len(column.enum_labels)
        named = tuple(label for label in mined if label in column.enum_labels) if mined_first else ()
        return tuple(dict.fromkeys((*named, *column.enum_labels[shift:], *column.enum_labels[:shift])))
    if column.type.endswith("[]"):
        return (*mined, *_array(column, tenant, serial), "{}")
    typed = tuple(_typed(column, tenant, serial))
    words = tuple(v for v in mined if v.replace("_", "").isalpha()) if mined_first and column.category == "S" else ()
    return tuple(dict.fromkeys((*words, *typed, *mined, *_plain(column))))


def fits(column: Column, value: str) -> bool:
    """Whether a constant may stand in the column, as far as its labels or its length say."""
    return value in column.enum_labels if column.enum_labels else column.category != "S" or len(value) <= _room(column)


def known(base_type: str) -> bool:
    """Whether there are candidates of the type's own kind."""
    return _bare(base_type) in _BY_TYPE


def mine(expression: str) -> tuple[str, ...]:
    """Constants that an expression compares with: quoted strings, and numbers with their neighbours."""
    found = [text.replace("''", "'") for text in _QUOTED.findall(expression)]
    for number in _NUMBER.findall(_QUOTED.sub("''", expression)):
        found.append(number)
        if "." not in number:
            found += [str(int(number) + 1), str(int(number) - 1)]
    return tuple(dict.fromkeys(text for text in found if len(text) <= 200))


def _typed(column: Column, tenant: int, serial: int) -> Iterator[str]:
    make = _BY_TYPE.get(_bare(column.base_type))
    if make is not None:
        yield from make(column, tenant, serial)
    elif column.category == "S":
        yield from _text(column, tenant, serial)


def _bare(base_type: str) -> str:
    return _LENGTH.sub("", base_type).strip()


def _room(column: Column) -> int:
    match = _LENGTH.search(column.type) or _LENGTH.search(column.base_type)
    return int(match.group(1)) if match else 10_000


def token(tenant: int, serial: int) -> str:
    """A word that only this tenant's rows contain: ``qa00012x`` of tenant 0."""
    return f"q{chr(97 + tenant % 26)}{serial:05d}x"


def _text(column: Column, tenant: int, serial: int) -> Iterator[str]:
    word, room = token(tenant, serial), _room(column)
    digits = f"{tenant + 1}{serial:06d}"
    shapes = (
        word,
        f"{word}@example.test",
        f"https://{word}.example.test",
        word.upper(),
        digits,
        f"+1{tenant + 1}{serial:09d}",
        f"{word[:4]}-{digits}",
        f"{word}/1.0.0",
        f"#{serial:06x}",
        "".join(chr(97 + int(c)) for c in digits),
        f"{word}-{word}-{word}-{word}",
        f"{tenant + 1:08x}-0000-4000-8000-{serial:012x}",
        f"2031-0{tenant % 9 + 1}-{serial % 28 + 1:02d}T00:00:00Z",
    )
    yield from (shape for shape in shapes if len(shape) <= room)
    short = f"{chr(97 + tenant % 26)}{serial % 10 ** max(1, room - 1)}"[:room]
    yield from dict.fromkeys(
        (short, short.upper(), "".join(chr(65 + (serial // 26**i) % 26) for i in range(min(room, 3))))
    )


def _integer(base: int, width: int) -> Callable[[Column, int, int], Iterator[str]]:
    def make(column: Column, tenant: int, serial: int) -> Iterator[str]:
        yield str(base + tenant * width + serial % width)
        yield from (str(n) for n in (serial % 100 + 1, serial % 10, 0, 1, -1))

    return make


def _numeric(column: Column, tenant: int, serial: int) -> Iterator[str]:
    match = _LENGTH.search(column.type) or _LENGTH.search(column.base_type)
    precision, scale = (int(match.group(1)), int(match.group(2) or 0)) if match else (20, 2)
    whole = precision - scale
    banded = f"{tenant + 1}{serial:06d}"
    if whole >= len(banded):
        yield banded + ("." + f"{serial % 9 + 1}".ljust(scale, "0") if scale > 0 else "")
    if whole <= 0:
        yield f"0.{serial % 10**scale:0{scale}d}"
    yield from (str(serial % 10 ** min(max(whole, 1), 3) or 1), "1", "0", "0.5")


def _date(suffix: str) -> Callable[[Column, int, int], Iterator[str]]:
    def make(column: Column, tenant: int, serial: int) -> Iterator[str]:
        # Own years per tenant, after today: a date that only one tenant's rows have.
        yield f"{2031 + tenant * 3}-{serial // 28 % 12 + 1:02d}-{serial % 28 + 1:02d}{suffix}"
        yield f"{1971 + tenant * 3}-{serial // 28 % 12 + 1:02d}-{serial % 28 + 1:02d}{suffix}"
        yield "2026-01-01" + suffix

    return make


def _time(column: Column, tenant: int, serial: int) -> Iterator[str]:
    yield f"{tenant + 1:02d}:{serial // 60 % 60:02d}:{serial % 60:02d}"


def _range(low: str, high: str) -> Callable[[Column, int, int], Iterator[str]]:
    def make(column: Column, tenant: int, serial: int) -> Iterator[str]:
        year = 2031 + tenant * 3
        number = (tenant + 1) * 1_000_000 + serial * 10
        yield f"[{low.format(year=year, n=number, d=serial % 28 + 1)},{high.format(year=year, n=number + 5, d=serial % 28 + 2)})"

    return make


def _uuid(column: Column, tenant: int, serial: int) -> Iterator[str]:
    yield f"{0xA0 + tenant:02x}{serial:06x}-0000-4000-8000-{serial:012x}"


def _json(column: Column, tenant: int, serial: int) -> Iterator[str]:
    yield f'{{"note": "{token(tenant, serial)}"}}'
    yield from ("{}", "[]", f'"{token(tenant, serial)}"')


def _fixed(*templates: str) -> Callable[[Column, int, int], Iterator[str]]:
    def make(column: Column, tenant: int, serial: int) -> Iterator[str]:
        for template in templates:
            yield template.format(
                t=tenant + 1, w=token(tenant, serial), n=serial, hi=serial // 250 % 250, lo=serial % 250 + 1,
                hex=token(tenant, serial).encode().hex(), bits=f"{(tenant + 1) * 64 + serial % 64:b}"[: _room(column)],
            )  # fmt: skip

    return make


def _boolean(column: Column, tenant: int, serial: int) -> Iterator[str]:
    name = column.name.lower()
    if _OVER.search(name) or "deleted" in name or "locked" in name:
        yield from ("false", "true")
    elif "active" in name or "enabled" in name or "verified" in name or "accepted" in name:
        yield from ("true", "false")
    else:
        yield from ("true", "false") if serial % 2 else ("false", "true")


def _array(column: Column, tenant: int, serial: int) -> Iterator[str]:
    element = column.type.removesuffix("[]")
    make = _BY_TYPE.get(_bare(element))
    if make is not None:
        as_element = Column(column.number, column.name, element, 0, element, "", True, None)
        for value in make(as_element, tenant, serial):
            yield '{"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"}'


def _plain(column: Column) -> Iterator[str]:
    category = column.category
    if category == "N":
        yield from ("1", "2", "5", "10", "50", "100", "1000", "0", "0.5", "-1")
    elif category == "S":
        yield from ("active", "en", "US", "EUR", "a", "A", "1", "admin", "00", "")
    elif category == "B":
        yield from ("true", "false")


_BY_TYPE: dict[str, Callable[[Column, int, int], Iterator[str]]] = {
    "text": _text, "character varying": _text, "character": _text, "name": _text, "citext": _text,
    "smallint": _integer(10_000, 1_000), "integer": _integer(20_000_000, 10_000_000),
    "bigint": _integer(7_000_000_000, 1_000_000_000), "numeric": _numeric,
    "real": _integer(20_000, 10_000), "double precision": _integer(20_000_000, 10_000_000),
    "money": _integer(20_000, 10_000), "oid": _integer(20_000_000, 10_000_000),
    "boolean": _boolean, "uuid": _uuid, "json": _json, "jsonb": _json,
    "date": _date(""), "timestamp without time zone": _date(" 04:05:06"),
    "timestamp with time zone": _date(" 04:05:06+00"), "time without time zone": _time, "time with time zone": _time,
    "interval": _fixed("{n} days {t} hours"), "bytea": _fixed("\\x{hex}"),
    "inet": _fixed("10.{t}.{hi}.{lo}"), "cidr": _fixed("10.{t}.{hi}.{lo}/32"),
    "macaddr": _fixed("0a:00:0{t}:00:{lo:02x}:{hi:02x}"), "macaddr8": _fixed("0a:00:0{t}:ff:fe:00:{lo:02x}:{hi:02x}"),
    "bit": _fixed("{bits}", "1", "0"), "bit varying": _fixed("{bits}", "1"), "tsvector": _fixed("{w}"), "tsquery": _fixed("{w}"),
    "xml": _fixed("<note>{w}</note>"), "point": _fixed("({t},{n})"), "box": _fixed("(({t},{n}),(0,0))"),
    "circle": _fixed("<({t},{n}),1>"), "line": _fixed("{{{t},1,{n}}}"), "lseg": _fixed("[({t},{n}),(0,0)]"),
    "path": _fixed("[({t},{n}),(0,0)]"), "polygon": _fixed("(({t},{n}),(0,0),(1,1))"), "pg_lsn": _fixed("{t:X}/{n:08X}"),
    "int4range": _range("{n}", "{n}"), "int8range": _range("{n}", "{n}"), "numrange": _range("{n}", "{n}"),
    "daterange": _range("{year}-01-{d:02d}", "{year}-01-{d:02d}"),
    "tsrange": _range("{year}-01-{d:02d}", "{year}-01-{d:02d}"),
    "tstzrange": _range("{year}-01-{d:02d} 00:00+00", "{year}-01-{d:02d} 00:00+00"),
    "int4multirange": _fixed("{{[{t}{n:06d},{t}{n:06d}]}}"), "int8multirange": _fixed("{{[{t}{n:06d},{t}{n:06d}]}}"),
    "nummultirange": _fixed("{{[{t}{n:06d},{t}{n:06d}]}}"),
    "jsonpath": _fixed("$.{w}"), "regclass": _fixed("pg_class"), "regrole": _fixed("postgres"),
}  # fmt: skip
