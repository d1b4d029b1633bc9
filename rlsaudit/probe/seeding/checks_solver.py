"""CHECK constraints, solved by the server: it filters candidates with the constraint's own expression."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rlsaudit.catalog.relations import Column, Constraint, Relation
from rlsaudit.probe.seeding import server_side, shapes, values
from rlsaudit.probe.seeding.server_side import Connection, Problem

_COMBINATIONS = 3000
_FILTERED = 240
"""Candidates of one column that its own constraints are tried on."""
_JSON_KEY = re.compile(r"(?:->>?|\?)\s*'((?:[^']|'')+)'")
_WHOLE = re.compile(r"-?\d{1,19}")
_INTEGERS = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}
_QUOTED_NAME = re.compile(r'"((?:[^"]|"")+)"|\b([A-Za-z_][\w$]*)\b')


@dataclass(frozen=True, slots=True)
class Demand:
    """One expression that a row must not make false, and the columns that it names."""

    expression: str
    columns: frozenset[int]


def demand(constraint: Constraint) -> Demand:
    return Demand(constraint.expression or "true", frozenset(constraint.columns))


def demand_of_text(relation: Relation, expression: str) -> Demand:
    """For an expression of which only the text is known, such as a partition's bounds."""
    stripped = re.sub(r"'(?:[^']|'')*'", "''", expression)
    named = {(quoted or bare).replace('""', '"') for quoted, bare in _QUOTED_NAME.findall(stripped)}
    return Demand(expression, frozenset(column.number for column in relation.columns if column.name in named))


