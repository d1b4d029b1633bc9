"""Referential actions that change whose a row is."""

from collections.abc import Iterator

from rlsaudit.checks._examples import TENANT
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._guarded import guarded
from rlsaudit.checks._keys import foreign_keys, key_of, names, writers

from rlsaudit.catalog.relations import Constraint, Relation
from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.finding import SEVERITIES, Severity

_ARTICLES = f"""\
CREATE ROLE app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text);
CREATE TABLE articles (id int PRIMARY KEY, tenant_id int, text text);
ALTER TABLE articles ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON articles USING ({TENANT});
CREATE POLICY shared ON articles FOR SELECT USING (tenant_id IS NULL);
GRANT SELECT, INSERT, UPDATE, DELETE ON articles TO app;
"""


@check(
    "RLS507",
    title="Deleting a referred row takes the tenant key away",
    severity="medium",
    rationale=(
        "ON DELETE SET NULL and SET DEFAULT write the tenant key past every policy. Where a row without a tenant is"
        " shown to all, deleting a tenant publishes its data; with SET DEFAULT it goes to the tenant of the default."
    ),
    standards=("SOC 2 CC6.5", "ISO 27001 A.8.10", "NIST 800-53 AC-4", "CWE-212"),
    examples=(
        Example(
            setup=_ARTICLES,
            bad="ALTER TABLE articles ADD FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE SET NULL;",
            good="ALTER TABLE articles ADD FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE;",
        ),
        Example(
            setup=_ARTICLES + "ALTER TABLE articles ALTER tenant_id SET DEFAULT 1;\n",
            bad="ALTER TABLE articles ADD FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE SET DEFAULT;",
            good="ALTER TABLE articles ADD FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE RESTRICT;",
        ),
    ),
)
def key_emptied(subject: Subject) -> Iterator[Hit]:
    for relation in guarded(subject):
        key = key_of(subject, relation)
        if key is None or relation.is_partition:
            continue
        found = [
            (one, *said)
            for one in foreign_keys(subject, relation)
            if (said := _consequence(subject, relation, key, one))
        ]
        if found:
            worst = min((severity for _, severity, _ in found), key=SEVERITIES.index)
            yield Hit(
                relation.qualified,
                listed(f"{one.name} of {relation.qualified} {said}" for one, _, said in found) + ".",
                "\n".join(_fix(relation, key, one) for one, _, _ in found),
                worst,
                relation=relation.qualified,
            )


def _consequence(subject: Subject, relation: Relation, key: str, constraint: Constraint) -> tuple[Severity, str] | None:
    if constraint.on_delete not in ("SET NULL", "SET DEFAULT") or key not in _written(relation, constraint):
        return None
    parent = subject.catalog.find_relation(constraint.referenced)
    column = relation.column(key)
    if parent is None or column is None or not constraint.enforced:
        return None
    seen = "" if writers(subject, relation) else " (no application role may write the table)"
    if constraint.on_delete == "SET DEFAULT" and column.default is not None:
        return "medium", (
            f"gives rows to the tenant {column.default} when their row of {parent.qualified} is deleted, past every policy"
        )
    if column.not_null:
        return "low", (
            f"would empty {key}, which is NOT NULL: rows of {parent.qualified} that are referred to cannot be deleted"
        )
    if subject.tenancy.of(relation.oid).shared_rows:
        return "medium", (
            f"empties {key} when their row of {parent.qualified} is deleted, and rows without {key} are shown to every"
            f" tenant{seen}"
        )
    return "low", f"empties {key} when their row of {parent.qualified} is deleted, and no tenant sees the rows again"


def _written(relation: Relation, constraint: Constraint) -> tuple[str, ...]:
    """Columns that the action writes: all, or those it lists."""
    marker = f"ON DELETE {constraint.on_delete} ("
    if marker in constraint.definition:
        listing = constraint.definition.partition(marker)[2].partition(")")[0]
        return tuple(name for name in names(relation, constraint.columns) if quote(name) in listing.split(", "))
    return names(relation, constraint.columns)


def _fix(relation: Relation, key: str, constraint: Constraint) -> str:
    """The action for the other columns alone; RESTRICT when the key is the only one."""
    name = quote(constraint.name)
    others = [quote(one) for one in _written(relation, constraint) if one != key]
    instead = f"ON DELETE {constraint.on_delete} ({', '.join(others)})" if others else "ON DELETE RESTRICT"
    before, _, rest = constraint.definition.partition(f"ON DELETE {constraint.on_delete}")
    if rest.startswith(" ("):
        rest = rest.partition(")")[2]
    return f"ALTER TABLE {relation.qualified} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {before}{instead}{rest};"
