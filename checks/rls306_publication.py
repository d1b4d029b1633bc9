"""Publications, which send rows past every policy."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, several

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.cluster import Publication
from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.outcome import Condition, ways
from rlsaudit.catalog.policies import row_filter
from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.tenancy.roles import subscribes


@check(
    "RLS306",
    title="A publication sends every tenant's rows",
    severity="high",
    rationale=(
        "Logical replication does not ask policies. A subscriber to a publication without a row filter gets the rows of"
        " every tenant; publications have no privileges either: every role with REPLICATION may take any of them."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-284"),
    examples=(
        Example(
            setup=SOUND + "CREATE ROLE feed LOGIN REPLICATION;\n",
            bad="CREATE PUBLICATION feed FOR TABLE invoices;",
            good="CREATE PUBLICATION feed FOR TABLE invoices WHERE (tenant_id = 1) WITH (publish = 'insert');",
        ),
        Example(
            setup=SOUND + "CREATE ROLE feed LOGIN REPLICATION;\nALTER TABLE invoices REPLICA IDENTITY FULL;\n",
            bad="CREATE PUBLICATION feed FOR TABLE invoices WHERE (tenant_id = 1 OR amount > 0);",
            good="CREATE PUBLICATION feed FOR TABLE invoices WHERE (amount > 0 AND tenant_id IN (1, 2));",
        ),
        Example(
            setup=SOUND,
            bad="CREATE ROLE feed LOGIN REPLICATION;\nCREATE PUBLICATION everything FOR ALL TABLES;",
            good="CREATE PUBLICATION everything FOR ALL TABLES;",
        ),
    ),
)
def publication(subject: Subject) -> Iterator[Hit]:
    takers = [role for role in subject.catalog.roles if subscribes(role)]
    for one in subject.catalog.publications:
        tenant = [
            relation
            for oid in one.relations
            if (relation := subject.catalog.find_relation(oid)) is not None
            and subject.tenancy.of(oid).tenant_data
            and not _one_tenant(subject, one, relation)
        ]
        if not tenant:
            continue
        names = [relation.qualified for relation in tenant]
        some = several(names)
        sent = f"publication {one.name} sends the rows of every tenant in {some} to whoever subscribes"
        if takers:
            end = f"{listed(role.name for role in takers)} may (REPLICATION), whom policies bind in queries."
        else:
            end = "only superusers and roles that no policy binds may."
        yield Hit(
            f"publication {quote(one.name)}",
            f"{sent}; {end}"[0].upper() + f"{sent}; {end}"[1:],
            _fix(one, tenant),
            "high" if takers else "info",
            relation=names[0],
            role=listed(role.name for role in takers),
        )


def _one_tenant(subject: Subject, one: Publication, relation: Relation) -> bool:
    """Whether a row filter holds the key against constants on every way."""
    condition, classified = row_filter(subject.catalog, one, relation), subject.tenancy.of(relation.oid)
    if condition is None:
        return relation.oid in one.filtered and not one.filter_trees
    keys: set[str | None] = {*classified.path[0].columns} if classified.path else {classified.key}
    found = ways(condition)
    return found is not None and all(any(_names(atom, keys) for atom in way) for way in found)


def _names(condition: Condition, keys: set[str | None]) -> bool:
    if condition.value is not True:
        return False
    return any(
        one.exact and one.operator == "=" and one.column.name in keys and isinstance(e.bare(one.other), e.Constant)
        for one in e.comparisons(condition.atom)
    )


def _fix(one: Publication, tenant: list[Relation]) -> str:
    if one.all_tables:
        return f"DROP PUBLICATION {quote(one.name)};  -- then publish tables one by one, each with a row filter"
    tables = ", ".join(relation.qualified for relation in tenant)
    return f"ALTER PUBLICATION {quote(one.name)} DROP TABLE {tables};  -- then add each with a row filter"
