"""Membership in pg_read_all_data and pg_write_all_data."""

from collections.abc import Iterator
from dataclasses import replace

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import several
from rlsaudit.checks._powers import application, leave, reaches, role_object

from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.tenancy.model import ApplicationRole

_GIVES = {"pg_read_all_data": ("SELECT",), "pg_write_all_data": ("INSERT", "UPDATE", "DELETE")}


@check(
    "RLS206",
    title="An application role may use every table of the database",
    severity="high",
    rationale=(
        "pg_read_all_data and pg_write_all_data obey policies, but where there are none they open everything: every"
        " schema, every backup copy, every table that is made tomorrow. Nothing shows it in the tables' own privileges."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.3", "NIST 800-53 AC-6", "CWE-732"),
    examples=(
        Example(
            setup=SOUND + "CREATE SCHEMA backup;\nCREATE TABLE backup.old_notes (id int PRIMARY KEY, body text);\n",
            bad="GRANT pg_read_all_data TO app;",
            good="CREATE ROLE dump LOGIN;\nGRANT pg_read_all_data TO dump;",
        ),
    ),
)
def all_data_role(subject: Subject) -> Iterator[Hit]:
    for name, commands in _GIVES.items():
        power = subject.catalog.role_named(name)
        for role in application(subject):
            if power is not None and power.oid in reaches(subject, role.oid):
                yield _hit(subject, role, power.oid, name, commands)


def _hit(subject: Subject, role: ApplicationRole, power: int, name: str, commands: tuple[str, ...]) -> Hit:
    catalog = subject.catalog
    given = tuple(one for one in catalog.memberships if one.role != power)
    without = Visibility(replace(catalog, memberships=given))
    bare = [
        relation
        for relation in catalog.relations
        if (relation.holds_rows or (relation.kind == "materialized view" and "SELECT" in commands))
        and not relation.rls_enabled
        and not any(without.may(oid, relation, one) for oid in without.becomes(role.oid) for one in commands)
    ]
    closed = [
        schema.name
        for schema in catalog.schemas
        if not any(without.may_use_schema(oid, schema.name) for oid in without.becomes(role.oid))
    ]
    opened = _opened(bare, closed)
    verb = "read" if commands == ("SELECT",) else "write"
    detail = f"{role.name} is a member of {name} and may {verb} every table"
    detail += (
        f": {opened} besides what it was granted, and all that is made there later without row security."
        if opened
        else "; all there are now have row security or were granted to it anyway, one that is made later need not."
    )
    return Hit(
        role_object(role.name),
        detail,
        leave(subject, role.oid, power),
        "high" if opened else "low",
        relation=bare[0].qualified if bare else "",
        role=role.name,
        command=name,
    )


def _opened(bare: list[Relation], closed: list[str]) -> str:
    parts = []
    if bare:
        parts.append(f"{several(relation.qualified for relation in bare)} (no row security)")
    if closed:
        parts.append(f"the schema{'s' if len(closed) > 1 else ''} {several(closed)}")
    return " and ".join(parts)
