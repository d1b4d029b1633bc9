"""What translation needs beside the trees: where a node stands, what the server's codes and names mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.nodetree import Node
from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.catalog.routines import Function

# Built-in functions that return NULL for any NULL argument, as far as policies use them.
STRICT = frozenset(
    {
        "abs", "bpchar", "btrim", "decode", "encode", "hashtext", "initcap", "int2mod", "int4mi", "int4mod",
        "int4mul", "int4pl", "int8mi", "int8mod", "int8mul", "int8pl", "json_extract_path",
        "json_extract_path_text", "json_object_field", "json_object_field_text", "jsonb_extract_path",
        "jsonb_extract_path_text", "jsonb_object_field", "jsonb_object_field_text", "left", "length",
        "lower", "ltrim", "md5", "mod", "position", "replace", "reverse", "right", "rtrim", "sha256",
        "split_part", "starts_with", "strpos", "substr", "substring", "text", "textcat", "textpos",
        "translate", "upper", "varchar",
    }
)  # fmt: skip
JSON = ("->", "->>", "#>", "#>>")
CAST_NAMES = ("int2", "int4", "int8", "text", "name", "varchar")
SESSION_ROLES: Mapping[str, Literal["current_user", "session_user"]] = {
    "current_user": "current_user",
    "session_user": "session_user",
}
# SQLValueFunctionOp in src/include/nodes/primnodes.h, the same from 15 to 18.
SQL_VALUE: Mapping[int, Literal["current_user", "session_user"]] = {
    9: "current_user",
    10: "current_user",
    11: "current_user",
    12: "session_user",
}
BOOLEAN_TESTS: tuple[tuple[bool | None, bool], ...] = (
    (True, False), (True, True), (False, False), (False, True), (None, False), (None, True),
)  # fmt: skip
KINDS: Mapping[int, Literal["exists", "all", "any", "scalar", "array"]] = {
    0: "exists",
    1: "all",
    2: "any",
    4: "scalar",
    6: "array",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a node stands: range tables from the policy's relation inward, and what its placeholders mean."""

    tables: tuple[Mapping[int, Relation | None], ...]
    queries: tuple[int, ...] = (0,)
    parameters: tuple[Expression, ...] | None = None
    sublink: tuple[Expression, ...] | None = None
    case_value: Expression | None = None
    inlining: tuple[int, ...] = ()
    definer: bool = False
    depth: int = 0

    @property
    def level(self) -> int:
        return len(self.tables) - 1


def session_role(which: Literal["current_user", "session_user"], definer: bool) -> Expression:
    if definer and which == "current_user":
        return e.Opaque("current_user inside a SECURITY DEFINER function", (), "name", False)
    return e.SessionRole(which)


def copied(relation: Relation, column: Column) -> Column:
    """The column that a generated column copies as it is, or the column itself."""
    source = relation.column((column.default or "").strip("()").strip('"'))
    return source if source is not None and source.base_type == column.base_type else column


def outside(scope: Scope) -> Scope:
    return replace(scope, depth=scope.depth + 1)


def with_depth(node: Node, depth: int) -> Iterator[tuple[Node, int]]:
    """Every node below, with the number of queries between."""
    yield node, depth
    inner = depth + (node.tag == "QUERY")
    for value in node.fields.values():
        for child in [value] if isinstance(value, Node) else _shallow(value):
            yield from with_depth(child, inner)


def _shallow(value: object) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _shallow(item)


def single(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 1


def inlinable(function: Function, arguments: tuple[Expression, ...]) -> bool:
    """One value, no settings of its own that could change what it reads, all arguments given."""
    own_settings = [s for s in function.settings if not s.lower().startswith("search_path=")]
    return (
        function.kind == "function"
        and not function.returns_set
        and not own_settings
        and function.language in ("sql", "plpgsql")
        and len(function.argument_types) == len(arguments)
    )


def inside(scope: Scope, function: Function, arguments: tuple[Expression, ...]) -> Scope:
    """Where the body of a function stands."""
    return replace(
        scope,
        parameters=arguments,
        sublink=None,
        case_value=None,
        inlining=(*scope.inlining, function.oid),
        definer=scope.definer or function.security_definer,
        depth=scope.depth + 1,
    )
