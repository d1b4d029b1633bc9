"""Large objects, which no policy protects."""

import re
from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, users_of
from rlsaudit.checks._reading import uses

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.check import Example, Hit, Subject, check

_OF_THE_CATALOG = re.compile(
    r"(^|_)(rel|relation|table|tbl|class|schema|nsp|namespace|type|typ|role|user|proc|func|function|db|database|index|constraint"
    r"|trigger|reg\w*|object|obj|owner|attr|operator|opr|extension|language)_?(oid|id)?$|^(oid|relid|tableoid|classid|objid)$"
)
"""Names of columns that hold the OID of a table, a role and the like."""


@check(
    "RLS305",
    title="Tenant data in large objects",
    severity="high",
    rationale=(
        "A policy protects the row with the number of a large object, not the object. Its numbers are listed in"
        " pg_largeobject_metadata for everybody, and any session of the role that made it may read it with lo_get."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-284"),
    examples=(
        Example(
            setup=SOUND,
            bad=("ALTER TABLE invoices ADD scan oid;"),
            good="ALTER TABLE invoices ADD scan bytea, ADD table_oid oid;",
        ),
    ),
)
def large_objects(subject: Subject) -> Iterator[Hit]:
    if not subject.tenancy.tenant_data():
        return
    for oid in subject.tenancy.tenant_data():
        relation = subject.catalog.relation(oid)
        columns = [column for column in relation.columns if _holds_objects(column)]
        if not columns or not relation.holds_rows or relation.is_partition:
            continue
        who = [role.name for role, _ in users_of(subject, relation)]
        shared = [name for name in who if _shared(subject, name)]
        names = listed(column.name for column in columns)
        if shared:
            why = f"{listed(shared)} acts for every tenant, and large objects belong to the role that makes them"
        elif who and subject.catalog.parameter("lo_compat_privileges") == "on":
            why = "lo_compat_privileges is on, so large objects have no privileges at all"
        else:
            continue
        yield Hit(
            relation.qualified,
            f"{relation.qualified}.{names} refers to large objects, which no policy protects: {why}, so a session of"
            " one tenant can read those of all by their numbers.",
            _fix(relation, columns),
            relation=relation.qualified,
        )
    yield from _owned(subject)


def _owned(subject: Subject) -> Iterator[Hit]:
    """Large objects that exist already, whatever refers to them."""
    counts = {one.owner: one.count for one in subject.catalog.large_objects}
    for role in subject.tenancy.roles:
        if counts.get(role.oid) and _shared(subject, role.name):
            yield Hit(
                f"role {quote(role.name)}",
                f"{counts[role.oid]} large objects belong to {role.name}, which acts for every tenant: any session of it"
                " can list and read them all, whatever policies say.",
                "-- copy their contents into bytea columns of tables that policies protect, then lo_unlink them",
                "high",
                role=role.name,
            )


def _holds_objects(column: Column) -> bool:
    if column.type in ("lo", "public.lo") or column.type.endswith(".lo"):
        return True
    return column.base_type == "oid" and not column.generated and not _OF_THE_CATALOG.search(column.name.lower())


def _shared(subject: Subject, role: str) -> bool:
    """Whether sessions of one role act for several tenants: policies do not tell them by the role's own name."""
    own = [use for use in uses(subject) if use.role.name == role]
    if not own:
        return True
    return any(
        not any(isinstance(part, e.SessionRole) for part in e.walk(use.predicate))
        for use in own
        if use.classified.kind == "tenant"
    )


def _fix(relation: Relation, columns: list[Column]) -> str:
    return "\n".join(
        f"ALTER TABLE {relation.qualified} ALTER COLUMN {quote(column.name)} TYPE bytea USING lo_get({quote(column.name)});"
        for column in columns
    )
