"""The application roles: those that sessions acting for a tenant log in as."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from operator import itemgetter

from rlsaudit.catalog.cluster import Role
from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS
from rlsaudit.catalog.visibility import Visibility
from rlsaudit.errors import UsageError
from rlsaudit.tenancy.model import ApplicationRole

Candidates = list[tuple[Role, str]]

MOST = 6
"""Roles tested when none are named and they are of fewer kinds; more are listed in a note."""
KINDS = 24
"""Roles tested when there are so many kinds; of more kinds the cells are not covered."""
_MOST_NAMED = 20
_PROVIDER = re.compile(r"^(supabase|rds|aurora|cloudsql|azure|alloydb|neon|crunchy|tsdb|yugabyte)")
"""Roles of a hosting provider, who holds the server anyway."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which roles are tested, and what is to be said of the others."""

    roles: tuple[ApplicationRole, ...]
    unmet: tuple[ApplicationRole, ...] = ()
    """One of each kind for which there was no room."""
    counted: tuple[str, ...] = ()
    """A note where there are more than are tested."""
    omitted: tuple[str, ...] = ()
    """A note on roles that are not the application's."""


def application_roles(
    catalog: Catalog,
    visibility: Visibility,
    keyed: Iterable[int],
    declared: tuple[str, ...],
    services: frozenset[str] = frozenset(),
) -> Chosen:
    """The declared ones, or those found.  ``keyed``: relations with a tenant key.

    Raises UsageError for a declared role that is not there.
    """
    if declared:
        return Chosen(tuple(_named(catalog, name) for name in declared))
    relations = [catalog.relation(oid) for oid in keyed]
    alike = visibility.alike(relations)
    named = Counter(oid for policy in catalog.policies for oid in set(policy.roles))
    candidates: list[tuple[Role, str]] = []
    for role in catalog.roles:
        if role.superuser or role.predefined:
            continue
        held = sum(many for r, many in alike if any(visibility.may(role.oid, r, command) for command in COMMANDS))
        if held:
            policies = f", named in {named[role.oid]} policies" if named[role.oid] else ""
            candidates.append((role, f"holds privileges on {held} tenant relations{policies}"))
    if any(role.name != catalog.server.session_role for role, _ in candidates):
        # Whoever reads the catalog for this audit is not the application.
        candidates = [(role, why) for role, why in candidates if role.name != catalog.server.session_role]
    chosen = _without_owners(catalog, _without_bypass(_without_groups(visibility, candidates)))

    def writes(role: Role) -> bool:
        return any(visibility.may(role.oid, r, c) for r, _ in alike for c in ("INSERT", "UPDATE", "DELETE"))

    if not any(writes(role) for role, _ in chosen):
        # Somebody fills these tables, and that is the application: a reader beside it is not.  An owner that cannot log
        # in is not it either: migrations become that role.
        owners = {relation.owner for relation in relations}
        missed = [(role, why) for role, why in candidates if (role, why) not in chosen and writes(role)]
        chosen += [(role, why) for role, why in missed if role.login or role.oid not in owners]

    chosen = [(role, why) for role, why in chosen if role.name not in services] or chosen

    every = [relation for relation, _ in visibility.alike(r for r in catalog.relations if r.extension is None)]
    by_column = [relation for relation in every if visibility.granted_by_column(relation)]
    functions = visibility.functions_alike(one for one in catalog.functions if one.extension is None)

    def kind(role: Role) -> Hashable:
        """The same for roles that are granted the same, that may become the same and that the same policies name."""
        subject = frozenset(visibility.inherits(role.oid) & named.keys())
        tables = tuple(visibility.allowed(role.oid, relation) for relation in every)
        columns = tuple(visibility.columns(role.oid, r, c) for r in by_column for c in ("SELECT", "INSERT", "UPDATE"))
        callable_ = tuple(visibility.may_execute(role.oid, one) for one in functions)
        return role.bypassrls, subject, visibility.becomes(role.oid) - {role.oid}, tables, columns, callable_

    ranked = _one_of_each_first(sorted(chosen, key=lambda pair: (-named[pair[0].oid], pair[0].name)), kind)
    counted: tuple[str, ...] = ()
    kinds = len({kind(role) for role, _ in ranked})
    most = max(MOST, min(kinds, KINDS))
    if len(ranked) > most:
        left = [role.name for role, _ in ranked[most:]]
        more = f" and {len(left) - _MOST_NAMED} more" if len(left) > _MOST_NAMED else ""
        counted = (
            f"{len(ranked)} application roles of {kinds} kind{'s' if kinds > 1 else ''} (by what they are granted and which"
            f" policies name them) were found and {most} tested, of different kinds first; name others with --role:"
            f" {', '.join(left[:_MOST_NAMED])}{more}",
        )
    passed = {oid for role, _ in chosen for oid in visibility.inherits(role.oid)}
    others = [role.name for role, _ in candidates if role.oid not in passed]
    omitted: tuple[str, ...] = ()
    if others:
        omitted = (
            "These roles hold privileges on tenant data and were not tested, because they own the tables, bypass row security "
            f"or cannot be logged in as; name one with --role to test it: {', '.join(sorted(others))}.",
        )
    each = tuple(ApplicationRole(role.oid, role.name, why) for role, why in ranked)
    return Chosen(each[:most], each[most:kinds], counted, omitted)


