"""What constraints say of the tenant key: that no two tenants have keys which a lossy comparison would take for one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from rlsaudit.checks._image import with_columns

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import check_predicate, index_expressions
from rlsaudit.catalog.relations import Column, Relation

_TEXTS = {"text", "character varying", "character", "name"}
_PLACE = e.Opaque("the column")
_PATTERN = re.compile(r"(!?)~ '([^']*)'")


def kept_apart(part: Expression, key: Column, relation: Relation, catalog: Catalog, found: frozenset[str]) -> bool:
    """Whether constraints leave no two tenants that this value takes for one: ``CHECK (slug = lower(slug))``, a unique
    index on lower(slug), here or where foreign keys of the column lead."""
    shape = with_columns(part, {key.name: _PLACE})
    return any(
        _unique(catalog, place, shape) or _constrained(catalog, place, column, part, key.name, found)
        for place, column in origins(catalog, relation, key)
    )


def origins(catalog: Catalog, relation: Relation, column: Column) -> Iterator[tuple[Relation, Column]]:
    """The column, and the columns that its foreign keys refer to, further and further."""
    waiting, seen = [(relation, column)], set()
    while waiting:
        place, one = waiting.pop()
        if (place.oid, one.number) in seen:
            continue
        seen.add((place.oid, one.number))
        yield place, one
        for constraint in catalog.constraints_of(place.oid):
            parent = catalog.find_relation(constraint.referenced) if constraint.kind == "foreign key" else None
            if parent is not None and one.number in constraint.columns and constraint.validated and constraint.enforced:
                target = constraint.referenced_columns[constraint.columns.index(one.number)]
                found = parent.column_number(target)
                if found is not None:
                    waiting.append((parent, found))


def _unique(catalog: Catalog, relation: Relation, shape: Expression) -> bool:
    """A unique index of nothing but this value."""
    for index in catalog.indexes_of(relation.oid):
        if index.unique and index.columns == (0,) and index.predicate is None:
            for one in index_expressions(catalog, index):
                names = e.columns(one)
                if len(names) == 1 and _alike(with_columns(one, dict.fromkeys(names, _PLACE)), shape):
                    return True
    return False


def _alike(one: Expression, other: Expression) -> bool:
    return _bare(one) == _bare(other)


def _bare(part: Expression) -> Expression:
    """Without casts among text types, which index expressions and policies may differ in."""
    if isinstance(part, e.Cast) and part.type in _TEXTS and part.argument.type in {*_TEXTS, "unknown"}:
        return _bare(part.argument)
    if isinstance(part, e.Call):
        return replace(part, arguments=tuple(_bare(one) for one in part.arguments))
    return part


def conjuncts(part: Expression) -> Iterator[Expression]:
    if isinstance(part, e.And):
        for one in part.arguments:
            yield from conjuncts(one)
    else:
        yield part


def _constrained(
    catalog: Catalog, relation: Relation, column: Column, part: Expression, key: str, found: frozenset[str]
) -> bool:
    here = with_columns(part, {key: e.Column(column.name, column.number, 0, column.base_type)})
    if found <= {"case", "spaces"} and any(folded_text(text) for text in column.domain_checks):
        return True
    for constraint in catalog.constraints_of(relation.oid):
        if constraint.kind != "check" or not constraint.validated or not constraint.enforced:
            continue
        said = check_predicate(catalog, constraint)
        for one in conjuncts(said) if said is not None else ():
            if isinstance(one, e.Compare) and one.operator == "=" and _fixed(one, column, here):
                return True
        alone = constraint.columns == (column.number,)
        if alone and found <= {"case", "spaces"} and folded_text(constraint.definition):
            return True
    return False


def _fixed(one: e.Compare, column: Column, here: Expression) -> bool:
    """``column = f(column)`` for the value's own f."""
    for side, other in ((one.left, one.right), (one.right, one.left)):
        inner = e.bare(side)
        if isinstance(inner, e.Column) and inner.name == column.name:
            put = {column.name: _PLACE}
            return _alike(with_columns(other, put), with_columns(here, put))
    return False


def folded_text(definition: str) -> bool:
    """A CHECK that admits letters of one case only: ``VALUE ~ '^[a-z0-9-]+$'``, ``slug !~ '[A-Z]'``."""
    if re.search(r"= (?:lower|upper)\(", definition):
        return True
    if " OR " in definition:
        return False
    for negated, pattern in _PATTERN.findall(definition):
        if negated and any(one in pattern for one in ("A-Z", "a-z", "[:upper:]")):
            return True
        if not negated and pattern.startswith("^") and pattern.endswith("$") and _one_case(pattern):
            return True
    return False


def _one_case(pattern: str) -> bool:
    plain = re.sub(r"\\d|\\[^a-zA-Z]|\{[\d,]+\}", "", pattern)
    if "\\" in plain or "[^" in plain or "[:" in plain or "." in re.sub(r"\[[^\]]*\]", "", plain):
        return False
    return not (re.search("[a-z]", plain) and re.search("[A-Z]", plain))


def longest(catalog: Catalog, relation: Relation, key: Column) -> int:
    """The most characters that the type of the key and CHECK constraints leave to it."""
    found = []
    for place, column in origins(catalog, relation, key):
        found.append(_length(column))
        for constraint in catalog.constraints_of(place.oid):
            said = check_predicate(catalog, constraint) if constraint.validated and constraint.enforced else None
            for one in conjuncts(said) if said is not None else ():
                if isinstance(one, e.Compare) and one.operator in ("<", "<=", "=") and e.columns(one) == {column.name}:
                    length, most = one.left, one.right
                    if isinstance(length, e.Call) and "length" in length.name and isinstance(most, e.Constant):
                        found.append(int(most.value or 0))
    return min(found)


def _length(column: Column) -> int:
    digits = column.type.rpartition("(")[2].rstrip(")")
    return int(digits) if digits.isdigit() else {"uuid": 36, "integer": 11, "bigint": 20}.get(column.base_type, 1 << 30)
