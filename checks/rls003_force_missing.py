"""Row security that does not bind the owner."""

from collections.abc import Iterator

from rlsaudit.checks._examples import POLICY, ROLES
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._powers import owned_tables, tables

from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check


@check(
    "RLS003",
    title="Row security is not forced on the owner",
    severity="critical",
    rationale=(
        "Without FORCE ROW LEVEL SECURITY no policy binds the table's owner, nor any role that inherits from it. An"
        " application that connects as the owner, or can become it, sees every tenant's rows."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-6", "CWE-284"),
    examples=(
        Example(
            setup=ROLES + "ALTER TABLE invoices ENABLE ROW LEVEL SECURITY;\n" + POLICY,
            bad="GRANT keeper TO app;",
            good="ALTER TABLE invoices FORCE ROW LEVEL SECURITY;\nGRANT keeper TO app;",
        ),
    ),
)
def force_missing(subject: Subject) -> Iterator[Hit]:
    for owner, owned in owned_tables(subject).items():
        unforced = [relation for relation in owned if not relation.rls_forced]
        if unforced:
            yield _hit(subject, owner, unforced)


def _hit(subject: Subject, owner: int, unforced: list[Relation]) -> Hit:
    visibility, name = subject.visibility, subject.catalog.role_name(owner)
    owning = [role.name for role in subject.tenancy.roles if visibility.owns(role.oid, owner)]
    setting = [
        role.name
        for role in subject.tenancy.roles
        if role.name not in owning and owner in visibility.becomes(role.oid)
    ]  # fmt: skip
    ways = []
    if owning:
        ways.append("it is the application's role" if owning == [name] else f"{listed(owning)} has the owner's rights")
    if setting:
        ways.append(f"{listed(setting)} can SET ROLE {name}")
    one = len(unforced) == 1
    if ways:
        detail = (
            f"Row security is not forced on {tables(unforced)}, which {'belongs' if one else 'belong'} to {name}, and"
            f" {' and '.join(ways)}: no policy binds it there."
        )
    else:
        detail = (
            f"No policy binds {name}, who owns {tables(unforced)}; no application role can become it, but views"
            " and SECURITY DEFINER functions of that owner are not bound either."
        )
    return Hit(
        unforced[0].qualified,
        detail,
        "\n".join(f"ALTER TABLE {relation.qualified} FORCE ROW LEVEL SECURITY;" for relation in unforced),
        "critical" if ways else "info",
        relation=unforced[0].qualified,
        role=listed((*owning, *setting)),
    )
