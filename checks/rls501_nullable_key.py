"""Tenant keys that rows may leave out."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._keys import filled, key_of

from rlsaudit.check import Example, Hit, Subject, check, quote, remark


@check(
    "RLS501",
    title="A row may have no tenant",
    severity="low",
    rationale=(
        "NULL equals nothing, so a row without its tenant key is shown to no tenant and lost to all of them, and each"
        " policy or function that treats NULL in its own way decides anew whose it is."
    ),
    standards=("ISO 27001 A.8.3", "NIST 800-53 SI-10", "CWE-20"),
    examples=(
        Example(
            setup=SOUND,
            bad="ALTER TABLE invoices ALTER tenant_id DROP NOT NULL;",
            good="ALTER TABLE invoices ALTER tenant_id DROP NOT NULL, ADD CHECK (tenant_id IS NOT NULL AND tenant_id > 0);",
        ),
    ),
)
def nullable_key(subject: Subject) -> Iterator[Hit]:
    for oid in subject.tenancy.tenant_data():
        relation, classified = subject.catalog.relation(oid), subject.tenancy.of(oid)
        key = key_of(subject, relation)
        column = relation.column(key) if key else None
        if column is None or relation.is_partition or relation.kind not in ("table", "partitioned table"):
            continue
        # A policy that says what NULL means makes it part of the design; RLS107 looks at who may write such rows.
        if classified.kind not in ("tenant", "membership") or classified.shared_rows or not relation.rls_enabled:
            continue
        if filled(subject, relation, column):
            continue
        yield Hit(
            relation.qualified,
            f"{column.name} of {relation.qualified} may be NULL, and no policy says whose such a row is: what a job or an"
            " import writes without it is seen by no tenant.",
            f"{remark(f'first give rows without {quote(column.name)} their tenant')}\n"
            f"ALTER TABLE {relation.qualified} ALTER COLUMN {quote(column.name)} SET NOT NULL;",
            relation=relation.qualified,
        )
