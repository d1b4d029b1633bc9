"""Whether a hole of the server matters in this database: what it needs is there, and a session may use it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from rlsaudit.checks._advisories import Needs
from rlsaudit.checks._fixes import listed, several

from rlsaudit.catalog.cluster import Role
from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.policies import functions_called, policy_predicate, settings
from rlsaudit.catalog.relations import COMMANDS, Command, Policy, Relation
from rlsaudit.check import Subject
from rlsaudit.finding import Severity

_ROLE_SETTING = re.compile(r"\bsession_authorization\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Exposure:
    severity: Severity
    why: str
    """What is there, with this schema's names."""


def exposure(subject: Subject, needs: Needs) -> Exposure | None:
    """Where the hole can be used; None when the catalog shows nothing that it needs."""
    return _NEEDS[needs](subject)


def _guarded(subject: Subject) -> Iterator[Relation]:
    """Tables under row security, whatever they are: somebody wanted their rows kept apart."""
    for relation in subject.catalog.relations:
        kind = subject.tenancy.of(relation.oid).kind
        if relation.rls_enabled and relation.holds_rows and kind not in ("global", "infrastructure"):
            yield relation


def _applied(subject: Subject, role: int, relation: Relation) -> tuple[object, ...]:
    """What row security is for the role: equal for two roles that may share a plan."""
    if (why := subject.visibility.exempt(role, relation)) is not None:
        return (why,)
    commands: tuple[Command, ...] = ("SELECT", "UPDATE", "DELETE")
    return tuple(tuple(p.oid for p in subject.visibility.policies(role, relation, one)) for one in commands)


def _several_roles(subject: Subject) -> Exposure | None:
    """A session that acts for tenants and can become another role, under which other policies apply."""
    visibility = subject.visibility
    application = {role.oid for role in subject.tenancy.roles}
    relations = list(_guarded(subject))
    named_roles = {policy.relation for policy in subject.catalog.policies if PUBLIC not in policy.roles}
    for session in subject.catalog.roles:
        reachable = visibility.becomes(session.oid)
        if session.superuser or not session.login or len(reachable) < 2 or not reachable & application:
            continue
        bypassing = any(role.bypassrls for role in _roles(subject, reachable))
        for relation in relations:
            owned = relation.owner in reachable and not relation.rls_forced
            if not (bypassing or owned or relation.oid in named_roles):
                continue
            roles = [one for one in _roles(subject, reachable) if visibility.may(one.oid, relation, "SELECT")]
            if len({_applied(subject, one.oid, relation) for one in roles}) < 2:
                continue
            pools = session.oid in application or not visibility.may(session.oid, relation, "SELECT")
            return Exposure(
                "medium" if pools else "low",
                f"{session.name} can become {listed(one.name for one in roles if one.oid != session.oid)}, and not the same"
                f" policies of {relation.qualified} bind them",
            )
    return None


def _roles(subject: Subject, oids: Iterable[int]) -> list[Role]:
    return [role for role in subject.catalog.roles if role.oid in oids and not role.superuser]


def _changing_roles(subject: Subject) -> Exposure | None:
    """Policies that a role meets by a membership, which can be revoked."""
    for relation in _guarded(subject):
        for role in subject.tenancy.roles:
            through = [
                policy
                for policy in _policies(subject, role.oid, relation)
                if PUBLIC not in policy.roles and role.oid not in policy.roles
            ]
            if through and subject.visibility.exempt(role.oid, relation) is None:
                groups = listed(subject.catalog.role_name(oid) for oid in through[0].roles)
                return Exposure("low", f"{role.name} meets policies of {relation.qualified} as a member of {groups}")
    return None


def _policies(subject: Subject, role: int, relation: Relation) -> tuple[Policy, ...]:
    found = {p.oid: p for command in COMMANDS for p in subject.visibility.policies(role, relation, command)}
    return tuple(found.values())


def _role_setting(subject: Subject) -> Exposure | None:
    """Policies that read current_setting('role'), and functions that change session_authorization."""
    catalog = subject.catalog
    for relation in _guarded(subject):
        for policy in catalog.policies_of(relation.oid):
            for which in ("using", "check"):
                predicate = policy_predicate(catalog, policy, "using" if which == "using" else "check")
                if predicate is None:
                    continue
                called = (catalog.function(oid) for oid in functions_called(predicate))
                if "role" in settings(predicate, catalog) or any(
                    _ROLE_SETTING.search(" ".join(one.settings)) for one in called if one is not None
                ):
                    return Exposure(
                        "medium", f"policy {policy.name} of {relation.qualified} depends on the setting role"
                    )
    return None


