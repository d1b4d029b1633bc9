"""Constraints between tenants' rows that the data need not obey."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._keys import key_of, keyed, names
from rlsaudit.checks._references import tied

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.policies import check_predicate
from rlsaudit.catalog.relations import Constraint, Relation
from rlsaudit.check import Example, Hit, Subject, check, quote

_CARDS = (
    SOUND
    + """\
ALTER TABLE customers ADD UNIQUE (tenant_id, id);
ALTER TABLE invoices ADD customer_id int;
"""
)


@check(
    "RLS504",
    title="A constraint on tenants' rows is not held",
    severity="low",
    rationale=(
        "NOT VALID leaves rows from before as they are, NOT ENFORCED asks nothing of any row. Links between tenants,"
        " or rows without a tenant, may then exist although the schema reads as if they could not."
    ),
    standards=("ISO 27001 A.8.3", "NIST 800-53 SI-10", "CWE-20"),
    examples=(
        Example(
            setup=_CARDS,
            bad=(
                "ALTER TABLE invoices ADD FOREIGN KEY (tenant_id, customer_id) REFERENCES customers (tenant_id, id)\n"
                "  NOT VALID;"
            ),
            good="ALTER TABLE invoices ADD FOREIGN KEY (tenant_id, customer_id) REFERENCES customers (tenant_id, id);",
        ),
        Example(
            setup=_CARDS,
            bad="ALTER TABLE invoices ADD CHECK (tenant_id > 0) NOT VALID;",
            good="ALTER TABLE invoices ADD CHECK (amount > 0) NOT VALID;",
        ),
    ),
)
def constraint_unproven(subject: Subject) -> Iterator[Hit]:
    for oid in subject.tenancy.tenant_data():
        relation = subject.catalog.relation(oid)
        if relation.kind not in ("table", "partitioned table") or relation.is_partition:
            continue
        loose = [one for one in subject.catalog.constraints_of(oid) if _matters(subject, relation, one)]
        if not loose:
            continue
        which = listed(f"{one.name} ({'NOT VALID' if one.enforced else 'NOT ENFORCED'})" for one in loose)
        unchecked = any(not one.enforced for one in loose)
        yield Hit(
            relation.qualified,
            f"{relation.qualified} has {which}: {'any row' if unchecked else 'rows from before'} may break what it says"
            " about whose rows belong together.",
            "\n".join(_fix(relation, one) for one in loose),
            relation=relation.qualified,
        )


def _matters(subject: Subject, relation: Relation, constraint: Constraint) -> bool:
    """Whether it says something about whose a row is."""
    if constraint.validated and constraint.enforced:
        return False
    key = key_of(subject, relation)
    if constraint.kind == "foreign key":
        if not keyed(subject, constraint.referenced):
            return False
        own = key is not None and key in names(relation, constraint.columns)
        step = any(one.constraint == constraint.oid for one in subject.tenancy.of(relation.oid).path[:1])
        return own or step or tied(subject, constraint)
    if constraint.kind == "not null":
        return key in names(relation, constraint.columns)
    predicate = check_predicate(subject.catalog, constraint)
    return predicate is not None and key in e.columns(predicate)


def _fix(relation: Relation, constraint: Constraint) -> str:
    name = quote(constraint.name)
    validate = f"ALTER TABLE {relation.qualified} VALIDATE CONSTRAINT {name};"
    if constraint.enforced:
        return f"-- first repair the rows that break it\n{validate}"
    if constraint.kind == "foreign key":
        return f"-- first repair the rows that break it\nALTER TABLE {relation.qualified} ALTER CONSTRAINT {name} ENFORCED;"
    definition = constraint.definition.replace(" NOT ENFORCED", "").replace(" NOT VALID", "")
    return (
        f"-- first repair the rows that break it\nALTER TABLE {relation.qualified} DROP CONSTRAINT {name},"
        f" ADD CONSTRAINT {name} {definition};"
    )
