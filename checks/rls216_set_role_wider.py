"""Roles within reach of SET ROLE for whom the policies are wider."""

from collections.abc import Iterator
from dataclasses import replace

from rlsaudit.checks._examples import SOUND, TENANT
from rlsaudit.checks._fixes import policy_name, several
from rlsaudit.checks._openings import Opening, loose_reads, severity_of, trivial
from rlsaudit.checks._powers import application, leave, owned_tables, past_policies, role_object
from rlsaudit.checks._reading import uses

from rlsaudit.catalog.relations import COMMANDS, Relation
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.tenancy.model import ApplicationRole


@check(
    "RLS216",
    title="SET ROLE takes an application role past its policies",
    severity="high",
    rationale=(
        "A member that does not inherit still takes the role by SET ROLE (from 16 on, with the SET option). What that"
        " role sees, its policies and its grants, is then what one SQL injection sees."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-269"),
    examples=(
        Example(
            setup=SOUND
            + "CREATE ROLE support;\nGRANT SELECT ON invoices TO support;\nALTER ROLE app NOINHERIT;\n"
            + "GRANT support TO app;\n",
            bad="CREATE POLICY support ON invoices FOR SELECT TO support USING (true);",
            good=f"CREATE POLICY support ON invoices FOR SELECT TO support USING ({TENANT});",
        ),
        Example(
            setup=SOUND + "CREATE TABLE drafts (id int PRIMARY KEY, tenant_id int NOT NULL);\n"
            "CREATE ROLE support;\nALTER ROLE app NOINHERIT;\nGRANT support TO app;\n",
            bad="GRANT SELECT ON drafts TO support;",
            good="GRANT SELECT ON invoices TO support;",
        ),
    ),
)
def set_role_wider(subject: Subject) -> Iterator[Hit]:
    catalog, visibility, owners = subject.catalog, subject.visibility, owned_tables(subject)
    for role in application(subject):
        held = visibility.inherits(role.oid)
        for target in sorted(visibility.becomes(role.oid) - held):
            other = catalog.role(target)
            # Those are told by the checks of exempt roles, of owners and of the server's own roles.
            if past_policies(other) or other.predefined or target in owners:
                continue
            yield from _hits(subject, role, target)


def _hits(subject: Subject, role: ApplicationRole, target: int) -> Iterator[Hit]:
    name = subject.catalog.role_name(target)
    openings, bare = _openings(subject, role, target), _bare(subject, role, target)
    if not openings and not bare:
        return
    told = []
    if openings:
        places = several(policy_name(one.use.policy, one.use.relation) for one in openings)
        told.append(f"{places} shows it the rows of every tenant")
    if bare:
        told.append(f"it holds privileges on {several(one.qualified for one in bare)} without row security")
    first = openings[0].use.relation if openings else bare[0]
    yield Hit(
        role_object(role.name),
        f"{role.name} can SET ROLE {name}, though it does not inherit from it: there {' and '.join(told)}.",
        leave(subject, role.oid, target),
        relation=first.qualified,
        role=role.name,
        command=f"SET ROLE {quote(name)}",
    )


def _openings(subject: Subject, role: ApplicationRole, target: int) -> list[Opening]:
    """Policies that are open to the target and not to the role itself, one opening of each."""
    name = subject.catalog.role_name(target)
    there = replace(subject.tenancy, roles=(ApplicationRole(target, name, f"within reach of {role.name}"),))
    # What is found for one tenancy is kept with its Visibility.
    found = _loose(replace(subject, tenancy=there, visibility=visibility_of(subject.catalog)))
    own = {one.use.policy.oid for one in _loose(subject) if one.use.role.oid == role.oid}
    return list({one.use.policy.oid: one for one in found if one.use.policy.oid not in own}.values())


def _loose(subject: Subject) -> Iterator[Opening]:
    """Ways to the rows of other tenants that ask for nothing that the session could not bring."""
    for one in loose_reads(subject):
        if one.severity in ("critical", "high"):
            yield one
    for use in uses(subject):
        for way, reach in use.reaches if use.side == "old" else ():
            severity = severity_of(subject, use, reach)
            if reach.kind == "open" and severity and trivial(use, way):
                yield Opening(use, reach, severity)


def _bare(subject: Subject, role: ApplicationRole, target: int) -> list[Relation]:
    """Tenant tables without row security that the target may use and the role itself may not."""
    visibility = subject.visibility
    relations = (subject.catalog.relation(oid) for oid in subject.tenancy.tenant_data())
    return [
        one
        for one in relations
        if one.holds_rows
        and not one.rls_enabled
        and any(
            visibility.may(target, one, command) and not visibility.may(role.oid, one, command)
            for command in COMMANDS
        )
    ]  # fmt: skip
