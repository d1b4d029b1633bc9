"""Tenant keys that the comparisons of this schema's policies take for one: equal hashes, equal beginnings.

The hashes are PostgreSQL's own, the same on every version since 8.4 and on every little-endian machine.
"""

from __future__ import annotations

from typing import Literal

from rlsaudit.catalog.expression import Call, Cast, model, walk
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import policy_predicate

_CUTTING = frozenset(
    {"substr", "substring", "left", "varchar", "bpchar", "rpad", "lpad", "split_part", "regexp_replace"}
)
_ALTERING = {
    "btrim": "trim",
    "rtrim": "trim",
    "replace": "replace",
    "translate": "replace",
    "regexp_replace": "replace",
}
_TREES: tuple[Literal["using", "check"], ...] = ("using", "check")
_NUMBERS = ("smallint", "integer", "bigint", "numeric")
_ALIKE = {
    ("text", "hash"): ("org6201", "org108812"),
    ("uuid", "hash"): ("a0000000-0000-4000-8000-0000000031fd", "a0000000-0000-4000-8000-00000000897d"),
    ("uuid", "uuid_hash"): ("a0000000-0000-4000-8000-0000000053ed", "a0000000-0000-4000-8000-000000027d6d"),
    ("integer", "hash"): ("40704", "122335"),
    ("integer", "hashint"): ("77964", "131003"),
    ("text", "trim"): ("acme-7", "acme-7 "),
    ("text", "replace"): ("acme-71", "ac-me71"),
    ("text", "cut"): tuple(
        f"tenant-with-a-name-that-is-longer-than-an-identifier-of-this-server-may-be-{n}" for n in "12"
    ),
}


def lookalikes(catalog: Catalog, key_type: str) -> tuple[str, ...]:
    """Two keys of the type for each sloppy comparison that some policy makes."""
    kind = "integer" if key_type in _NUMBERS else "uuid" if key_type == "uuid" else "text"
    predicates = (policy_predicate(catalog, policy, which) for policy in catalog.policies for which in _TREES)
    # Those of tables that look alike are copies of one.
    different = dict.fromkeys(model(predicate) for predicate in predicates if predicate is not None)
    ways = (_way(part) for predicate in different for part in walk(predicate))
    found = (one for way in ways for one in _ALIKE.get((kind, way), ()))
    return tuple(dict.fromkeys(found))


def _way(part: object) -> str:
    match part:
        case Cast(type="name"):
            return "cut"
        case Call(user=False, name=name):
            if name in _CUTTING:
                return "cut"
            if name in _ALTERING:
                return _ALTERING[name]
            return name if name == "uuid_hash" else "hashint" if name.startswith("hashint") else name[:4]
    return ""
