"""Which setting, or which claim in one, the tenant key is held against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from rlsaudit.checks._reading import Shape, Use, one_of_each_reading

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, bare
from rlsaudit.catalog.outcome import Condition, Way
from rlsaudit.catalog.policies import settings_read
from rlsaudit.check import Subject, kept


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """A setting, or a claim (``path``) of the JSON document in it."""

    setting: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.setting + "".join(f" → {step}" for step in self.path)

    @property
    def name(self) -> str:
        return self.path[-1] if self.path else self.setting

    def like(self, other: Source) -> bool:
        """Whether the two may be the same value: a function that is not followed tells no claim."""
        if self.setting != other.setting:
            return False
        return not self.path or not other.path or self.path[-1] == other.path[-1]


def equalities(condition: Condition) -> Iterator[tuple[Expression, Expression]]:
    """Pairs that the condition makes equal."""
    match condition.atom:
        case e.Compare(operator="=") as one if condition.value is True:
            yield one.left, one.right
        case e.Distinct() as one if condition.value is False:
            yield one.left, one.right


def key_values(way: Way, use: Use) -> tuple[Expression, ...]:
    """What the key is held against on this way, in the policy's own conditions."""
    return _values(way, use.place.key)


@lru_cache(maxsize=65536)
def _values(way: Way, key: str | None) -> tuple[Expression, ...]:
    return tuple(_held_against(way, key))


def _held_against(way: Way, key: str | None) -> Iterator[Expression]:
    for condition in way:
        for left, right in equalities(condition):
            for side, other in ((left, right), (right, left)):
                column = bare(side)
                if isinstance(column, e.Column) and column.level == 0 and column.name == key:
                    yield other


def sources(subject: Subject, part: Expression, path: tuple[str, ...] = ()) -> Iterator[Source]:
    """Where the value of an expression comes from."""
    match part:
        case e.Setting(name=name):
            yield Source(name, path)
        case e.SessionRole(which=which):
            yield Source(which)
        case e.Json(document=document, key=key):
            yield from sources(subject, document, (*_steps(key), *path))
        case e.Call(inlined=body) if body is not None:
            yield from sources(subject, body, path)
        case e.Call(user=True, function=function):
            yield from (Source(name, path) for name in sorted(settings_read(subject.catalog, function)))
            for one in part.arguments:
                yield from sources(subject, one)
        case _:
            for child in e.children(part):
                yield from sources(subject, child, path)


def alternatives(part: Expression) -> Iterator[Expression]:
    """The values that an expression can have: the arms of COALESCE and CASE."""
    match part:
        case e.Coalesce(arguments=arguments):
            for one in arguments:
                yield from alternatives(one)
        case e.Case(branches=branches, default=default):
            for one in (*(result for _, result in branches), default):
                yield from alternatives(one)
        case e.NullIf(left=inner) | e.Cast(argument=inner):
            yield from alternatives(inner)
        case e.Call(inlined=body) if body is not None:
            yield from alternatives(body)
        case e.Subquery(kind="scalar", relations=(), target=inner) if part.plain and inner is not None:
            yield from alternatives(inner)
        case _:
            yield part


def _steps(key: Expression) -> tuple[str, ...]:
    inner = bare(key)
    text = inner.value if isinstance(inner, e.Constant) else None
    if text is None:
        return ()
    if text.startswith("{") and text.endswith("}"):
        return tuple(step.strip().strip('"') for step in text[1:-1].split(","))
    return (text,)


@kept
def usual(subject: Subject) -> dict[int, Counter[Source]]:
    """By role: on how many relations the key is held against each source."""
    places: dict[tuple[int, Source], set[int]] = {}
    known: dict[Shape, dict[Source, None]] = {}
    for use in one_of_each_reading(subject):
        shape = use.reading.shape
        if shape not in known:
            values = (value for way, _ in use.reaches for value in key_values(way, use))
            known[shape] = dict.fromkeys(source for value in values for source in sources(subject, value))
        for source in known[shape]:
            places.setdefault((use.role.oid, source), set()).add(use.relation.oid)
    found: dict[int, Counter[Source]] = {}
    for (role, source), relations in places.items():
        found.setdefault(role, Counter())[source] = len(relations)
    return found
