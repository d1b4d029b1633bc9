"""Ways through a policy that only those take whom a list of operators names."""

from __future__ import annotations

from rlsaudit.checks._reading import Use
from rlsaudit.checks._trust import Trusted, trusted

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.outcome import Way
from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Subject


def operators(subject: Subject, use: Use, way: Way) -> tuple[Relation, ...]:
    """The lists that must name the session on the way: tables of no tenant, in which the role cannot write itself."""
    for condition in way:
        if condition.value is True and not e.depends_on_row(condition.atom):
            read = trusted(subject, condition.atom)
            if read and all(_closed(subject, use, one) for one in read):
                return tuple(subject.catalog.relation(one.relation) for one in read)
    return ()


def _closed(subject: Subject, use: Use, read: Trusted) -> bool:
    relation, visibility = subject.catalog.relation(read.relation), subject.visibility
    if not read.anchors or subject.tenancy.of(relation.oid).kind in ("tenant", "membership", "registry"):
        return False
    if not read.tests and subject.catalog.references_to(relation.oid):
        return False  # it has every user
    for command in ("INSERT", "UPDATE"):
        deciding = (read.anchors | read.tests) & set(visibility.columns(use.role.oid, relation, command))
        bound = visibility.exempt(use.role.oid, relation) is None
        if deciding and not (bound and not visibility.policies(use.role.oid, relation, command)):
            return False
    return True
