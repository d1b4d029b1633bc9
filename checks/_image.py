"""What a policy makes of the tenant key before it compares it, and whether that keeps two tenants apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, walk
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import default_expression
from rlsaudit.catalog.relations import Relation

_WHOLE = {"smallint", "integer", "bigint", "oid"}
_TEXTS = {"text", "character varying", "character", "name"}
_FLOATS = {"real", "double precision"}
_TIMES = {"timestamp without time zone", "timestamp with time zone"}

_CALLS = {
    "case": "lower upper initcap casefold",
    "spaces": "btrim ltrim rtrim",
    "part": (
        "left right substr substring split_part regexp_replace regexp_substr regexp_match overlay translate replace unaccent"
        " soundex metaphone dmetaphone dmetaphone_alt daitch_mokotoff"
    ),
    "bucket": (
        "% mod & >> / div length char_length character_length octet_length bit_length ascii abs @ sign width_bucket get_byte"
        " bit_count | int4mod int8mod sum scale"
    ),
    "hash": (
        "hashtext hashint2 hashint4 hashint8 hashvarlena hashchar hashname hashbpchar uuid_hash hash_numeric crc32 crc32c"
        " hash_array jsonb_hash hashoid"
    ),
    "rounded": "round trunc ceil ceiling floor date_trunc date_part extract to_char",
}
_LOSSY = {name: kind for kind, names in _CALLS.items() for name in names.split()}
_FAITHFUL = frozenset(
    "md5 sha224 sha256 sha384 sha512 digest hmac encode decode convert_to convert_from reverse quote_literal quote_ident"
    " quote_nullable || textcat anytextcat textanycat concat concat_ws format to_jsonb to_json jsonb_build_array"
    " json_build_array + - # ~ hashtextextended hashint8extended uuid_send int8send int4send".split()
)
_CASTS = frozenset("numeric float4 float8 bpchar date bool int2 int4 int8 text varchar name oid char timestamp".split())
_BODY = re.compile(
    r"\b(lower|upper|initcap|left|right|substr|substring|split_part|regexp_replace|translate|hashtext|crc32|mod|round|trunc"
    r"|length|ascii|soundex)\s*\(|%",
    re.IGNORECASE,
)


def with_columns(part: Expression, put: Mapping[str, Expression]) -> Expression:
    """The expression with columns of the policy's own relation replaced, by name."""
    if isinstance(part, e.Column):
        return put.get(part.name, part) if part.level == 0 else part
    changed: dict[str, object] = {}
    for one in fields(part):
        value = getattr(part, one.name)
        new = _put(value, put)
        if new is not value:
            changed[one.name] = new
    return replace(part, **changed) if changed else part  # type: ignore[arg-type]


def _put(value: object, put: Mapping[str, Expression]) -> object:
    if isinstance(value, Expression):
        return with_columns(value, put)
    if isinstance(value, tuple):
        items = tuple(_put(item, put) for item in value)
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def generated_columns(catalog: Catalog, relation: Relation, part: Expression) -> Expression:
    """The expression with generated columns replaced by what they are computed from."""
    put: dict[str, Expression] = {}
    for one in walk(part):
        if isinstance(one, e.Column) and one.level == 0 and one.generated and one.name not in put:
            column = relation.column(one.name)
            found = default_expression(catalog, relation, column) if column is not None else None
            if found is not None:
                put[one.name] = found
    return with_columns(part, put) if put else part


def losses(part: Expression, key: str, catalog: Catalog) -> frozenset[str] | None:
    """What the way from the key column to this value loses (nothing: the value tells the key); None when the value is
    not made of the key alone or the way is not followed."""
    match part:
        case e.Column(level=0, name=name):
            return frozenset() if name == key else None
        case e.Cast(argument=inner):
            return _and(losses(inner, key, catalog), _cast(inner.type, part.type))
        case e.Coalesce(arguments=arguments):
            return losses(arguments[0], key, catalog)
        case e.NullIf(left=left):
            return losses(left, key, catalog)
        case e.Call(inlined=body) if body is not None:
            return losses(body, key, catalog)
        case e.Call():
            return _call(part, key, catalog)
        case e.Subquery(kind="scalar", relations=(), target=target) if part.plain and target is not None:
            return losses(target, key, catalog)
    return None


def _and(found: frozenset[str] | None, more: str | None) -> frozenset[str] | None:
    if found is None or more is None:
        return None
    return found | {more} if more else found


def _call(part: e.Call, key: str, catalog: Catalog) -> frozenset[str] | None:
    inside = [argument for argument in part.arguments if e.depends_on_row(argument)]
    if len(inside) != 1:
        return None
    found = losses(inside[0], key, catalog)
    if part.name in ("varchar", "bpchar") and len(part.arguments) == 3:
        return _and(found, "truncated")
    if part.name == "*" and not part.user:
        by = next((one for one in part.arguments if isinstance(one, e.Constant)), None)
        return _and(found, "" if by is not None and by.value not in (None, "0") else "bucket")
    if not part.user and len(part.arguments) == 1 and part.name in _CASTS:
        return _and(found, _cast(inside[0].type, part.type))
    kind = _LOSSY.get(part.name)
    if kind == "case" and inside[0].type == "citext":
        kind = ""
    if kind is not None:
        return _and(found, kind)
    if part.name in _FAITHFUL:
        return _and(found, "")
    function = catalog.function(part.function) if part.user else None
    return _and(found, "function" if function is not None and _BODY.search(function.source) else None)


def _cast(source: str, target: str) -> str | None:
    """What a cast loses: nothing is empty, None is not known."""
    if e.bare(e.Cast(e.Constant(None, source), target)) == e.Constant(None, source):
        return ""
    if target == "name":
        return "truncated" if source in _TEXTS else ""
    if target.endswith("citext"):
        return "case"
    if target in _FLOATS:
        return "float" if source in _WHOLE | {"numeric", "double precision"} else "spelling"
    if target == "boolean":
        return "bucket"
    if target == "char":
        return "part"
    if target == "character":
        return "spaces"
    if source in _TEXTS and target not in _TEXTS:
        return "" if target in ("uuid", "bytea") else "spelling"
    if source in {"numeric", *_FLOATS} and target in _WHOLE:
        return "rounded"
    if source in _TIMES and target == "date":
        return "rounded"
    return "" if target in _TEXTS else None


def cut(side: Expression) -> int:
    """The length that a value is cut to."""
    found = [63 for part in walk(side) if isinstance(part, e.Cast) and part.type == "name"]
    for part in walk(side):
        if isinstance(part, e.Call) and part.name in ("varchar", "bpchar") and len(part.arguments) == 3:
            size = part.arguments[1]
            if isinstance(size, e.Constant) and size.value is not None:
                found.append(int(size.value) - 4)
    return min(found, default=0)
