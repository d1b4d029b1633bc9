"""Relations on which row security keeps tenants apart."""

from __future__ import annotations

from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Subject, kept


@kept
def guarded(subject: Subject) -> tuple[Relation, ...]:
    """Those that hold rows of tenants and have row security, in catalog order."""
    relations = map(subject.catalog.relation, subject.tenancy.tenant_data())
    return tuple([one for one in relations if one.rls_enabled and one.holds_rows])
