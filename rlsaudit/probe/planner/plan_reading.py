"""What a plan in EXPLAIN's JSON says of how a table's rows are found.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from rlsaudit.catalog.expression import columns
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import index_expressions
from rlsaudit.catalog.relations import Index, Relation
from rlsaudit.probe.attacks.relation import Target
from rlsaudit.probe.seeding import plan

Way = Literal["key index", "partition", "no rows", "other index", "whole table", "not planned"]
"""How rows are found.  Only with ``whole table`` all other tenants' rows are read too; an other index may serve a principal's."""


_SCANS = frozenset({"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Tid Scan", "Tid Range Scan"})


def way_of(on: Target, root: Mapping[str, Any]) -> tuple[Way, str]:
    """How the plan below ``root`` finds the rows, and by which indexes."""
    scans = list(_scans(root))
    if not scans:
        return "no rows", "one-time filter"
    leaves = list(plan.leaves(on.catalog, on.relation)) if on.relation.kind == "partitioned table" else []
    used: list[str] = []
    others: list[str] = []
    bare: list[str] = []
    for scan in scans:
        found = list(_indexes(scan))
        if found and all(condition and _of_key(on, one) for one, condition in found):
            used += [one for one, _ in found]
        elif found and all(condition for _, condition in found):
            others += [one for one, _ in found]
        else:
            bare.append(str(scan["Relation Name"]))
    if not bare and not others:
        return "key index", ", ".join(dict.fromkeys(used))
    if leaves and len(scans) < len(leaves):
        return "partition", f"{len(scans)} of {len(leaves)} partitions"
    return ("whole table" if bare else "other index"), ", ".join(dict.fromkeys(bare or (*used, *others)))


def _scans(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Nodes that read tables for the statement itself, not for a subquery of the policy."""
    if node["Node Type"] in _SCANS:
        yield node
        return
    for child in node.get("Plans", ()):
        if child.get("Parent Relationship") not in ("SubPlan", "InitPlan"):
            yield from _scans(child)


def _indexes(scan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(index, what it is searched for) of one scan; empty for an index that is read from end to end."""
    if "Index Name" in scan:
        yield str(scan["Index Name"]), str(scan.get("Index Cond", ""))
    for child in scan.get("Plans", ()):
        if child.get("Parent Relationship") not in ("SubPlan", "InitPlan"):
            yield from _indexes(child)


def _of_key(on: Target, index: str) -> bool:
    key = on.tenant_key
    tables = [on.relation, *plan.leaves(on.catalog, on.relation)]
    return key is not None and any(
        one.name == index and _starts_with(on.catalog, table, one, key)
        for table in tables
        for one in on.catalog.indexes_of(table.oid)
    )


def _starts_with(catalog: Catalog, relation: Relation, index: Index, key: str) -> bool:
    """Whether the index's first column is the key, or an expression over the key alone."""
    column = relation.column(key)
    if column is None:
        return False
    if index.columns[:1] == (0,):
        return any(found == {key} for found in map(columns, index_expressions(catalog, index)[:1]))
    return index.columns[:1] == (column.number,)


def served(catalog: Catalog, relation: Relation, key: str) -> str:
    """The name of an index of the table that starts with the key and covers all rows; empty when there is none."""
    return next(
        (
            one.name
            for one in catalog.indexes_of(relation.oid)
            if one.valid and one.predicate is None and _starts_with(catalog, relation, one, key)
        ),
        "",
    )
