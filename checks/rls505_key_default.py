"""Defaults of tenant keys that name another tenant than the session's."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._keys import key_of, key_settings

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.policies import default_expression, settings
from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.check import Example, Hit, Subject, check, literal, quote
from rlsaudit.finding import Severity


@check(
    "RLS505",
    title="The tenant key's default does not follow the policies",
    severity="medium",
    rationale=(
        "A default fills the key when a statement leaves it out. One that reads another setting than the policies, or"
        " names one tenant, files rows under a tenant that the session does not act for wherever no policy holds them"
        " back: in jobs, definer functions and imports."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-4", "CWE-1188"),
    examples=(
        Example(
            setup=SOUND,
            bad="ALTER TABLE invoices ALTER tenant_id SET DEFAULT current_setting('app.account', true)::int;",
            good=(
                "ALTER TABLE invoices ALTER tenant_id\n"
                "  SET DEFAULT NULLIF(current_setting('app.tenant_id', true), '')::int;"
            ),
        ),
    ),
)
def key_default(subject: Subject) -> Iterator[Hit]:
    for oid in subject.tenancy.tenant_data():
        relation = subject.catalog.relation(oid)
        key = key_of(subject, relation)
        column = relation.column(key) if key else None
        fit = relation.kind in ("table", "partitioned table") and not relation.is_partition and relation.rls_enabled
        if column is None or not fit or subject.tenancy.of(oid).kind not in ("tenant", "membership"):
            continue
        found = _wrong(subject, relation, column)
        if found is not None:
            detail, severity = found
            yield Hit(
                relation.qualified, detail, _fix(subject, relation, column), severity, relation=relation.qualified
            )


def _wrong(subject: Subject, relation: Relation, column: Column) -> tuple[str, Severity] | None:
    """What the default names instead of the session's tenant."""
    if column.default is None or column.generated or column.identity or column.sequence:
        return None
    expected = key_settings(subject, relation)
    expression = default_expression(subject.catalog, relation, column)
    if expression is None or isinstance(expression, e.Constant):
        if expression is None and column.default.upper().startswith("NULL"):
            return None
        return (
            f"{column.name} of {relation.qualified} defaults to {column.default}: a job or a definer function that leaves it"
            " out files its rows under that one tenant.",
            "low",
        )
    named = settings(expression, subject.catalog)
    if not named or not expected or named & expected:
        return None
    return (
        f"{column.name} of {relation.qualified} defaults to the setting {listed(sorted(named))} while its policies read"
        f" {listed(sorted(expected))}: rows go to the tenant of one where the session acts for that of the other.",
        "medium",
    )


def _fix(subject: Subject, relation: Relation, column: Column) -> str:
    expected = sorted(key_settings(subject, relation))
    start = f"ALTER TABLE {relation.qualified} ALTER COLUMN {quote(column.name)}"
    if len(expected) != 1:
        return f"{start} DROP DEFAULT;"
    return f"{start} SET DEFAULT NULLIF(current_setting({literal(expected[0])}, true), '')::{column.type};"
