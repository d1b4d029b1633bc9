"""Tenant tables without an index that starts with the tenant key."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import several
from rlsaudit.checks._planner import equalities, expression_indexed, indexed, over_column
from rlsaudit.checks._speed import Filter, at_stake, filters, only

from rlsaudit.catalog import expression as e
from rlsaudit.check import Example, Hit, Subject, check, quote

_BARE = SOUND + "DROP INDEX invoices_tenant_id_idx;\n"


@check(
    "RLS601",
    title="No index starts with the tenant key",
    severity="low",
    rationale=(
        "The policy adds its comparison to every query. Without an index that starts with the key each of them reads"
        " the rows of all tenants, so one tenant's data slows the others down, and how long a query takes tells how"
        " much of it there is."
    ),
    standards=("ISO 27001 A.8.6", "NIST 800-53 SC-5", "CWE-405"),
    examples=(
        Example(
            setup=_BARE,
            bad="CREATE INDEX ON invoices (id, tenant_id);",
            good="CREATE INDEX ON invoices (tenant_id, id);",
        ),
        Example(
            setup=_BARE,
            bad="CREATE INDEX ON invoices (tenant_id) WHERE amount > 0;",
            good="ALTER TABLE invoices DROP CONSTRAINT invoices_pkey, ADD PRIMARY KEY (tenant_id, id);",
        ),
    ),
)
def key_not_indexed(subject: Subject) -> Iterator[Hit]:
    found: dict[str, dict[int, Filter]] = {}
    for one in filters(subject):
        if one.key is not None and _unserved(subject, one):
            found.setdefault(one.key, {})[one.relation.oid] = one
    for key, by_relation in found.items():
        relations = [one.relation for one in by_relation.values()]
        roles = several(role.name for one in by_relation.values() for role in one.roles)
        yield Hit(
            only(relations) or f"indexes on {quote(key)}",
            f"No index starts with {quote(key)} on {several(one.qualified for one in relations)}, so every query of {roles}"
            " reads the rows of all tenants to find its own.",
            "\n".join(f"CREATE INDEX ON {one.qualified} ({quote(key)});" for one in relations),
            at_stake(relations),
            relation=only(relations),
        )


def _unserved(subject: Subject, one: Filter) -> bool:
    """A table whose policy compares the key, and that no index helps to do it.  Partitions count with their table."""
    relation, key = one.relation, one.key
    if key is None or relation.is_partition or relation.kind == "foreign table":
        return False
    if indexed(subject.catalog, relation, key):
        return False
    sides = [side for part in e.walk(one.predicate) for side, _ in equalities(part) if over_column(side, key)]
    return bool(sides) and not any(expression_indexed(subject.catalog, relation, side) for side in sides)