def connected(
    relation: Relation, demands: Sequence[Demand], every: Sequence[Demand], fixed: frozenset[str]
) -> list[Demand]:
    """``demands`` and all others that share a column with them which is free to change."""
    free = {column.number for column in relation.columns if column.name not in fixed}
    sharing: dict[int, list[int]] = defaultdict(list)
    for place, other in enumerate(every):
        for number in other.columns & free:
            sharing[number].append(place)
    found = dict.fromkeys(demands)
    waiting = list(found)
    for one in waiting:
        near = sorted({place for number in one.columns & free for place in sharing[number]})
        new = [every[place] for place in near if every[place] not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return list(found)


def satisfying(
    connection: Connection,
    relation: Relation,
    demands: Sequence[Demand],
    pools: Mapping[str, tuple[str | None, ...]],
    word: str,
    number: int,
) -> list[dict[str, str | None]]:
    """Combinations of candidates for which no demand is false, the best first.

    ``pools`` has the candidates of every column that is named, one for a column that may not change.
    """
    found: list[dict[str, str | None]] = []
    for part in _parts(relation, demands, pools):
        solved = _solved(connection, relation, part, pools, word, number)
        if not solved:
            return []
        # Parts have no column in common, so any two of their solutions go together.
        most = max(len(found), len(solved))
        found = [{**found[n % len(found)], **solved[n % len(solved)]} for n in range(most)] if found else solved
    return found


def _parts(
    relation: Relation, demands: Sequence[Demand], pools: Mapping[str, tuple[str | None, ...]]
) -> list[list[Demand]]:
    """Demands that share no column whose value is open can be fulfilled one by one."""
    numbers = {column.number: column.name for column in relation.columns}
    generated = any(column.generated for column in relation.columns)
    parts: list[tuple[set[int], list[Demand]]] = []
    for one in demands:
        free = {n for n in one.columns if generated or len(pools.get(numbers.get(n, ""), ())) != 1}
        joined = [part for part in parts if part[0] & free]
        merged = (set().union(free, *(part[0] for part in joined)), [d for part in joined for d in part[1]] + [one])
        parts = [*(part for part in parts if part not in joined), merged]
    return [part for _, part in parts]


def _solved(
    connection: Connection,
    relation: Relation,
    demands: Sequence[Demand],
    pools: Mapping[str, tuple[str | None, ...]],
    word: str,
    number: int,
) -> list[dict[str, str | None]]:
    expressions = [one.expression for one in demands]
    linked, computed = _linked(relation, demands)
    if not linked:
        return [{}]
    equals = dict(_equalities(expressions, linked))
    filled: dict[str, tuple[str | None, ...]] = {}
    for column in linked:
        pool = pools[column.name]
        if len(pool) > 1:
            # A column by itself is left to the one question that is asked in the end.
            alone = [one.expression for one in demands if one.columns == {column.number}] if len(linked) > 1 else []
            pool = _widened(connection, column, pool, expressions, alone, word, number)
        if not pool:
            return []
        filled[column.name] = pool
    _narrow(filled)
    return server_side.solve(connection, Problem(linked, filled, expressions, computed, equals))


def _linked(relation: Relation, demands: Sequence[Demand]) -> tuple[list[Column], list[Column]]:
    """(columns to choose values for, generated columns that are computed from them)."""
    numbers = {number for one in demands for number in one.columns}
    computed = [column for column in relation.columns if column.number in numbers and column.generated]
    for column in computed:
        numbers |= demand_of_text(relation, column.default or "").columns
    return [c for c in relation.columns if c.number in numbers and not c.generated], computed


def _widened(
    connection: Connection,
    column: Column,
    pool: tuple[str | None, ...],
    expressions: Sequence[str],
    alone: Sequence[str],
    word: str,
    number: int,
) -> tuple[str | None, ...]:
    """The pool with what the expressions ask for; only what the type and the column's own expressions take."""
    mined = [value for expression in expressions for value in values.mine(expression)]
    if column.category == "S":
        extra: list[str] = [*shapes.wanted_text(expressions, word, number), *mined]
    elif column.base_type in ("json", "jsonb"):
        extra = [*_documents(expressions, word), *mined]
    elif column.base_type == "bytea":
        extra = [*shapes.wanted_bytes(expressions, number), *mined]
    else:
        extra = mined
    given = [value for value in (*pool[:6], *extra, *pool[6:]) if value is not None]
    taken = _taken(connection, column, given[:_FILTERED])
    if None in pool:
        taken.append(None)
    if not alone or not taken:
        return tuple(taken)
    solved = server_side.solve(connection, Problem([column], {column.name: tuple(taken)}, alone), _FILTERED)
    return tuple(one[column.name] for one in solved)


def _taken(connection: Connection, column: Column, given: Sequence[str]) -> list[str | None]:
    """What the column's type takes; for numbers and plain text that can be told without asking."""
    if column.base_type in _INTEGERS and column.base_type == column.type:
        limit = _INTEGERS[column.base_type]
        return [v for v in dict.fromkeys(given) if _WHOLE.fullmatch(v) and abs(int(v)) < limit]
    if column.type == "text":
        return [*dict.fromkeys(given)]
    return [*dict.fromkeys(server_side.accepted(connection, column.type, given).values())]


def _narrow(pools: dict[str, tuple[str | None, ...]]) -> None:
    """Cut the pools until their product is small enough, the widest first; NULL stays when it was there."""
    while True:
        product = 1
        for pool in pools.values():
            product *= len(pool)
        widest = max(pools, key=lambda name: len(pools[name]))
        if product <= _COMBINATIONS or len(pools[widest]) <= 2:
            return
        pool, size = pools[widest], max(2, len(pools[widest]) * 3 // 4)
        pools[widest] = (*pool[: size - 1], None) if None in pool else pool[:size]


def _documents(expressions: Sequence[str], word: str) -> Iterator[str]:
    """JSON objects with the keys that the expressions look up."""
    keys = tuple(dict.fromkeys(k.replace("''", "'") for e in expressions for k in _JSON_KEY.findall(e)))
    constants = [v for e in expressions for v in values.mine(e) if v not in keys][:12]
    kinds: list[object] = [word, 1, True, [], {}, [word], {"note": word}, None, *constants]
    for kind in kinds:
        yield json.dumps({"note": word, **dict.fromkeys(keys, kind)})
    for kind in kinds:
        yield json.dumps([kind])
    for number, key in enumerate(keys):
        for kind in kinds:
            # Each key of a kind of its own: the others alternate between text and number.
            others = {other: (word if place % 2 else 1) for place, other in enumerate(keys)}
            yield json.dumps({**others, key: kind})
        yield json.dumps(dict.fromkeys(keys[: number + 1], word))


def _equalities(expressions: Sequence[str], linked: Sequence[Column]) -> Iterator[tuple[str, str]]:
    """(column, expression over other columns that it is held equal to), one per column and none in a circle."""
    used: set[str] = set()
    for expression in expressions:
        for left, right in _sides(expression):
            for column in linked:
                named = {column.name, '"' + column.name.replace('"', '""') + '"'}
                for one, other in ((left, right), (right, left)):
                    bare = re.sub(r"::[\w ]+$", "", one.strip("()")).strip("()")
                    names = {(quoted or plain) for quoted, plain in _QUOTED_NAME.findall(other)}
                    others = {c.name for c in linked} - {column.name}
                    if bare in named and column.name not in names and names & others and not names & used:
                        used.add(column.name)
                        yield column.name, other


def _sides(expression: str) -> Iterator[tuple[str, str]]:
    """The two sides of every ``=`` in the server's fully parenthesised text."""
    for found in re.finditer(r" = ", expression):
        left = _operand(expression[: found.start()], backwards=True)
        right = _operand(expression[found.end() :], backwards=False)
        if left and right:
            yield left, right


def _operand(text: str, *, backwards: bool) -> str:
    """As much of ``text`` next to the operator as is inside the operator's own parentheses."""
    depth, quoted = 0, False
    opening, closing = (")", "(") if backwards else ("(", ")")
    for count, character in enumerate(reversed(text) if backwards else text):
        quoted ^= character == "'"
        if not quoted:
            depth += (character == opening) - (character == closing)
            if depth < 0:
                return text[len(text) - count :] if backwards else text[:count]
    return text