def _merge(subject: Subject) -> Exposure | None:
    """A role that may insert and update, held to more by UPDATE and SELECT than by INSERT."""
    visibility = subject.visibility
    for relation in _guarded(subject):
        for role in subject.tenancy.roles:
            held = all(visibility.may(role.oid, relation, one) for one in ("SELECT", "INSERT", "UPDATE"))
            if not held or visibility.exempt(role.oid, relation) is not None:
                continue
            inserted = _conditions(subject, role.oid, relation, "INSERT")
            others = {_conditions(subject, role.oid, relation, one) for one in ("SELECT", "UPDATE")}
            if others - {inserted}:
                return Exposure(
                    "medium",
                    f"{role.name} may MERGE into {relation.qualified}, whose policies for UPDATE or SELECT are not those for"
                    " INSERT",
                )
    return None


def _conditions(
    subject: Subject, role: int, relation: Relation, command: Command
) -> frozenset[tuple[bool, str | None]]:
    """What a new row must fulfil: (permissive, condition) of each policy."""
    return frozenset(
        (policy.permissive, policy.using if command == "SELECT" else policy.check or policy.using)
        for policy in subject.visibility.policies(role, relation, command)
    )


def _statistics(subject: Subject) -> Exposure | None:
    return _of_statistics(subject, list(_guarded(subject)), "")


def _children(subject: Subject) -> Exposure | None:
    parents = [relation for relation in _guarded(subject) if subject.catalog.children_of(relation.oid)]
    return _of_statistics(subject, parents, ", which has child tables")


def _of_statistics(subject: Subject, relations: list[Relation], which: str) -> Exposure | None:
    """Somebody who reads a table under its policies, and may create the operator that spies."""
    for role in subject.tenancy.roles:
        if not (_may_in_database(subject, role.oid, "TEMPORARY") or _creates(subject, role.oid)):
            continue
        for relation in relations:
            bound = subject.visibility.exempt(role.oid, relation) is None
            if bound and subject.visibility.may(role.oid, relation, "SELECT"):
                return Exposure("medium", f"{role.name} reads {relation.qualified}{which}, and may create operators")
    return None


def _expressions(subject: Subject) -> Exposure | None:
    guarded = {relation.oid: relation for relation in _guarded(subject)}
    found = [one for one in subject.catalog.extended_statistics if one.expressions and one.relation in guarded]
    if not found:
        return None
    first = found[0]
    return Exposure(
        "medium",
        f"{several(one.qualified for one in found)} keeps values of expressions over {guarded[first.relation].qualified}"
        f", open to {listed(role.name for role in subject.tenancy.roles) or 'everybody'}",
    )


def _upsert(subject: Subject) -> Exposure | None:
    for relation in _guarded(subject):
        for role in subject.tenancy.roles:
            if all(subject.visibility.may(role.oid, relation, one) for one in ("INSERT", "UPDATE")):
                return Exposure("medium", f"{role.name} may insert into and update {relation.qualified}")
    return None


def _database_creator(subject: Subject) -> Exposure | None:
    for role in subject.tenancy.roles:
        if _may_in_database(subject, role.oid, "CREATE"):
            return Exposure("medium", f"{role.name} may create schemas in {subject.catalog.server.database}")
    return None


def _creator(subject: Subject) -> Exposure | None:
    for role in subject.tenancy.roles:
        if schema := _creates(subject, role.oid):
            return Exposure("low", f"{role.name} may create objects in schema {schema}")
    return None


def _any_session(_: Subject) -> Exposure:
    return Exposure("low", "every session may")


def _creates(subject: Subject, role: int) -> str:
    """A schema that the role may create objects in; empty for none."""
    schemas = subject.catalog.schemas
    return next((one.name for one in schemas if subject.visibility.may_create_in(role, one.name)), "")


def _may_in_database(subject: Subject, role: int, privilege: str) -> bool:
    mine = subject.visibility.inherits(role) | {PUBLIC}
    return subject.catalog.server.database_owner in mine or any(
        grant.privilege == privilege and grant.grantee in mine for grant in subject.catalog.grants_on("database")
    )


_NEEDS: Mapping[Needs, Callable[[Subject], Exposure | None]] = {
    "policies of several roles": _several_roles,
    "changing roles": _changing_roles,
    "the setting role": _role_setting,
    "merge": _merge,
    "children": _children,
    "statistics": _statistics,
    "expressions": _expressions,
    "upsert": _upsert,
    "create in database": _database_creator,
    "create in schema": _creator,
    "any session": _any_session,
}
