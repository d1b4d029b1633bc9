"""A Catalog as text: saved, read back, told apart from another one; generic over the fields of the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Constraint, Index, Policy, Rule, Trigger
from rlsaudit.errors import UsageError

FORMAT = "rlsaudit-catalog"
VERSION = 1

Decoder = Callable[[Any], Any]
Names = Mapping[str, Mapping[int, str]]

# Fields that say nothing about the meaning of a schema; fields that hold OIDs: of what, or which field says.
_MEANINGLESS = {"oid", "type_oid", "return_type", "estimated_rows", "using_tree", "check_tree", "body_tree"} | {
    "query_tree", "trusted", "default_tree", "expressions_tree", "predicate_tree", "tree", "filter_trees",
}  # fmt: skip
_REFERENCES = {
    **dict.fromkeys(("owner", "role", "roles", "member", "grantee", "creator"), "role"),
    **dict.fromkeys(("relation", "referenced", "parents", "relations", "filtered", "sequence"), "relation"),
    "function": "function",
    "schema": "schema",
    "foreign_server": "foreign server",
    "server": "foreign server",
}
_NO_NAMES: Mapping[int, str] = {}
_KIND_FIELDS = {"object": "target", "source": "source_kind", "target": "target_kind"}


class _MismatchError(Exception):
    """A value that is not what the model says; ``path`` is written from the inside out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path = ""


def save(catalog: Catalog) -> str:
    """``catalog`` as JSON, always in the same order; fields that have their default value are left out."""
    document = {"format": FORMAT, "version": VERSION, "catalog": _encode(catalog)}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def parse(text: str) -> Catalog:
    """The Catalog that ``save`` wrote.  Raises UsageError when the text is anything else, and says where."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the snapshot is not JSON ({error}); save it again from the database") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UsageError(f'the file is not a catalog snapshot (no "format": "{FORMAT}"); save one from the database')
    if document.get("version") != VERSION:
        raise UsageError(
            f"the snapshot has format version {document.get('version')!r} and this rlsaudit reads {VERSION};"
            " save it again from the database"
        )
    try:
        found = _decoder(Catalog)(document.get("catalog"))
    except _MismatchError as error:
        where = f"catalog{error.path}"
        raise UsageError(f"the snapshot is damaged at {where}: {error}; save it again from the database") from error
    assert isinstance(found, Catalog)
    return found


def fingerprint(catalog: Catalog) -> str:
    """SHA-256 over what a schema and its roles mean: equal for two databases made by the same statements.

    Objects count by name.  Left out: the server (but for its major version), OIDs, estimates and expression
    trees, which repeat the text with OIDs and source positions.
    """
    names = names_of(catalog)
    digest = hashlib.sha256(f"{FORMAT} {VERSION} {catalog.server.major}".encode())
    for collection in fields(Catalog):
        items = getattr(catalog, collection.name)
        if isinstance(items, tuple):
            digest.update(f"\n{collection.name}\n".encode())
            digest.update("\n".join(sorted(repr(named(item, names)) for item in items)).encode())
    return digest.hexdigest()


def fingerprints(catalog: Catalog) -> dict[int, str]:
    """Relation OID → a hash of its definition and of what is attached to it: the same for two databases made alike.

    Attached are constraints, indexes, policies and the functions that they call, triggers, rules and privileges.
    """
    names = names_of(catalog)
    attached: dict[int, list[object]] = {relation.oid: [relation] for relation in catalog.relations}
    parts: Iterable[Constraint | Index | Policy | Trigger | Rule]
    parts = (*catalog.constraints, *catalog.indexes, *catalog.policies, *catalog.triggers, *catalog.rules)
    for one in parts:
        attached.setdefault(one.relation, []).append(one)
    for grant in catalog.grants:
        if grant.target in ("relation", "column"):
            attached.setdefault(grant.object, []).append(grant)
    for policy in catalog.policies:
        called = (catalog.function(oid) for oid in catalog.mentions("policy", policy.oid, "function"))
        attached[policy.relation] += [function for function in called if function is not None]
    return {
        oid: hashlib.sha256("\n".join(sorted(repr(named(one, names)) for one in found)).encode()).hexdigest()[:16]
        for oid, found in attached.items()
    }


def names_of(catalog: Catalog) -> Names:
    """What is called how: kind of object → OID → name."""
    relations = {relation.oid: relation.qualified for relation in catalog.relations}

    def attached(items: Iterable[Policy | Trigger | Rule]) -> dict[int, str]:
        return {item.oid: f"{quote(item.name)} ON {relations.get(item.relation, '')}" for item in items}

    return {
        "role": {PUBLIC: "PUBLIC"} | {role.oid: role.name for role in catalog.roles},
        "schema": {schema.oid: schema.name for schema in catalog.schemas},
        "relation": relations,
        "foreign server": {server.oid: server.name for server in catalog.foreign_servers},
        "function": {function.oid: function.signature for function in catalog.functions},
        "policy": attached(catalog.policies),
        "trigger": attached(catalog.triggers),
        "rule": attached(catalog.rules),
    }


def named(item: Any, names: Names) -> tuple[Any, ...]:
    """The values of a dataclass with names in place of OIDs."""
    kind: Any = type(item)
    values: list[Any] = []
    for name, refers, kind_field in _plan(kind):
        value = getattr(item, name)
        refers_to = getattr(item, kind_field) if kind_field else refers
        if type(value) is tuple:
            if refers_to:
                value = sorted(names[refers_to].get(oid, "") for oid in value)
            elif value and is_dataclass(value[0]):
                value = [named(element, names) for element in value]
        elif refers_to and type(value) is int:
            value = names.get(refers_to, _NO_NAMES).get(value, "")
        values.append(value)
    return tuple(values)


@cache
def _plan(kind: Any) -> tuple[tuple[str, str, str], ...]:
    """Fields of a dataclass that count: name, what its OIDs are of, or the field that says what."""
    present = {name for name, _ in _defaults(kind)}
    return tuple(
        (name, _REFERENCES.get(name, ""), field if (field := _KIND_FIELDS.get(name, "")) in present else "")
        for name, _ in _defaults(kind)
        if name not in _MEANINGLESS
    )


def _encode(value: Any) -> Any:
    if is_dataclass(value):
        kept = (field for field in _values(value) if field[2] is MISSING or field[1] != field[2])
        return {name: _encode(item) for name, item, _ in kept}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _encode(value[key]) for key in sorted(value)}
    return value


def _values(item: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, value and default of every field of a dataclass instance."""
    kind: Any = type(item)
    return ((name, getattr(item, name), default) for name, default in _defaults(kind))


