"""Whose rows one way through a policy admits: those of the session's tenant, of one person, of everybody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from rlsaudit.checks._equal import Equalities, equated, of_session, role_named
from rlsaudit.checks._image import generated_columns, losses
from rlsaudit.checks._inexact import HOW, Key, cut_short, inexactly

from rlsaudit.bulk import made_in_bulk
from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression, bare, walk
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.outcome import MOST_WAYS, Condition, Way, ways
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.tenancy import words
from rlsaudit.tenancy.model import Classified

Kind = Literal["tenant", "shared", "undecided", "inexact", "person", "party", "setting", "role", "gate", "open"]


@dataclass(frozen=True, slots=True)
class Reach:
    """``tenant``: the row is held against the session's tenant.  ``shared``: its key is NULL (``detail``: for whom).  ``undecided``: by
    something this reading does not follow.  ``inexact``: the key is held against the session so that other tenants' keys
    pass (``detail``: how, a key of ``HOW``).  ``person`` and ``party``: another column is held against the session.
    ``setting``, ``role``, ``gate``: any row, while a setting, a role name or a function says so.  ``open``: any row."""

    kind: Kind
    detail: str = ""
    columns: frozenset[str] = frozenset()
    """Columns of the row that are held exactly against the session."""


Reached: TypeAlias = tuple[tuple[Way, Reach], ...]
"""Each way through a predicate, and whose rows it admits."""


@made_in_bulk
@dataclass(frozen=True, slots=True)
class Place:
    """The relation that a policy stands on, as one role meets it."""

    catalog: Catalog
    visibility: Visibility
    relation: Relation
    classified: Classified
    role: int
    principals: frozenset[str]
    parties: frozenset[str] = frozenset()
    """Columns that name a tenant where a row has several: the key among them, sender and receiver, buyer and seller."""

    @property
    def key(self) -> str | None:
        """The tenant key column when the relation itself has it."""
        return None if self.classified.path else self.classified.key

    def is_key(self, column: e.Column) -> bool:
        """Whether it is the key, or a generated column that tells the key."""
        return column.name == self.key or self._told(column) == frozenset()

    def made_of_key(self, column: e.Column) -> bool:
        """Whether it is a generated column that is made of the key, whether or not it still tells the key."""
        return self._told(column) is not None

    def _told(self, column: e.Column) -> frozenset[str] | None:
        if not column.generated or self.key is None:
            return None
        return losses(generated_columns(self.catalog, self.relation, column), self.key, self.catalog)


@dataclass(frozen=True)
class _Facts:
    """What holds on one way, conditions of its subqueries put beside its own; each with its nesting depth."""

    conditions: tuple[tuple[Condition, int], ...] = ()
    subqueries: tuple[e.Subquery, ...] = ()


def reach(way: Way, place: Place) -> Reach:
    """Whose rows the way admits; the weakest of what its subqueries allow."""
    expanded = _expand(way)
    if expanded is None:
        return Reach("undecided", "too many alternatives")
    found = [_reach(facts, place) for facts in expanded]
    order: tuple[Kind, ...] = (
        "open", "gate", "setting", "role", "inexact", "party", "person", "undecided", "shared", "tenant",
    )  # fmt: skip
    return min(found, key=lambda one: order.index(one.kind), default=Reach("tenant"))


def _expand(way: Iterable[Condition], depth: int = 0) -> list[_Facts] | None:
    alternatives = [_Facts()]
    for condition in way:
        atom = condition.atom
        plain = isinstance(atom, e.Subquery) and atom.plain and atom.kind in ("exists", "any")
        if not plain or condition.value is not True:
            alternatives = [replace(f, conditions=(*f.conditions, (condition, depth))) for f in alternatives]
            continue
        assert isinstance(atom, e.Subquery)
        inside = ways(e.And(tuple(part for part in (atom.condition, atom.test) if part is not None)))
        inner = None
        if inside is not None:
            lists = [_expand(one, depth + 1) for one in inside]
            inner = None if None in lists else [facts for one in lists if one for facts in one]
        if inner is None or len(alternatives) * len(inner) > MOST_WAYS:
            return None
        alternatives = [
            _Facts((*f.conditions, *g.conditions), (*f.subqueries, atom, *g.subqueries))
            for f in alternatives
            for g in inner
        ]
    return alternatives


def _reach(facts: _Facts, place: Place) -> Reach:
    equal = Equalities()
    for condition, depth in facts.conditions:
        for left, right in equated(condition):
            equal.join(left, right, depth)
    sources = _anchored(equal, facts, place)
    classes = list(equal.classes().values())
    links: list[str] = []
    others: list[tuple[str, Expression]] = []
    held = frozenset(_held(classes, equal))
    for members in classes:
        anchors = [one for one in members if one in equal.anchors]
        inner = [one for one in members if isinstance(one, e.Column) and one.level > 0]
        bound_inner = [one for one in inner if (one.query, one.source) in sources]
        for column in (one for one in members if isinstance(one, e.Column) and one.level == 0):
            if place.is_key(column) and (anchors or bound_inner):
                how = None if bound_inner else _cut(anchors, place)
                return Reach("inexact", how) if how else Reach("tenant", columns=held)
            if bound_inner:
                if _refers(place, column, bound_inner, facts):
                    return Reach("tenant", columns=held)
                links.append(column.name)
            if not place.made_of_key(column):
                others += [(column.name, anchor) for anchor in anchors if of_session(anchor)]
    if place.key is None and not place.classified.path and others:
        return Reach("tenant", columns=held)
    how = None if others else _inexact(facts, place, sources)
    if how is not None:
        return Reach("inexact", how) if how else Reach("tenant", columns=held)
    return replace(_otherwise(facts, place, links, others), columns=held)


def _cut(anchors: list[Expression], place: Place) -> str | None:
    """How the session's value is changed on the way to the key, when nothing holds the key against it unchanged."""
    column = place.relation.column(place.key) if place.key else None
    if column is None:
        return None
    key = Key(place.catalog, place.relation, column)
    found = [cut_short(anchor, key) for anchor in anchors]
    return found[0] if all(found) else None


