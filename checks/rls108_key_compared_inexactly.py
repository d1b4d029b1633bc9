"""A tenant key that is compared so that other keys pass."""

from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED, TENANT
from rlsaudit.checks._fixes import in_order, listed, narrow
from rlsaudit.checks._inexact import HOW
from rlsaudit.checks._openings import Opening, grouped
from rlsaudit.checks._reading import uses_of

from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.finding import Severity

_CONTEXT = "NULLIF(current_setting('app.tenant_id', true), '')"
_SHOPS = """\
CREATE ROLE app LOGIN;
CREATE TABLE shops (slug text PRIMARY KEY);
CREATE TABLE orders (id int PRIMARY KEY, shop text NOT NULL REFERENCES shops, total int);
CREATE TABLE baskets (id int PRIMARY KEY, shop text NOT NULL REFERENCES shops);
ALTER TABLE shops ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE baskets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY shop ON shops USING (slug = current_setting('app.shop'));
CREATE POLICY shop ON baskets USING (shop = current_setting('app.shop'));
GRANT SELECT ON shops TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON orders, baskets TO app;
"""


@check(
    "RLS108",
    title="The tenant key is compared inexactly",
    severity="critical",
    rationale=(
        "A policy must hold the tenant key itself against the session's tenant by the equality of its type. A prefix, a"
        " pattern, letters folded, a bucket, a hash or a cast that loses digits lets one tenant's session pass for"
        " another's: tenant 1 reads the rows of tenant 11."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-697"),
    examples=(
        Example(
            setup=PROTECTED,
            bad=f"CREATE POLICY tenant ON invoices USING (tenant_id::text LIKE {_CONTEXT} || '%');",
            good=f"CREATE POLICY tenant ON invoices USING (tenant_id::text = {_CONTEXT});",
        ),
        Example(
            setup=PROTECTED,
            bad=f"CREATE POLICY tenant ON invoices USING (tenant_id % 16 = {_CONTEXT}::int % 16);",
            good=f"CREATE POLICY tenant ON invoices USING (tenant_id % 16 = {_CONTEXT}::int % 16 AND {TENANT});",
        ),
        Example(
            setup=_SHOPS,
            bad="CREATE POLICY shop ON orders USING (lower(shop) = lower(current_setting('app.shop')));",
            good=(
                "ALTER TABLE shops ADD CHECK (slug = lower(slug));\n"
                "CREATE POLICY shop ON orders USING (lower(shop) = lower(current_setting('app.shop')));"
            ),
        ),
    ),
)
def key_compared_inexactly(subject: Subject) -> Iterator[Hit]:
    openings = [
        Opening(use, found, _severity(use.classified.kind, found.detail))
        for use in uses_of(subject, "inexact")
        for _, found in use.reaches
        if found.kind == "inexact"
    ]
    causes: dict[tuple[int, str], list[Hit]] = {}
    for group in grouped(openings):
        relation, worst = group.relation, group.first
        change = narrow(
            subject, relation, worst.use.classified, group.policy, using=True, check=group.policy.check is not None
        )
        hit = Hit(
            quote(group.policy.name),
            HOW[worst.reach.detail][1].format(key=worst.use.place.key),
            change,
            worst.severity,
            relation=relation.qualified,
            command=group.commands,
            role=group.roles,
        )
        causes.setdefault((relation.oid, worst.reach.detail), []).append(hit)
    for hits in causes.values():
        yield _together(hits)


def _severity(kind: str, how: str) -> Severity:
    severity = HOW[how][0]
    return "high" if severity == "critical" and kind in ("registry", "principal") else severity


def _together(hits: list[Hit]) -> Hit:
    """The policies of one table that compare in the same way."""
    first = hits[0]
    commands = in_order({command for hit in hits for command in hit.command.replace(" and ", ", ").split(", ")})
    noun, verb = ("policy", "compares") if len(hits) == 1 else ("policies", "compare")
    names = listed(hit.object for hit in hits)
    return Hit(
        f"{noun} {names} on {first.relation}",
        f"The {noun} {names} on {first.relation} {verb} the key inexactly with the session's tenant: {first.detail}"
        f" ({listed(commands)} as {first.role}).",
        "\n".join(hit.fix for hit in hits),
        first.severity,
        relation=first.relation,
        command=listed(commands),
        role=first.role,
    )
