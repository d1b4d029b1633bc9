"""One login that may become the role of every tenant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rlsaudit.checks._context import predicates
from rlsaudit.checks._fixes import several

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.cluster import Role
from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.relations import Policy, Relation
from rlsaudit.check import Example, Hit, Subject, check

_SETUP = """\
CREATE ROLE app;
CREATE ROLE acme LOGIN;
CREATE ROLE globex LOGIN;
GRANT app TO acme, globex;
CREATE TABLE orders (id int PRIMARY KEY, tenant name NOT NULL DEFAULT current_user, item text);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON orders USING (tenant = current_user);
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO app;
"""


@check(
    "RLS408",
    title="One login may become the roles of several tenants",
    severity="medium",
    rationale=(
        "SET ROLE is checked against the login, not against the current role: SQL that gets into a request of one tenant"
        " runs RESET ROLE or SET ROLE and is another. Only a login of its own keeps a tenant's role apart."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-269"),
    examples=(
        Example(
            setup=_SETUP,
            bad="CREATE ROLE pool LOGIN NOINHERIT;\nGRANT acme, globex TO pool;",
            good="CREATE ROLE monitor LOGIN NOINHERIT;\nGRANT acme TO monitor;",
        ),
        Example(
            setup=_SETUP,
            bad="CREATE ROLE initech LOGIN;\nGRANT app TO initech;\nGRANT acme TO initech;",
            good="CREATE ROLE initech LOGIN;\nGRANT app TO initech;",
        ),
    ),
)
def set_role_between_tenants(subject: Subject) -> Iterator[Hit]:
    compared = _by_role(subject)
    named = _by_policy(subject)
    if not compared.relations and not named.relations:
        return
    for login in subject.catalog.roles:
        if not login.login or login.superuser or login.bypassrls or login.predefined:
            continue
        reach = subject.visibility.becomes(login.oid) - {login.oid}
        tenants = _leaves(subject, login, reach, compared) if compared.relations else []
        where = compared
        if tenants and all(_peers(subject, login.oid, oid, compared) for oid in tenants):
            yield _tenant_itself(subject, login, tenants, compared)
            continue
        if len(tenants) < 2:
            tenants, where = [oid for oid in sorted(reach) if oid in named.roles], named
        if len(tenants) < 2:
            continue
        names = sorted(subject.catalog.role_name(oid) for oid in tenants)
        tables = several(relation.qualified for relation in where.relations.values())
        yield Hit(
            f"role {login.name}",
            f"{login.name} may SET ROLE to {several(names)}, and policies of {tables} tell tenants apart by the role: SQL"
            " injected into one tenant's request becomes the next tenant with RESET ROLE and SET ROLE.",
            _leave(subject, login, tenants),
            role=login.name,
        )


def _tenant_itself(subject: Subject, login: Role, tenants: list[int], where: _Places) -> Hit:
    names = several(sorted(subject.catalog.role_name(oid) for oid in tenants))
    tables = several(relation.qualified for relation in where.relations.values())
    return Hit(
        f"role {login.name}",
        f"{login.name} is a tenant's role itself and may SET ROLE to {names}, and policies of {tables} tell tenants apart"
        " by the role: one statement shows it the other tenant's rows.",
        _leave(subject, login, tenants),
        "high",
        role=login.name,
    )


def _peers(subject: Subject, login: int, tenant: int, places: _Places) -> bool:
    """Whether both hold their privileges on the relations alike: by a group of both, or each for itself."""
    holders = {g.grantee for g in subject.catalog.grants_on("relation") if g.object in places.relations}
    ours, theirs = ({m.role for m in subject.catalog.memberships if m.member == one} for one in (login, tenant))
    return bool(holders & ours & theirs) or {login, tenant} <= holders


@dataclass
class _Places:
    """Relations that policies keep apart by the role, and the roles that are named for it."""

    relations: dict[int, Relation] = field(default_factory=dict)
    roles: set[int] = field(default_factory=set)


def _by_role(subject: Subject) -> _Places:
    """Relations with a column that is held against ``current_user`` or a membership of it."""
    found = _Places()
    known: dict[e.Expression, bool] = {}
    for _, relation, predicate in predicates(subject):
        model = e.model(predicate)
        if model not in known:
            known[model] = _asks_role(model)
        if relation.holds_rows and known[model]:
            found.relations[relation.oid] = relation
    return found


def _asks_role(predicate: e.Expression) -> bool:
    compared = any(
        isinstance(part, e.SessionRole) and part.which == "current_user"
        for comparison in e.comparisons(predicate)
        if comparison.operator == "=" and not comparison.column.level
        for part in e.walk(comparison.other)
    )
    return compared or any(
        isinstance(part, e.Call) and part.name == "pg_has_role" and e.depends_on_row(part) for part in e.walk(predicate)
    )


def _by_policy(subject: Subject) -> _Places:
    """Relations with policies for several roles, each of which names a tenant of its own."""
    keys: dict[int, dict[str, set[int]]] = {}
    for policy, relation, predicate in predicates(subject):
        classified = subject.tenancy.of(relation.oid)
        if PUBLIC in policy.roles or not policy.permissive or not classified.key or classified.path:
            continue
        for value in _constants(policy, predicate, classified.key):
            keys.setdefault(relation.oid, {}).setdefault(value, set()).update(policy.roles)
    found = _Places()
    for oid, values in keys.items():
        roles = {role for held in values.values() if len(held) == 1 for role in held}
        if len(values) > 1 and len(roles) > 1:
            found.relations[oid] = subject.catalog.relation(oid)
            found.roles |= roles
    return found


def _constants(policy: Policy, predicate: e.Expression, key: str) -> Iterator[str]:
    for comparison in e.comparisons(predicate):
        value = e.bare(comparison.other)
        if (
            comparison.column.name == key
            and comparison.operator == "="
            and isinstance(value, e.Constant)
            and value.value
        ):
            yield value.value


def _leaves(subject: Subject, login: Role, reach: frozenset[int], places: _Places) -> list[int]:
    """Roles within reach that use the relations and that no other role within reach is a member of."""
    used = [
        oid for oid in reach
        if any(subject.visibility.may(oid, r, "SELECT") for r in places.relations.values())
        and not (one := subject.catalog.role(oid)).superuser and not one.bypassrls and not one.predefined
        and oid not in {r.owner for r in places.relations.values()}
    ]  # fmt: skip
    groups = {m.role for m in subject.catalog.memberships if m.member in reach and m.member != login.oid}
    return sorted(oid for oid in used if oid not in groups)


def _leave(subject: Subject, login: Role, tenants: list[int]) -> str:
    """Ends the memberships that lead the login to the tenants' roles."""
    lines = []
    for oid in tenants:
        for one in subject.catalog.memberships:
            reach = subject.visibility.becomes(one.role)
            if one.member == login.oid and oid in reach:
                lines.append(f"REVOKE {quote(subject.catalog.role_name(one.role))} FROM {quote(login.name)};")
    return "\n".join(dict.fromkeys(lines))
