"""Tenant tables that are granted to everybody."""

from collections.abc import Iterator
from itertools import chain

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import in_order, listed
from rlsaudit.checks._guarded import guarded
from rlsaudit.checks._powers import tables

from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.relations import COMMANDS, Relation
from rlsaudit.check import Example, Hit, Subject, check


@check(
    "RLS212",
    title="A tenant table is granted to PUBLIC",
    severity="low",
    rationale=(
        "What PUBLIC holds, every role holds, those that are made tomorrow for a report or a partner too. Policies still"
        " bind them, but nothing else does, and REVOKE from a role takes nothing away."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.3", "NIST 800-53 AC-6", "CWE-732"),
    examples=(
        Example(
            setup=SOUND,
            bad="GRANT SELECT ON invoices TO PUBLIC;",
            good="CREATE ROLE reports;\nGRANT SELECT ON invoices TO reports;",
        ),
    ),
)
def public_grant(subject: Subject) -> Iterator[Hit]:
    held: dict[int, set[str]] = {}
    for grant in chain(subject.catalog.grants_on("relation"), subject.catalog.grants_on("column")):
        if grant.grantee == PUBLIC and grant.privilege in COMMANDS:
            held.setdefault(grant.object, set()).add(grant.privilege)
    groups: dict[tuple[str, ...], list[Relation]] = {}
    for relation in guarded(subject):
        if relation.oid in held:
            groups.setdefault(in_order(held[relation.oid]), []).append(relation)
    for commands, where in groups.items():
        yield Hit(
            where[0].qualified,
            f"PUBLIC holds {listed(commands)} on {tables(where)}: every role that can connect has it, made for the"
            " application or not, and only the policies stand before the rows.",
            "\n".join(f"REVOKE {', '.join(commands)} ON TABLE {one.qualified} FROM PUBLIC;" for one in where),
            relation=where[0].qualified,
            role="PUBLIC",
            command=listed(commands),
        )