def _held(classes: list[list[Expression]], equal: Equalities) -> Iterator[str]:
    """Columns of the row that are equal to something of the session."""
    for members in classes:
        if any(one in equal.anchors and of_session(one) for one in members):
            yield from (one.name for one in members if isinstance(one, e.Column) and one.level == 0)


def _inexact(facts: _Facts, place: Place, sources: set[tuple[int, int]]) -> str | None:
    """How the key is held inexactly against the session on this way: the tightest of its conditions; empty when that
    is enough, None when it is not held at all."""
    column = place.relation.column(place.key) if place.key else None
    if column is None:
        return None
    key = Key(place.catalog, place.relation, column)
    inner = frozenset(
        part
        for condition, _ in facts.conditions
        for part in walk(condition.atom)
        if isinstance(part, e.Column) and part.level > 0 and (part.query, part.source) in sources
    )
    found = [how for one, _ in facts.conditions if (how := inexactly(one, key, inner)) is not None]
    if not found:
        return None
    if "" in found or (found.count("range") == 2 and _pinched(facts)):
        return ""
    return max(found, key=list(HOW).index)


def _pinched(facts: _Facts) -> bool:
    """``key >= x AND key <= x``."""
    atoms = [one.atom for one, _ in facts.conditions if isinstance(one.atom, e.Compare)]
    low = {(one.left, one.right) for one in atoms if one.operator == ">="}
    return any((one.left, one.right) in low for one in atoms if one.operator == "<=")


def _otherwise(facts: _Facts, place: Place, links: list[str], others: list[tuple[str, Expression]]) -> Reach:
    """The reach of a way that does not tie the row to the session's tenant."""
    outer = [condition for condition, depth in facts.conditions if depth == 0]
    for condition in outer:
        if _is_null_key(condition, place):
            gate = _gate(outer)
            return Reach("shared", gate.detail or gate.kind if gate else "")
    if links and place.key and all(name in place.principals or words.user_like(name) for name in links):
        return Reach("person", links[0])
    if links and not _wrong_link(place, facts):
        return Reach("undecided", f"rows are joined by {', '.join(links)}")
    for condition in outer:
        if (name := _elsewhere(condition, place)) is not None:
            return Reach("person" if name in place.principals else "party", name)
    for condition, _ in facts.conditions:
        if _unfollowed(condition, place):
            return Reach("undecided", "a part that is not followed")
    for name, _ in others:
        if name in place.principals:
            return Reach("person", name)
    if others:
        kind: Kind = "undecided" if place.classified.path else "party"
        return Reach(kind, others[0][0])
    return _gate(outer) or Reach("open")


def _gate(conditions: Iterable[Condition]) -> Reach | None:
    for condition in conditions:
        atom = condition.atom
        if e.depends_on_row(atom):
            continue
        parts = tuple(walk(atom))
        if (role := role_named(condition)) is not None:
            return Reach("role", role)
        names = sorted({part.name for part in parts if isinstance(part, e.Setting)})
        if names:
            return Reach("setting", ", ".join(names))
        if any(isinstance(part, (e.SessionRole, e.Call, e.Subquery, e.Opaque)) for part in parts):
            called = next((part.name for part in parts if isinstance(part, e.Call) and part.user), "")
            return Reach("gate", called)
    return None


