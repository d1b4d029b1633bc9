"""Which relations a leak can hang on, as far as the catalog and the texts of functions say."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Set
from functools import cached_property

from rlsaudit.catalog.model import Catalog
from rlsaudit.probe.ground.leak import Leak


class Near:
    """The relations that a leak is about, those that views, policies, triggers and functions there read or name, and
    beside an interference those that foreign keys tie to it: as a rule all that it takes, and few of a large schema's."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def relations(self, leak: Leak) -> Set[int]:
        relations, functions = {leak.relation, leak.changed}, {leak.function}
        if leak.world:  # what a foreign key tells
            keys = self._catalog.foreign_keys_of(leak.relation)
            relations |= {one.referenced for one in keys}
            relations |= {one.relation for one in self._catalog.references_to(leak.relation)}
        known, called = set[int](), set[int]()
        while relations or functions:
            known |= relations
            called |= functions
            more, further = self._around(relations, functions)
            relations, functions = more - known, further - called
        return known

    def _around(self, relations: Set[int], functions: Set[int]) -> tuple[set[int], set[int]]:
        """(relations, functions) one step further."""
        catalog = self._catalog
        sources = [("relation", oid) for oid in relations] + [("function", oid) for oid in functions]
        sources += [("policy", policy.oid) for oid in relations for policy in catalog.policies_of(oid)]
        read = {found for kind, oid in sources for found in catalog.mentions(kind, oid, "relation")}
        called = {found for kind, oid in sources for found in catalog.mentions(kind, oid, "function")}
        for oid in relations:
            relation = catalog.find_relation(oid)
            read |= {*(relation.parents if relation else ()), *(one.oid for one in catalog.children_of(oid))}
            called |= {trigger.function for trigger in catalog.triggers_of(oid)}
        for oid in functions:
            read |= self._named[oid][0]
            called |= self._named[oid][1]
        return read, called

    @cached_property
    def _named(self) -> dict[int, tuple[set[int], set[int]]]:
        """Function → relations and functions whose names its text holds."""
        relations, functions = defaultdict(set), defaultdict(set)
        for relation in self._catalog.relations:
            relations[relation.name.lower()].add(relation.oid)
        for function in self._catalog.functions:
            functions[function.name.lower()].add(function.oid)
        found: dict[int, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
        for function in self._catalog.functions:
            words = set(re.findall(r"\w+", function.source.lower()))
            found[function.oid] = (
                {oid for word in words & relations.keys() for oid in relations[word]},
                {oid for word in words & functions.keys() for oid in functions[word]},
            )
        return found
