"""Names of types as ``format_type`` prints them, for the OIDs that expression trees carry, and decoding of
constants."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from uuid import UUID

from rlsaudit.catalog.expression import Constant
from rlsaudit.catalog.identifiers import qualified
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.nodetree import Node, NodeTreeError

FIRST_USER_OID = 16384
"""Objects below this were made by initdb and have the meaning the manual gives them."""

_PRINTED = {
    "bool": "boolean", "int2": "smallint", "int4": "integer", "int8": "bigint",
    "varchar": "character varying", "bpchar": "character", "float4": "real", "float8": "double precision",
    "timestamptz": "timestamp with time zone", "timestamp": "timestamp without time zone",
    "timetz": "time with time zone", "time": "time without time zone", "bit": "bit",
    "varbit": "bit varying", "unknown": "text",
}  # fmt: skip

_BUILT_IN = {
    16: "boolean", 18: "char", 19: "name", 20: "bigint", 21: "smallint", 23: "integer", 25: "text",
    26: "oid", 114: "json", 700: "real", 701: "double precision", 705: "text", 1042: "character",
    1043: "character varying", 1082: "date", 1114: "timestamp without time zone",
    1184: "timestamp with time zone", 1700: "numeric", 2205: "regclass", 2950: "uuid", 3802: "jsonb",
    869: "inet", 17: "bytea",
}  # fmt: skip

_BYTES = {"smallint": 2, "integer": 4, "bigint": 8, "oid": 4}
_VARLENA_TEXT = ("text", "character varying")


class TypeNames:
    """Base type names by OID, domains resolved where a column of the catalog uses them."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.columns = {c.type_oid: c.base_type for r in catalog.relations for c in r.columns}

    def name(self, oid: int) -> str:
        if oid in _BUILT_IN:
            return _BUILT_IN[oid]
        if oid in self.columns:
            return self.columns[oid]
        symbol = self.catalog.symbol_types.get(oid)
        if symbol is None:
            return f"type {oid}"
        if symbol.schema != "pg_catalog":
            return qualified(symbol.schema, symbol.name)
        if symbol.name.startswith("_"):
            return _PRINTED.get(symbol.name[1:], symbol.name[1:]) + "[]"
        return _PRINTED.get(symbol.name, symbol.name)


def constant(node: Node, type_name: str) -> Constant:
    """A CONST node's value; a type that is not decoded gives its bytes in hexadecimal.  Raises
    NodeTreeError."""
    if node.flag("constisnull"):
        return Constant(None, type_name)
    datum = node.get("constvalue")
    if not isinstance(datum, bytes):
        raise NodeTreeError("constant without a datum")
    if type_name == "boolean":
        return Constant("true" if any(datum) else "false", type_name)
    if type_name in _BYTES:
        return Constant(_integer(datum, type_name), type_name)
    if type_name == "uuid" and len(datum) == 16:
        text = datum.hex()
        return Constant("-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])), type_name)
    content = None
    if type_name in _VARLENA_TEXT:
        content = datum.rstrip(b"\0") if node.integer("constlen") == -2 else _varlena(datum)
    elif type_name == "name":
        content = datum.rstrip(b"\0")
    if content is not None:
        try:
            return Constant(content.decode(), type_name)
        except UnicodeDecodeError:
            pass  # another server encoding: the bytes still tell two constants apart
    if type_name.endswith("[]") and (items := elements(node, type_name)) is not None:
        return Constant(
            "{" + ",".join("NULL" if one.value is None else _quoted(one.value) for one in items) + "}", type_name
        )
    return Constant("\\x" + datum.hex(), type_name if type_name not in _VARLENA_TEXT else f"bytes of {type_name}")


def _quoted(text: str) -> str:
    """An element as ``array_out`` prints it when it must quote it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_HEADER = struct.Struct("<iiI")
"""``ndim``, ``dataoffset`` and ``elemtype`` of an ArrayType (src/include/utils/array.h), behind the varlena's length."""
_ELEMENTS = {"smallint": 2, "integer": 4, "bigint": 8, "oid": 4, "uuid": 16, "name": 64, "boolean": 1}


def elements(node: Node, type_name: str) -> tuple[Constant, ...] | None:
    """The elements of an array constant of one dimension; None when its type is not decoded or it is no plain list."""
    element, datum = type_name.removesuffix("[]"), node.get("constvalue")
    size = _ELEMENTS.get(element, 0)
    if not isinstance(datum, bytes) or not (size or element in _VARLENA_TEXT):
        return None
    try:
        data = bytes(4) + _varlena(datum)  # offsets count from the start of the length
        dimensions, offset, _ = _HEADER.unpack_from(data, 4)
        if dimensions != 1:
            return () if dimensions == 0 else None
        count, lower = struct.unpack_from("<ii", data, 16)
        if lower != 1:
            return None
        present = data[24 : 24 + (count + 7) // 8] if offset else b"\xff" * count
        return tuple(_elements(data, offset or 24, element, size, [present[i // 8] >> i % 8 & 1 for i in range(count)]))
    except (struct.error, IndexError, UnicodeDecodeError, NodeTreeError):
        return None


def _elements(data: bytes, position: int, element: str, size: int, present: list[int]) -> Iterator[Constant]:
    align = {"uuid": 1, "name": 1, "boolean": 1}.get(element, size or 4)
    for one in present:
        if not one:
            yield Constant(None, element)
            continue
        position += -position % align
        length = size or struct.unpack_from("<I", data, position)[0] >> 2
        raw = data[position : position + length]
        if not length or len(raw) != length:
            raise NodeTreeError("an array that ends early")
        position += length
        if element in _BYTES:
            text = str(int.from_bytes(raw, "little", signed=element != "oid"))
        elif element == "boolean":
            text = "true" if raw[0] else "false"
        else:
            text = str(UUID(bytes=raw)) if element == "uuid" else (raw if size else raw[4:]).rstrip(b"\0").decode()
        yield Constant(text, element)


def _integer(datum: bytes, type_name: str) -> str:
    number = int.from_bytes(datum[: _BYTES[type_name]], "little", signed=type_name != "oid")
    # A by-value datum is a sign-extended word; on a big-endian server the check fails and nothing is claimed.
    if len(datum) != 8 or int.from_bytes(datum, "little", signed=True) not in (number, number & 0xFFFFFFFF):
        raise NodeTreeError("integer constant of an unknown byte order")
    return str(number)


def _varlena(datum: bytes) -> bytes:
    if datum and datum[0] & 1 and datum[0] >> 1 == len(datum):
        return datum[1:]
    if len(datum) >= 4 and int.from_bytes(datum[:4], "little") >> 2 == len(datum) and not datum[0] & 3:
        return datum[4:]
    raise NodeTreeError("compressed or foreign varlena")
