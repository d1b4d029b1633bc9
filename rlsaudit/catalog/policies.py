"""What policies say, for tenancy inference, checks and the prover: predicates and the settings they read.

All functions are pure and fail closed: what cannot be read is ``Opaque``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Literal

from rlsaudit.catalog.cluster import Publication
from rlsaudit.catalog.expression import Call, Expression, Setting, model, walk
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.names import meant
from rlsaudit.catalog.nodetree import NodeTreeError
from rlsaudit.catalog.relations import Column, Constraint, Index, Policy, Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.catalog.translate import Translator
from rlsaudit.catalog.viewtree import Branch, branches

_SETTING = re.compile(
    r"\bcurrent_setting\s*\(\s*(?:E?'((?:[^']|'')*)'|\$(\w*)\$(.*?)\$\2\$)", re.IGNORECASE | re.DOTALL
)
_NAME = r'("(?:[^"]|"")+"|\b[A-Za-z_]\w*)'
_CALLED = re.compile(rf"(?:{_NAME}\s*\.\s*)?{_NAME}\s*\(")
_CACHE = "_policy_readers"


class _Readers:
    """Per-catalog caches; they live as long as the catalog does."""

    def __init__(self, catalog: Catalog) -> None:
        self.translator = Translator(catalog)
        self.settings: dict[int, frozenset[str]] | None = None
        self.inside: dict[Expression, frozenset[str]] = {}
        self.branches: dict[int, tuple[Branch, ...] | None] = {}


def _readers(catalog: Catalog) -> _Readers:
    # As functools.cached_property does on this frozen class: equal catalogs hold equal caches.
    found = catalog.__dict__.get(_CACHE)
    if not isinstance(found, _Readers):
        found = catalog.__dict__[_CACHE] = _Readers(catalog)
    return found


def policy_predicate(catalog: Catalog, policy: Policy, which: Literal["using", "check"]) -> Expression | None:
    """The policy's USING or WITH CHECK expression, or None when it has none."""
    tree = policy.using_tree if which == "using" else policy.check_tree
    if tree is None:
        return None
    translator = _readers(catalog).translator
    known = translator.cache.get((tree, policy.relation))
    if known is not None:
        return known
    relation = catalog.find_relation(policy.relation)
    return None if relation is None else translator.predicate(tree, relation)


def row_filter(catalog: Catalog, publication: Publication, relation: Relation) -> Expression | None:
    """The condition on the rows of the relation that a publication sends, or None when it sends all."""
    for oid, tree in zip(publication.filtered, publication.filter_trees, strict=False):
        if oid == relation.oid:
            return _readers(catalog).translator.predicate(tree, relation)
    return None


def check_predicate(catalog: Catalog, constraint: Constraint) -> Expression | None:
    """What a CHECK constraint says, or None for one of another kind."""
    relation = catalog.find_relation(constraint.relation)
    if constraint.tree is None or relation is None:
        return None
    return _readers(catalog).translator.predicate(constraint.tree, relation)


def default_expression(catalog: Catalog, relation: Relation, column: Column) -> Expression | None:
    """A column's default or generation expression; None without one and for a constant or nextval."""
    if column.default_tree is None:
        return None
    return _readers(catalog).translator.predicate(column.default_tree, relation)


def index_expressions(catalog: Catalog, index: Index) -> tuple[Expression, ...]:
    """The expressions among an index's columns, in their order; ``Opaque`` where one cannot be read."""
    relation = catalog.find_relation(index.relation)
    if index.expressions_tree is None or relation is None:
        return ()
    return _readers(catalog).translator.expressions(index.expressions_tree, relation)


def index_predicate(catalog: Catalog, index: Index) -> Expression | None:
    """Which rows a partial index covers; None for an index over all rows."""
    relation = catalog.find_relation(index.relation)
    if index.predicate_tree is None or relation is None:
        return None
    return _readers(catalog).translator.predicate(index.predicate_tree, relation)


def view_branches(catalog: Catalog, view: Relation) -> tuple[Branch, ...] | None:
    """What a view or materialized view reads, through views below it and subqueries; None when it cannot be read."""
    readers = _readers(catalog)
    if view.oid not in readers.branches:
        try:
            readers.branches[view.oid] = branches(catalog, readers.translator, view)
        except (NodeTreeError, RecursionError):
            readers.branches[view.oid] = None
    return readers.branches[view.oid]


def settings(expression: Expression, catalog: Catalog) -> frozenset[str]:
    """Names (lower case) of the settings read anywhere in it, in user functions that it calls too."""
    known, asked = _readers(catalog).inside, model(expression)
    found = known.get(asked)
    if found is None:
        names: set[str] = set()
        for part in walk(expression):
            if isinstance(part, Setting):
                names.add(part.name)
            elif isinstance(part, Call) and part.user:
                names |= settings_read(catalog, part.function)
        found = known[asked] = frozenset(names)
    return found


def functions_called(expression: Expression) -> frozenset[int]:
    """OIDs of the user functions that it calls, those inside inlined bodies too."""
    return frozenset(part.function for part in walk(expression) if isinstance(part, Call) and part.user)


def settings_read(catalog: Catalog, function: int) -> frozenset[str]:
    """Names of the settings that a user function reads by ``current_setting('name' …)``, through the
    functions it calls.

    By source text, so a name that is computed is not seen; empty for a built-in.
    """
    readers = _readers(catalog)
    if readers.settings is None:
        readers.settings = _settings_read(catalog)
    return readers.settings.get(function, frozenset())


def _settings_read(catalog: Catalog) -> dict[int, frozenset[str]]:
    """Function → settings, for all that read any: what one reads is read by every caller, so that each name is carried
    from callee to caller once, however long the chains are."""
    callers: dict[int, list[int]] = defaultdict(list)
    reading: dict[str, list[int]] = defaultdict(list)
    for function in catalog.functions:
        for called in _calls(catalog, function):
            callers[called].append(function.oid)
        for quoted, _, dollar in _SETTING.findall(function.source):
            reading[(quoted or dollar).replace("''", "'").lower()].append(function.oid)
    found: dict[int, set[str]] = defaultdict(set)
    for name, waiting in reading.items():
        while waiting:
            oid = waiting.pop()
            if name not in found[oid]:
                found[oid].add(name)
                waiting.extend(callers.get(oid, ()))
    return {oid: frozenset(names) for oid, names in found.items()}


def _calls(catalog: Catalog, function: Function) -> set[int]:
    """What it may call, by recorded dependencies and by name."""
    called = set(catalog.mentions("function", function.oid, "function"))
    for schema, name in set(_CALLED.findall(function.source)):
        named, place = catalog.functions_named(_unquoted(name)), _unquoted(schema)
        # The text may only look like a schema: format('%I.tenant()', …).
        found = meant(catalog, function, named, place if place in named else "")
        called.update(one.oid for one in found)
    return called


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
