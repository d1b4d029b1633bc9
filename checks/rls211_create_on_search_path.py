"""Schemas in which the application can plant objects that others find by name."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._powers import application, reaches

from rlsaudit.catalog.cluster import Schema
from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.names import schemas_of
from rlsaudit.check import Example, Hit, Subject, check, quote


@check(
    "RLS211",
    title="An application role can plant objects on the search path of others",
    severity="medium",
    rationale=(
        "Whoever may CREATE in a schema that other sessions search can put a function, operator or table there that"
        " their unqualified names then find, and it runs with their rights (CVE-2018-1058). Since PostgreSQL 15 PUBLIC has"
        " no CREATE on public, unless the database was upgraded or somebody granted it."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-426", "CVE-2018-1058"),
    examples=(
        Example(
            setup=SOUND,
            bad="GRANT CREATE ON SCHEMA public TO PUBLIC;",
            good="CREATE SCHEMA scratch;\nGRANT USAGE, CREATE ON SCHEMA scratch TO app;",
        ),
    ),
)
def create_on_search_path(subject: Subject) -> Iterator[Hit]:
    catalog, visibility = subject.catalog, subject.visibility
    searched = _searched(subject)
    for schema in catalog.schemas:
        whose = searched.get(schema.name)
        if whose is None:
            continue
        creators = [
            role
            for role in application(subject)
            if any(visibility.may_create_in(oid, schema.name) for oid in visibility.becomes(role.oid))
            and schema.owner not in reaches(subject, role.oid)
        ]
        if creators:
            yield Hit(
                f"schema {quote(schema.name)}",
                f"{listed(role.name for role in creators)} may CREATE in the schema {schema.name}, which {whose}: an object"
                " of its making can take the place of one that they call without a schema.",
                "\n".join(_revoke(subject, schema, [role.oid for role in creators])),
                role=listed(role.name for role in creators),
            )


def _searched(subject: Subject) -> dict[str, str]:
    """Schemas by name that sessions of others, or functions with others' rights, search."""
    catalog = subject.catalog
    own = {role.oid for role in subject.tenancy.roles}
    found: dict[str, str] = {}
    for function in catalog.functions:
        if function.security_definer and function.owner not in own:
            for setting in function.settings:
                name, _, value = setting.partition("=")
                if name == "search_path":
                    for schema in _schemas(value):
                        found.setdefault(schema, f"the SECURITY DEFINER function {function.qualified} searches")
    for one in catalog.settings:
        if one.name == "search_path" and one.role not in own:
            who = "every session" if one.role == PUBLIC else f"sessions of {catalog.role_name(one.role)}"
            for schema in _schemas(one.value):
                found[schema] = f"{who} search{'es' if one.role == PUBLIC else ''}"
    for schema in _schemas(catalog.parameter("search_path") or '"$user", public'):
        found[schema] = "every session searches that does not say otherwise"
    for role in catalog.roles:
        # "$user" stands for the schema of the role's name.
        if role.login and role.oid not in own and catalog.server.session_role != role.name:
            found.setdefault(role.name, f"sessions of {role.name} search first")
    return found


def _schemas(path: str) -> list[str]:
    return [name for name in schemas_of(path) if name != "$user" and not name.startswith("pg_")]


def _revoke(subject: Subject, schema: Schema, roles: list[int]) -> Iterator[str]:
    theirs = frozenset().union(*(reaches(subject, role) for role in roles)) | {PUBLIC}
    for grant in subject.catalog.grants_on("schema"):
        if (grant.target, grant.object, grant.privilege) == (
            "schema",
            schema.oid,
            "CREATE",
        ) and grant.grantee in theirs:
            name = "PUBLIC" if grant.grantee == PUBLIC else quote(subject.catalog.role_name(grant.grantee))
            yield f"REVOKE CREATE ON SCHEMA {quote(schema.name)} FROM {name};"