@cache
def _defaults(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Names of the fields of a dataclass and their defaults, MISSING where there is none."""
    return tuple((f.name, f.default if f.default_factory is MISSING else f.default_factory()) for f in fields(kind))


@cache
def _decoder(hint: Any) -> Decoder:
    """A function that turns parsed JSON into a value of this type, or raises _MismatchError."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _dataclass_decoder(hint)
    if origin is tuple:
        return _tuple_decoder(_decoder(arguments[0]))
    if origin is Literal:
        return _literal_decoder(frozenset(arguments))
    if origin in (Union, UnionType):
        inner = _decoder(next(argument for argument in arguments if argument is not NoneType))
        return lambda value: None if value is None else inner(value)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping_decoder(_decoder(arguments[1]))
    return _scalar_decoder(hint)


def _scalar_decoder(kind: type) -> Decoder:
    def decode(value: Any) -> Any:
        if type(value) is kind:  # not isinstance: true is no number
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise _MismatchError(f"{kind.__name__} expected, found {_describe(value)}")

    return decode


def _literal_decoder(allowed: frozenset[object]) -> Decoder:
    def decode(value: Any) -> Any:
        if isinstance(value, str) and value in allowed:
            return value
        raise _MismatchError(f"one of {', '.join(sorted(map(repr, allowed)))} expected, found {_describe(value)}")

    return decode


def _tuple_decoder(item: Decoder) -> Decoder:
    def decode(value: Any) -> Any:
        if not isinstance(value, list):
            raise _MismatchError(f"a list expected, found {_describe(value)}")
        found = []
        for position, element in enumerate(value):
            try:
                found.append(item(element))
            except _MismatchError as error:
                error.path = f"[{position}]{error.path}"
                raise
        return tuple(found)

    return decode


def _mapping_decoder(item: Decoder) -> Decoder:
    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _MismatchError(f"an object expected, found {_describe(value)}")
        found = {}
        for key, element in value.items():
            if not (key.isascii() and key.isdigit()):
                raise _MismatchError(f"a number as key expected, found {_describe(key)}")
            found[int(key)] = item(element)
        return found

    return decode


def _dataclass_decoder(kind: Any) -> Decoder:
    hints = get_type_hints(kind)
    decoders = {f.name: _decoder(hints[f.name]) for f in fields(kind)}
    required = {name for name, default in _defaults(kind) if default is MISSING}

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _MismatchError(f"an object expected, found {_describe(value)}")
        if missing := sorted(required - value.keys()):
            raise _MismatchError(f"{missing[0]} is missing")
        found = {}
        for name, element in value.items():
            if name not in decoders:
                raise _MismatchError(f"unknown field {name!r}")
            try:
                found[name] = decoders[name](element)
            except _MismatchError as error:
                error.path = f".{name}{error.path}"
                raise
        return kind(**found)

    return decode


def _describe(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 40 else text[:37] + "..."
