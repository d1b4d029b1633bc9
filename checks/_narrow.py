"""Ways that admit only rows with some particular key."""

from __future__ import annotations

from rlsaudit.checks._binding import Place
from rlsaudit.checks._image import generated_columns, losses, with_columns

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import bare
from rlsaudit.catalog.outcome import Condition, Way
from rlsaudit.catalog.relations import Column
from rlsaudit.catalog.simplify import TRUE, simplify


def narrow(way: Way, place: Place) -> bool:
    """Whether the way admits only rows with some particular key, such as none: of two ordinary keys neither passes."""
    column = place.relation.column(place.key) if place.key else None
    if column is None:
        return False
    return any(_excludes(condition, column, place) for condition in way)


def _excludes(condition: Condition, column: Column, place: Place) -> bool:
    atom = generated_columns(place.catalog, place.relation, condition.atom)
    if e.columns(atom) != {column.name}:
        return False
    if isinstance(atom, e.Compare) and atom.operator == "=" and condition.value is True:
        for side, other in ((atom.left, atom.right), (atom.right, atom.left)):
            if isinstance(bare(other), e.Constant) and losses(side, column.name, place.catalog) is not None:
                return True
    if condition.value is not True:
        return False
    found = [simplify(with_columns(atom, {column.name: one})) for one in _samples(column)]
    return bool(found) and all(isinstance(one, e.Constant) and one != TRUE for one in found)


def _samples(column: Column) -> tuple[e.Constant, ...]:
    texts = {
        "uuid": ("7d3f9a52-4c1e-4b7a-9a63-0f2f5c1d8e91", "c2a41f60-93d8-4e0b-8f15-6b7e2d9c3a04"),
        "text": ("harbor", "q7-windmill"),
        **dict.fromkeys(("smallint", "integer", "bigint"), ("7", "10403")),
    }
    kind = "text" if column.base_type in ("character varying", "character", "name") else column.base_type
    return tuple(e.Constant(text, kind) for text in texts.get(kind, ()))
