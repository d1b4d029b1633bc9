"""Sequences that one tenant's session can set for all."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, revoke
from rlsaudit.checks._powers import application, tables

from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.tenancy.model import ApplicationRole


@check(
    "RLS214",
    title="A shared sequence can be set by the application",
    severity="medium",
    rationale=(
        "Sequences have no row security and no transactions. UPDATE on one allows setval(), and a session of one tenant"
        " that sets it back makes the inserts of all others fail on their keys. INSERT needs only USAGE, an identity"
        " column not even that."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.3", "NIST 800-53 AC-6", "CWE-732"),
    examples=(
        Example(
            setup=SOUND + "CREATE SEQUENCE numbers;\n",
            bad="GRANT ALL ON SEQUENCE numbers TO app;",
            good="GRANT USAGE ON SEQUENCE numbers TO app;",
        ),
    ),
)
def sequence_update(subject: Subject) -> Iterator[Hit]:
    visibility = subject.visibility
    schemas = {subject.catalog.relation(oid).schema for oid in subject.tenancy.tenant_data()}
    sequences = [one for one in subject.catalog.relations if one.kind == "sequence" and one.schema in schemas]
    groups: dict[tuple[int, ...], list[ApplicationRole]] = {}
    for role in application(subject):
        found = tuple(
            one.oid
            for one in sequences
            if not visibility.owns(role.oid, one.owner) and visibility.may(role.oid, one, "UPDATE")
        )
        groups.setdefault(found, []).append(role)
    for oids, roles in groups.items():
        if oids:
            yield _hit(subject, [subject.catalog.relation(oid) for oid in oids], roles)


def _hit(subject: Subject, found: list[Relation], roles: list[ApplicationRole]) -> Hit:
    names = listed(role.name for role in roles)
    many = len(found) > 1
    fixes = (revoke(subject, one, role.oid, ("UPDATE",)) for one in found for role in roles)
    return Hit(
        found[0].qualified,
        f"{names} {'holds' if len(roles) == 1 else 'hold'} UPDATE on the sequence{'s' if many else ''} {tables(found)},"
        f" which {'serve' if many else 'serves'} every tenant: setval() in one tenant's session breaks the inserts of the"
        " others.",
        "\n".join(line for line in dict.fromkeys(fixes) if line),
        role=names,
        command="UPDATE",
    )
