"""What to write in the configuration for a relation that could not be given rows.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Relation

_COLUMNS = 3


def advised(catalog: Catalog, failures: Mapping[int, str], checks: Mapping[int, Iterable[str]]) -> dict[int, str]:
    """The failures, each with its remedy; ``checks`` are the names of the CHECKs that no value passed, by relation."""
    return {
        oid: f"{said}; {_remedy(catalog, catalog.relation(oid), set(checks.get(oid, ())))}"
        for oid, said in failures.items()
    }


def _remedy(catalog: Catalog, relation: Relation, failed: set[str]) -> str:
    numbers = {n for c in catalog.constraints_of(relation.oid) if c.name in failed for n in c.columns}
    columns = [column.name for column in relation.columns if column.number in numbers and not column.generated]
    if not columns:
        return "insert its rows under [seed] sql in rlsaudit.toml"
    named = ", ".join(f'"{relation.qualified}.{column}" = [...]' for column in columns[:_COLUMNS])
    return f"write values that fit under [seed.values] in rlsaudit.toml: {named}, or insert its rows under [seed] sql"