def _anchored(equal: Equalities, facts: _Facts, place: Place) -> set[tuple[int, int]]:
    """Rows of subqueries (by query and range table index) that are the session's: a column is held against the
    session, row security of the relation itself does it, or they are joined to such rows."""
    links: list[set[tuple[int, int]]] = []
    found: set[tuple[int, int]] = set()
    for members in equal.classes().values():
        columns = [one for one in members if isinstance(one, e.Column) and one.level > 0]
        sources = {(one.query, one.source) for one in columns}
        links.append(sources)
        if any(one in equal.anchors and of_session(one) for one in members):
            found |= sources
        found |= {(one.query, one.source) for one in columns if _protected(one, facts, place)}
    changed = True
    while changed:
        changed = False
        for sources in links:
            if sources & found and not sources <= found:
                found |= sources
                changed = True
    return found


def _protected(column: e.Column, facts: _Facts, place: Place) -> bool:
    """Whether row security of the relation that the column is of binds the role inside the policy."""
    relations = _relations_of(column, facts, place)
    return bool(relations) and all(
        relation.rls_enabled and place.visibility.exempt(place.role, relation) is None for relation in relations
    )


def _relations_of(column: e.Column, facts: _Facts, place: Place) -> list[Relation]:
    found = []
    for subquery in facts.subqueries:
        if subquery.query == column.query:
            relations = (place.catalog.find_relation(oid) for oid in subquery.relations)
            found += [relation for relation in relations if relation is not None and relation.column(column.name)]
    return found


def _refers(place: Place, column: e.Column, inner: list[e.Column], facts: _Facts) -> bool:
    """Whether the column refers to the relation that one of the inner columns is of."""
    if place.classified.path and column.name in place.classified.path[0].columns:
        return True
    targets = {relation.oid for one in inner for relation in _relations_of(one, facts, place)}
    for constraint in place.catalog.constraints_of(place.relation.oid):
        if (
            constraint.kind == "foreign key"
            and constraint.referenced in targets
            and column.number in constraint.columns
        ):
            return True
    return False


def _wrong_link(place: Place, facts: _Facts) -> bool:
    """A foreign key ties the relation to one that a subquery reads, and the subquery joins it by other columns."""
    read = {oid for subquery in facts.subqueries for oid in subquery.relations}
    constraints = place.catalog.constraints_of(place.relation.oid)
    return any(one.kind == "foreign key" and one.referenced in read for one in constraints)


def _is_null_key(condition: Condition, place: Place) -> bool:
    atom = condition.atom
    return (
        condition.value is True
        and isinstance(atom, e.NullTest)
        and atom.is_null
        and isinstance(inner := bare(atom.argument), e.Column)
        and inner.level == 0
        and inner.name == place.key
    )


def _elsewhere(condition: Condition, place: Place) -> str | None:
    """A column other than the key that is held against the session through a function or an operator, such as a field
    of a JSON document."""
    if place.key is None:
        return None
    for left, right in equated(condition):
        for side, other in ((left, right), (right, left)):
            names = e.columns(side)
            followed = not any(
                isinstance(part, (e.Opaque, e.Subquery))
                or (isinstance(part, e.Call) and part.user and part.inlined is None)
                for part in walk(side)
            )
            if names and place.key not in names and followed and not e.depends_on_row(other) and of_session(other):
                generated = generated_columns(place.catalog, place.relation, side)
                return None if place.key in e.columns(generated) else sorted(names)[0]
    return None


def _unfollowed(condition: Condition, place: Place) -> bool:
    """A condition on the row and the session that is no plain equality."""
    atom = condition.atom
    if not e.depends_on_row(atom):
        return False
    parts = tuple(walk(atom))
    if any(isinstance(p, e.Call) and p.user and p.inlined is None and e.depends_on_row(p) for p in parts):
        return True
    if any(isinstance(part, e.Opaque) and e.depends_on_row(part) for part in parts):
        return True
    if isinstance(atom, e.Subquery):
        return not atom.plain or condition.value is not True
    if condition.value is not True and not (isinstance(atom, e.Distinct) and condition.value is False):
        return False
    if isinstance(atom, e.Compare) and atom.operator == "<>" and atom.exact:
        return False
    plain = any(
        e.depends_on_row(left) != e.depends_on_row(right)
        and isinstance(bare(left if e.depends_on_row(left) else right), e.Column)
        for left, right in equated(condition)
    )
    return not plain and any(of_session(part) for part in parts)
