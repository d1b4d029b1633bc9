"""Privileges that the application may pass on."""

from collections.abc import Iterator
from itertools import chain

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import in_order, listed
from rlsaudit.checks._powers import application, grantees, tables

from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.tenancy.model import ApplicationRole


@check(
    "RLS213",
    title="An application role may pass privileges on",
    severity="low",
    rationale=(
        "With the grant option an application, or whoever injects SQL into it, can give tenant tables to any role or to"
        " PUBLIC, and that stays when the session is gone. Who may use a table is for its owner to say."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-732"),
    examples=(
        Example(
            setup=SOUND,
            bad="GRANT SELECT ON invoices TO app WITH GRANT OPTION;",
            good="CREATE ROLE lead;\nGRANT SELECT ON invoices TO lead WITH GRANT OPTION;",
        ),
    ),
)
def grant_option(subject: Subject) -> Iterator[Hit]:
    given: dict[tuple[int, int], set[str]] = {}
    for grant in chain(subject.catalog.grants_on("relation"), subject.catalog.grants_on("column")):
        if grant.grantable:
            given.setdefault((grant.object, grant.grantee), set()).add(grant.privilege)
    for role in application(subject) if given else ():
        yield from _hits(subject, role, given)


def _hits(subject: Subject, role: ApplicationRole, given: dict[tuple[int, int], set[str]]) -> Iterator[Hit]:
    theirs = grantees(subject, role.oid)
    groups: dict[tuple[str, ...], list[tuple[Relation, int]]] = {}
    for (oid, grantee), privileges in given.items():
        relation = subject.catalog.find_relation(oid)
        if relation is None or relation.kind == "sequence" or not subject.tenancy.of(oid).tenant_data:
            continue
        if grantee in theirs and grantee != relation.owner:
            groups.setdefault(in_order(privileges), []).append((relation, grantee))
    for privileges_held, where in groups.items():
        relations = [relation for relation, _ in where]
        what = ", ".join(privileges_held)
        yield Hit(
            relations[0].qualified,
            f"{role.name} holds {listed(privileges_held)} on {tables(relations)} with the grant option: it can give that"
            " to any other role, and it stays when the session is over.",
            "\n".join(
                f"REVOKE GRANT OPTION FOR {what} ON TABLE {relation.qualified} FROM"
                f" {quote(subject.catalog.role_name(grantee))} CASCADE;"
                for relation, grantee in where
            ),
            relation=relations[0].qualified,
            role=role.name,
            command=listed(privileges_held),
        )
