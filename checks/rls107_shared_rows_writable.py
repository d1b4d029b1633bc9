"""Rows without a tenant that a tenant may write."""

from collections.abc import Iterator

from rlsaudit.checks._examples import TENANT
from rlsaudit.checks._fixes import narrow, policy_name
from rlsaudit.checks._openings import Opening, grouped
from rlsaudit.checks._reading import uses_of

from rlsaudit.check import Example, Hit, Subject, check, quote

_ARTICLES = """\
CREATE ROLE app LOGIN;
CREATE TABLE articles (id int PRIMARY KEY, tenant_id int, text text);
ALTER TABLE articles ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON articles TO app;
"""


@check(
    "RLS107",
    title="Rows shared by all tenants can be written by each of them",
    severity="high",
    rationale=(
        "Rows without a tenant are there for all to read. Where the same condition also admits INSERT, UPDATE or DELETE,"
        " a tenant can delete them, capture them by setting its own key, or publish text to all others."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-639"),
    examples=(
        Example(
            setup=_ARTICLES,
            bad=f"CREATE POLICY tenant ON articles FOR ALL USING (tenant_id IS NULL OR {TENANT});",
            good=(
                f"CREATE POLICY tenant ON articles FOR ALL USING ({TENANT});\n"
                f"CREATE POLICY shared ON articles FOR SELECT USING (tenant_id IS NULL OR {TENANT});"
            ),
        ),
    ),
)
def shared_rows_writable(subject: Subject) -> Iterator[Hit]:
    openings = (
        Opening(use, reach, "high")
        for use in uses_of(subject, "shared")
        if use.command != "SELECT"
        for way, reach in use.reaches
        if reach.kind == "shared" and not reach.detail
    )
    for group in grouped(openings):
        relation, use = group.relation, group.first.use
        yield Hit(
            policy_name(group.policy, relation),
            f"The policy lets {group.roles} {group.commands} rows of {relation.qualified} whose {use.place.key} is NULL,"
            " which all tenants share.",
            _split(
                subject,
                group.policy.command,
                group.openings,
                narrow(
                    subject, relation, use.classified, group.policy, using=True, check=group.policy.check is not None
                ),
            ),
            group.first.severity,
            relation=relation.qualified,
            command=group.commands,
            role=group.roles,
        )


def _split(subject: Subject, command: str, openings: tuple[Opening, ...], narrowed: str) -> str:
    """Narrowing a policy for ALL takes the shared rows from readers too; they get a policy of their own."""
    use = openings[0].use
    if command != "ALL" or use.policy.using is None or narrowed.startswith("DROP"):
        return narrowed
    name, roles = quote(f"{use.policy.name}_read"[:63]), ""
    if 0 not in use.policy.roles:
        roles = " TO " + ", ".join(quote(subject.catalog.role_name(oid)) for oid in use.policy.roles)
    return f"{narrowed}\nCREATE POLICY {name} ON {use.relation.qualified} FOR SELECT{roles} USING ({use.policy.using});"
