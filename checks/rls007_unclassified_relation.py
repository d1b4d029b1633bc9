"""Relations of which nothing says whether they hold tenant data."""

from collections.abc import Iterator

from rlsaudit.checks._copies import evidence, named_as, without_key
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import revoke, said, several, users_of

from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity
from rlsaudit.tenancy import words
from rlsaudit.tenancy.model import ApplicationRole

_TENANT = frozenset({"tenant", "org", "organization", "organisation", "workspace"})
"""Relations that a message names before it only counts them."""


@check(
    "RLS007",
    title="Nothing says whether a relation holds tenant data",
    severity="medium",
    rationale=(
        "What is not classified is not tested. A table that an application role reads, without row security and with a"
        " column that looks like a tenant key under another name, is tenant data more often than not."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.5.12", "NIST 800-53 AC-3"),
    examples=(
        Example(
            setup=SOUND,
            bad="CREATE TABLE found (doc int PRIMARY KEY, org int, words text);\nGRANT SELECT ON found TO app;",
            good="CREATE TABLE accounts (account_id int PRIMARY KEY, label text);\nGRANT SELECT ON accounts TO app;",
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE TABLE attached (no int PRIMARY KEY, invoice_id int, file bytea);\n"
                "GRANT SELECT ON attached TO app;"
            ),
            good="CREATE TABLE units (no int PRIMARY KEY, kind_id int);\nGRANT SELECT ON units TO app;",
        ),
    ),
)
def unclassified_relation(subject: Subject) -> Iterator[Hit]:
    others: dict[str, list[str]] = {}
    for relation in without_key(subject):
        who = users_of(subject, relation)
        if (
            not relation.rls_enabled
            and (parent := _child_of(subject, relation))
            and evidence(subject, relation) is None
        ):
            readers = [one for one in who if "SELECT" in one[1]]
            if readers:
                yield _without_reference(subject, relation, *parent, readers)
                continue
        if subject.tenancy.of(relation.oid).kind != "unclassified" or relation.rls_enabled:
            continue
        if any("SELECT" in commands for _, commands in who) and evidence(subject, relation) is not None:
            continue  # reported as such
        column = _suspect(relation)
        if column is None or not who:
            others.setdefault(relation.schema, []).append(relation.qualified)
            continue
        severity: Severity = "low"
        if _names_a_tenant(column) and _alike(column.base_type, subject.tenancy.key_type):
            severity = "medium" if any("SELECT" in commands for _, commands in who) else "low"
        yield Hit(
            relation.qualified,
            f"{relation.qualified} has no row security and {column.name} looks like a tenant key, but no policy and no"
            f" foreign key says so: if it is one, {said(who)} {'reach' if len(who) > 1 else 'reaches'} the rows of every tenant.",
            "\n".join(revoke(subject, relation, role.oid, commands) for role, commands in who),
            severity,
            relation=relation.qualified,
        )
    for schema, names in others.items():
        yield Hit(
            f"schema {schema}",
            f"No tenant key was found in {several(names)}, which application roles may write: whether tenants share"
            " these rows is for you to say.",
            severity="info",
        )


def _child_of(subject: Subject, relation: Relation) -> tuple[Column, Relation] | None:
    """A column that by name and type refers to a tenant's table, though no foreign key says so."""
    for column in relation.columns:
        for oid in named_as(subject, column.name.removesuffix("_id").removesuffix("Id")):
            parent = subject.catalog.relation(oid)
            key = parent.column("id") or parent.column(column.name)
            if (
                column.name.endswith(("_id", "Id"))
                and subject.tenancy.of(oid).kind == "tenant"
                and key is not None
                and key.base_type == column.base_type
            ):
                return column, parent
    return None


def _without_reference(
    subject: Subject,
    relation: Relation,
    column: Column,
    parent: Relation,
    who: list[tuple[ApplicationRole, tuple[str, ...]]],
) -> Hit:
    return Hit(
        relation.qualified,
        f"{relation.qualified} has no row security and {column.name} looks like a reference to {parent.qualified}, whose"
        f" rows belong to tenants, but no foreign key says so: if it is one, {said(who)}"
        f" {'reach' if len(who) > 1 else 'reaches'} the rows of every tenant.",
        "\n".join(revoke(subject, relation, role.oid, commands) for role, commands in who),
        "medium",
        relation=relation.qualified,
    )


def _suspect(relation: Relation) -> Column | None:
    found = [c for c in relation.columns if words.tenant_like(c.name) or c.name.lower() in _TENANT]
    return min(found, key=lambda column: not _names_a_tenant(column), default=None)


def _names_a_tenant(column: Column) -> bool:
    return words.stem(column.name) in _TENANT or column.name.lower() in _TENANT


def _alike(left: str, right: str) -> bool:
    families = {"smallint": "integer", "bigint": "integer", "character varying": "text"}
    return families.get(left, left) == families.get(right, right)
