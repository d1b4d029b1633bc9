"""Owners of schemas can drop what others keep in them."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import several
from rlsaudit.checks._powers import application, how, leave, reaches

from rlsaudit.catalog.cluster import Schema
from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.tenancy.model import ApplicationRole


@check(
    "RLS210",
    title="An application role owns a schema with tenant tables",
    severity="high",
    rationale=(
        "The owner of a schema may drop any table, view or function in it, whoever owns that, and put another in its"
        " place, without row security. The owner of the database has this for the schema public."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-250"),
    examples=(
        Example(
            setup=SOUND + "CREATE SCHEMA desk;\nALTER TABLE invoices SET SCHEMA desk;\n",
            bad="ALTER SCHEMA desk OWNER TO app;",
            good="ALTER SCHEMA desk OWNER TO keeper;\nCREATE SCHEMA scratch AUTHORIZATION app;",
        ),
    ),
)
def application_owns_schema(subject: Subject) -> Iterator[Hit]:
    catalog = subject.catalog
    holding: dict[str, list[Relation]] = {}
    for oid in subject.tenancy.tenant_data():
        relation = catalog.relation(oid)
        holding.setdefault(relation.schema, []).append(relation)
    for role in application(subject):
        reached = reaches(subject, role.oid)
        for schema in catalog.schemas:
            # What it owns itself is told by the check of table owners.
            others = [one for one in holding.get(schema.name, ()) if one.owner not in reached]
            if schema.owner in reached and others:
                yield _hit(subject, role, schema, others)


def _hit(subject: Subject, role: ApplicationRole, schema: Schema, others: list[Relation]) -> Hit:
    owner = subject.catalog.role_name(schema.owner)
    implicit = owner == "pg_database_owner"
    through = f", which belongs to the owner of the database ({owner})" if implicit else ""
    tables = several(relation.qualified for relation in others)
    new = _keeper(subject, others)
    if schema.owner == role.oid or implicit:
        fix = f"ALTER SCHEMA {quote(schema.name)} OWNER TO {quote(new)};"
        if schema.owner == role.oid:
            fix += f"\nGRANT USAGE ON SCHEMA {quote(schema.name)} TO {quote(role.name)};"
    else:
        fix = leave(subject, role.oid, schema.owner)
    return Hit(
        f"schema {quote(schema.name)}",
        f"{how(subject, role, schema.owner)} owns the schema {schema.name}{through}, so it can drop {tables} with the"
        " rows of every tenant, though others own them.",
        fix,
        relation=others[0].qualified,
        role=role.name,
    )


def _keeper(subject: Subject, others: list[Relation]) -> str:
    """The owner of most of the tables in it."""
    owners = [relation.owner for relation in others]
    return subject.catalog.role_name(max(dict.fromkeys(owners), key=owners.count))
