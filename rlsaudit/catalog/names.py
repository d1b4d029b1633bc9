"""What a name without a schema may stand for in the body of a function."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TypeVar

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.routines import Function

MANY = 8
"""With more of one name than this, a schema has probably been copied for each tenant."""


Object = TypeVar("Object")


def search_path(function: Function) -> tuple[str, ...] | None:
    """The schemas of SET search_path, or None when the caller's path counts."""
    for setting in function.settings:
        name, _, value = setting.partition("=")
        if name.lower() == "search_path":
            return schemas_of(value)
    return None


def schemas_of(value: str) -> tuple[str, ...]:
    """The schemas that a value of ``search_path`` lists, without their quotes."""
    parts = [part.strip() for part in value.split(",")]
    return tuple(p[1:-1].replace('""', '"') if p.startswith('"') else p.lower() for p in parts if p not in ("", '""'))


def meant(
    catalog: Catalog, function: Function, name: Mapping[str, tuple[Object, ...]], schema: str = ""
) -> tuple[Object, ...]:
    """Those of the objects of one name, by schema, that the name may mean in the function's body.

    Without a schema any of them: whoever calls, or what the body runs first, decides on the path.  Of very many only
    those in the schemas of its SET search_path, or beside a function that is itself one of many copies.
    """
    if schema:
        return name.get(schema, ())
    if len(name) > MANY:
        path = search_path(function) or ()
        if any(one in name for one in path) and "$user" not in path and "search_path" not in function.source.lower():
            return tuple(chain.from_iterable(name.get(one, ()) for one in dict.fromkeys(path)))
        if function.schema in name and len(catalog.functions_named(function.name)) > MANY:
            return name[function.schema]
    return tuple(chain.from_iterable(name.values()))
