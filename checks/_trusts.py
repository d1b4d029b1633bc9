"""Policies that believe what a session may write, and what follows from that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlsaudit.checks._binding import reach
from rlsaudit.checks._forgery import Forgery, forgeries
from rlsaudit.checks._reading import Shape, Use, uses
from rlsaudit.checks._trust import Trusted, trusted

from rlsaudit.catalog.expression import subquery_relations
from rlsaudit.catalog.outcome import Way
from rlsaudit.check import Subject, kept
from rlsaudit.finding import Severity
from rlsaudit.tenancy import words


@dataclass(frozen=True)
class Trust:
    """A policy of ``use`` believes what ``forgery`` lets the role write."""

    use: Use
    trusted: Trusted
    forgery: Forgery
    severity: Severity


@kept
def trusts(subject: Subject) -> tuple[Trust, ...]:
    """Every such belief, with how much it matters."""
    return tuple(_trusts(subject))


def _trusts(subject: Subject) -> Iterator[Trust]:
    seen: set[object] = set()
    known: dict[tuple[Trusted, int], tuple[Forgery, ...]] = {}
    settled: dict[object, bool] = {}
    quiet: set[Shape] = set()
    for use in uses(subject):
        if use.reading.shape in quiet or (use.policy.oid, use.reading) in seen:
            continue
        seen.add((use.policy.oid, use.reading))
        believes = False
        for way, reached in use.reaches:
            for condition in way:
                for one in trusted(subject, condition.atom) if condition.value is True else ():
                    believes = believes or bool(one.function)
                    # Tied to the session, or open to any tenant that has rows at all, which is said of the policy itself.
                    if use.place.key in one.tied:
                        continue
                    inside = _inside(subject, use, way, one, settled)
                    if inside and not one.tests:
                        continue
                    believes = True
                    if reached.kind == "open" and subject.tenancy.of(one.relation).kind == "tenant":
                        continue
                    key = (one, use.role.oid)
                    if key not in known:
                        known[key] = tuple(forgeries(subject, one, use.role.oid))
                    for forgery in known[key]:
                        if severity := _severity(subject, use, one, forgery, inside):
                            yield Trust(use, one, forgery, severity)
        if not believes:
            quiet.add(use.reading.shape)


def _inside(subject: Subject, use: Use, way: Way, one: Trusted, known: dict[object, bool]) -> bool:
    """Whether other conditions keep the rows to the tenant or the person, whatever the trusted rows say."""
    others = [c for c in way if all(other.relation != one.relation for other in trusted(subject, c.atom))]
    if not others:
        return False
    alike = (frozenset(others), use.reading.look)
    if any(subquery_relations(c.atom) for c in others):
        return reach(alike[0], use.place).kind in ("tenant", "person")
    if alike not in known:
        known[alike] = reach(alike[0], use.place).kind in ("tenant", "person")
    return known[alike]


def _severity(subject: Subject, use: Use, one: Trusted, forgery: Forgery, inside: bool) -> Severity | None:
    if forgery.guard:
        return "info"
    if inside or (one.links and not one.links & set(forgery.columns)):
        # The tenant stays the same; that a user promotes itself matters where users are told apart.
        return "medium" if forgery.whose == "person" and set(forgery.columns) & one.tests else None
    if use.classified.kind in ("registry", "principal"):
        return "high"
    function = subject.catalog.function(one.function)
    plain = function is None or function.language == "sql"
    return "critical" if plain or any(_says_rights(subject, one.relation, name) for name in forgery.columns) else "high"


def _says_rights(subject: Subject, relation: int, name: str) -> bool:
    """Whether the column is a flag, a role or a tenant: then a function that names it hardly does so for anything else."""
    column = subject.catalog.relation(relation).column(name)
    return words.role_like(name) or words.tenant_like(name) or (column is not None and column.category == "B")
