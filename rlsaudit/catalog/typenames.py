"""Names of types as ``format_type`` prints them, for the OIDs that expression trees carry, and decoding of
constants."""

from __future__ import annotations

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
    return Constant("\\x" + datum.hex(), type_name if type_name not in _VARLENA_TEXT else f"bytes of {type_name}")


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