def _one_of_each_first(roles: Candidates, kind: Callable[[Role], Hashable]) -> Candidates:
    met: Counter[Hashable] = Counter()
    turns: list[tuple[int, tuple[Role, str]]] = []
    for pair in roles:
        which = kind(pair[0])
        turns.append((met[which], pair))
        met[which] += 1
    return [pair for _, pair in sorted(turns, key=itemgetter(0))]


def subscribes(role: Role) -> bool:
    """A login that may take any publication and is not trusted with every row by its attributes."""
    if _PROVIDER.match(role.name) or role.predefined:
        return False
    return role.replication and role.login and not role.superuser and not role.bypassrls


def _named(catalog: Catalog, name: str) -> ApplicationRole:
    role = catalog.role_named(name)
    if role is None:
        known = ", ".join(sorted(r.name for r in catalog.roles if not r.predefined)) or "none"
        raise UsageError(f"role {name!r} does not exist in this database; the roles there are: {known}")
    return ApplicationRole(role.oid, role.name, "named by the user")


def _without_groups(visibility: Visibility, candidates: Candidates) -> Candidates:
    """A group that only passes privileges to a login role is tested through it; one that nobody can become is idle."""
    logins = [role for role, _ in candidates if role.login]
    if not logins:
        return candidates
    passed_on = {oid for login in logins for oid in visibility.inherits(login.oid)}
    everyone = [role for role in visibility.catalog.roles if role.login and not role.superuser]
    reachable = {oid for login in everyone for oid in visibility.becomes(login.oid)}
    return [(role, why) for role, why in candidates if role.login or role.oid in reachable - passed_on]


def _without_bypass(candidates: Candidates) -> Candidates:
    """A role with BYPASSRLS beside ordinary ones is an administrator's; alone it is the application's (and a finding)."""
    bound = [(role, why) for role, why in candidates if not role.bypassrls]
    return bound or candidates


def _without_owners(catalog: Catalog, candidates: Candidates) -> Candidates:
    """The role that migrations run as is not the application's, where there is another and no policy names it."""
    relations = [relation for relation in catalog.relations if relation.holds_rows]
    owned = Counter(relation.owner for relation in relations)
    named = {oid for policy in catalog.policies for oid in policy.roles if oid != PUBLIC}
    others = [(role, why) for role, why in candidates if 2 * owned[role.oid] <= len(relations) or role.oid in named]
    return others or candidates
