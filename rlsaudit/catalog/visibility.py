"""Who may do what, and which policies bind whom: pure functions over a Catalog.

Mirrors the server's rules (PostgreSQL manual 5.8 Privileges, 5.9 Row Security Policies, 22.3 Role
Membership), so that a saved snapshot answers as the server would; tests hold the answers against
has_table_privilege and its family.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from functools import cached_property
from typing import TypeAlias

from rlsaudit.catalog.cluster import Role
from rlsaudit.catalog.grants import PUBLIC, GrantTarget
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import COMMANDS, Command, Policy, Relation
from rlsaudit.catalog.routines import Function

_TABLE = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"})
_SEQUENCE = frozenset({"SELECT", "UPDATE", "USAGE"})
_SYSTEM_SCHEMAS = frozenset({"pg_catalog", "information_schema"})

_BY_COLUMN = ("SELECT", "INSERT", "UPDATE", "REFERENCES")

Acl: TypeAlias = Mapping[int, frozenset[str]]
"""Grantee → privileges; equal ones of a catalog are one object."""

_NOTHING: Acl = {}
_CACHE = "_visibility"

# Predefined roles and what they give on every relation.  The server asks whether the role HAS them, as
# it asks for any other grantee, so INHERIT counts.
_PREDEFINED = {
    "pg_read_all_data": frozenset({"SELECT"}),
    "pg_write_all_data": frozenset({"INSERT", "UPDATE", "DELETE"}),
    "pg_maintain": frozenset({"MAINTAIN"}),
}


class Visibility:
    """Effective privileges, reachable roles and applicable policies of one Catalog; answers are cached."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._roles: dict[int, Role] = {role.oid: role for role in catalog.roles}
        self._everyone = frozenset(self._roles)
        self._table = _TABLE | {"MAINTAIN"} if catalog.server.version_num >= 170000 else _TABLE
        self._inherits: dict[int, frozenset[int]] = {}
        self._becomes: dict[int, frozenset[int]] = {}
        self._privileges: dict[tuple[int, int], frozenset[str]] = {}
        self._everywhere: dict[int, frozenset[str]] = {}
        self._granted: dict[tuple[int, int], frozenset[str]] = {}
        self._applicable: dict[tuple[int, int], dict[Command, tuple[Policy, ...]]] = {}
        self._policy_kinds: dict[int, int] = {}
        self._positions: dict[tuple[int, int], dict[Command, list[int]]] = {}
        self._on_columns: dict[tuple[int, int, str], frozenset[int]] = {}
        self._columns: dict[tuple[tuple[int, int], ...], Mapping[int, Acl]] = {}
        self._allowed: dict[tuple[int, int], frozenset[str]] = {}
        self._kinds: dict[int, int] = {}
        self._numbers: dict[Hashable, int] = {}
        self._acls: dict[tuple[tuple[int, str], ...], Acl] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        self._in_schema: dict[tuple[int, str], frozenset[str]] = {}

    def inherits(self, role: int) -> frozenset[int]:
        """Roles whose privileges ``role`` holds without SET ROLE: itself and the INHERIT closure.

        PUBLIC is not listed; for a superuser it is all roles, as the server has it.
        """
        if role not in self._inherits:
            self._inherits[role] = self._everyone if self._superuser(role) else _closure(role, self._inherit_edges)
        return self._inherits[role]

    def becomes(self, role: int) -> frozenset[int]:
        """Roles that a session of ``role`` can SET ROLE to, itself included; all of them for a superuser."""
        if role not in self._becomes:
            self._becomes[role] = self._everyone if self._superuser(role) else _closure(role, self._set_edges)
        return self._becomes[role]

    def owns(self, role: int, owner: int) -> bool:
        """True when ``role`` has the rights of ``owner`` without SET ROLE."""
        return owner in self.inherits(role)

    def privileges(self, role: int, relation: Relation) -> frozenset[str]:
        """Effective privileges on the relation as a whole: SELECT, INSERT, UPDATE, DELETE, TRUNCATE,
        REFERENCES, TRIGGER, MAINTAIN (17+), USAGE (sequences); counts ownership, superuser, PUBLIC,
        inheritance and the predefined roles pg_read_all_data, pg_write_all_data and pg_maintain.

        An owner holds what the ACL gives it: it can have revoked its own privileges.
        """
        key = (role, relation.oid)
        found = self._privileges.get(key)
        if found is None:
            applicable = _SEQUENCE if relation.kind == "sequence" else self._table
            if self._superuser(role):
                found = applicable
            else:
                found = self._held(role, self._relation_grants.get(relation.oid, _NOTHING))
                found |= self._predefined(role) & applicable
            self._privileges[key] = found
        return found

    def allowed(self, role: int, relation: Relation) -> frozenset[str]:
        """Privileges held on the relation or any of its columns, with USAGE on its schema; none without that."""
        granted = self._kinds.get(relation.oid)
        if granted is None:
            granted = self._kinds[relation.oid] = self._kind(relation)
        key = (role, granted)
        found = self._allowed.get(key)
        if found is None:
            by_column = (one for one in _BY_COLUMN if self._column_numbers(role, relation, one))
            found = self._allowed[key] = self.privileges(role, relation).union(by_column)
        return found if self.may_use_schema(role, relation.schema) else frozenset()

    def _kind(self, relation: Relation) -> int:
        """The same for relations that give every role the same, schemas apart: a catalog has few kinds of grants."""
        acl, by_column = self._relation_grants.get(relation.oid), self._column_grants.get(relation.oid)
        given = (relation.kind == "sequence", id(acl), id(by_column))  # equal ACLs are one object
        return self._numbers.setdefault(given, len(self._numbers))

    def may(self, role: int, relation: Relation, command: str) -> bool:
        """True when the privilege is held on the relation or any of its columns, with USAGE on its schema."""
        return command in self.allowed(role, relation)

    def alike(self, relations: Iterable[Relation]) -> tuple[tuple[Relation, int], ...]:
        """One of those that give every role the same by ``may``, and how many they are."""
        found: dict[tuple[int, str], list[Relation]] = defaultdict(list)
        for relation in relations:
            found[self._kind(relation), relation.schema].append(relation)
        return tuple((same[0], len(same)) for same in found.values())

    def granted_by_column(self, relation: Relation) -> bool:
        """Whether anybody holds a privilege on some of its columns only."""
        return relation.oid in self._column_grants

    def functions_alike(self, functions: Iterable[Function]) -> tuple[Function, ...]:
        """One of those that the same roles may execute."""
        grants = self._function_grants
        found = {(id(grants.get(one.oid)), one.schema): one for one in functions}  # equal ACLs are one object
        return tuple(found.values())

    def columns(self, role: int, relation: Relation, command: str) -> tuple[str, ...]:
        """Names of the columns on which ``role`` holds the privilege (all for a table-level grant)."""
        if command in self.privileges(role, relation):
            if relation.oid not in self._names:
                self._names[relation.oid] = tuple([column.name for column in relation.columns])
            return self._names[relation.oid]
        numbers = self._column_numbers(role, relation, command)
        return tuple(column.name for column in relation.columns if column.number in numbers) if numbers else ()

    def may_execute(self, role: int, function: Function) -> bool:
        """EXECUTE on the function and USAGE on its schema."""
        if self._superuser(role):
            return True
        held = self._held(role, self._function_grants.get(function.oid, _NOTHING))
        return "EXECUTE" in held and self.may_use_schema(role, function.schema)

    def may_use_schema(self, role: int, schema: str) -> bool:
        """USAGE on the schema; the system's own schemas are open to everyone."""
        return schema in _SYSTEM_SCHEMAS or "USAGE" in self._schema_privileges(role, schema)

    def may_create_in(self, role: int, schema: str) -> bool:
        """CREATE on the schema."""
        return "CREATE" in self._schema_privileges(role, schema)

    def exempt(self, role: int, relation: Relation) -> str | None:
        """Why row security does not bind ``role`` on this relation, or None when it does.

        ``superuser``, ``BYPASSRLS``, ``owner without FORCE``, ``row security is off``.
        """
        attributes = self._roles.get(role)
        if attributes is not None and attributes.superuser:
            return "superuser"
        if attributes is not None and attributes.bypassrls:
            return "BYPASSRLS"
        if not relation.rls_enabled:
            return "row security is off"
        if not relation.rls_forced and self.owns(role, relation.owner):
            return "owner without FORCE"
        return None

    def policies(self, role: int, relation: Relation, command: Command) -> tuple[Policy, ...]:
        """Policies that apply to ``role`` for ``command`` (ALL included), permissive and restrictive."""
        key = (role, relation.oid)
        found = self._applicable.get(key)
        if found is None:
            found = self._applicable[key] = self._by_command(role, relation.oid)
        return found[command]

    def _by_command(self, role: int, relation: int) -> dict[Command, tuple[Policy, ...]]:
        """The same choice wherever policies are alike in command and roles: a catalog has few kinds of these."""
        policies = self.catalog.policies_of(relation)
        kinds = self._policy_kinds.get(relation)
        if kinds is None:
            given = tuple([(one.command, one.roles) for one in policies])
            kinds = self._policy_kinds[relation] = self._numbers.setdefault(given, len(self._numbers))
        positions = self._positions.get((role, kinds))
        if positions is None:
            held = self.inherits(role)
            mine = [n for n, one in enumerate(policies) if PUBLIC in one.roles or not held.isdisjoint(one.roles)]
            positions = self._positions[role, kinds] = {
                command: [n for n in mine if policies[n].command in ("ALL", command)] for command in COMMANDS
            }
        return {command: tuple([policies[n] for n in applied]) for command, applied in positions.items()}

    def _superuser(self, role: int) -> bool:
        attributes = self._roles.get(role)
        return attributes is not None and attributes.superuser

    def _held(self, role: int, grants: Acl) -> frozenset[str]:
        """Union of the privileges granted to PUBLIC and to the roles that ``role`` has."""
        key = (role, id(grants))  # equal ones are one object
        found = self._granted.get(key)
        if found is None:
            holders = grants.keys() & self.inherits(role)
            found = grants.get(PUBLIC, frozenset[str]()).union(*(grants[who] for who in holders))
            self._granted[key] = found
        return found

    def _predefined(self, role: int) -> frozenset[str]:
        """What the predefined roles give ``role`` on every relation."""
        if role not in self._everywhere:
            names = {self._roles[oid].name for oid in self.inherits(role) if oid in self._roles}
            self._everywhere[role] = frozenset[str]().union(*(_PREDEFINED[name] for name in names & _PREDEFINED.keys()))
        return self._everywhere[role]

    def _schema_privileges(self, role: int, schema: str) -> frozenset[str]:
        key = (role, schema)
        if key not in self._in_schema:
            oid = self._schema_oids.get(schema)
            if oid is None:
                found = frozenset[str]()
            elif self._superuser(role):
                found = frozenset({"USAGE", "CREATE"})
            else:
                found = self._held(role, self._schema_grants.get(oid, _NOTHING))
                if self._predefined(role) & {"SELECT", "INSERT"}:
                    found |= {"USAGE"}
            self._in_schema[key] = found
        return self._in_schema[key]

    def _column_numbers(self, role: int, relation: Relation, command: str) -> frozenset[int]:
        """Numbers of the columns with a grant of their own; system columns do not count, as on the server."""
        by_column = self._column_grants.get(relation.oid)
        if not by_column:
            return frozenset()
        key = (role, id(by_column), command)  # one object for all relations with these grants
        found = self._on_columns.get(key)
        if found is None:
            found = self._on_columns[key] = frozenset(
                number for number, grants in by_column.items() if number > 0 and command in self._held(role, grants)
            )
        return found

    @cached_property
    def _inherit_edges(self) -> dict[int, set[int]]:
        return self._edges({(m.member, m.role) for m in self.catalog.memberships if m.inherit}, before_16=True)

    @cached_property
    def _set_edges(self) -> dict[int, set[int]]:
        return self._edges({(m.member, m.role) for m in self.catalog.memberships if m.set}, before_16=False)

    def _edges(self, pairs: set[tuple[int, int]], *, before_16: bool) -> dict[int, set[int]]:
        """``pairs`` and the implicit membership of the database's owner in pg_database_owner.

        Before PostgreSQL 16 that one, too, gives its privileges only to an owner with the INHERIT attribute.
        """
        edges: dict[int, set[int]] = defaultdict(set)
        for member, role in pairs:
            edges[member].add(role)
        owner = self._roles.get(self.catalog.server.database_owner)
        implicit = self.catalog.role_named("pg_database_owner")
        if owner and implicit and (owner.inherit or not before_16 or self.catalog.server.version_num >= 160000):
            edges[owner.oid].add(implicit.oid)
        return edges

    @cached_property
    def _schema_oids(self) -> dict[str, int]:
        return {schema.name: schema.oid for schema in self.catalog.schemas}

    @cached_property
    def _relation_grants(self) -> Mapping[int, Acl]:
        return self._grants("relation")

    @cached_property
    def _schema_grants(self) -> Mapping[int, Acl]:
        return self._grants("schema")

    @cached_property
    def _function_grants(self) -> Mapping[int, Acl]:
        return self._grants("function")

    def _grants(self, target: GrantTarget) -> Mapping[int, Acl]:
        """Object → its ACL."""
        found: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for grant in self.catalog.grants_on(target):
            found[grant.object].append((grant.grantee, grant.privilege))
        return {oid: self._acl(tuple(entries)) for oid, entries in found.items()}

    @cached_property
    def _column_grants(self) -> Mapping[int, Mapping[int, Acl]]:
        """Relation → column number → its ACL."""
        found: dict[int, dict[int, list[tuple[int, str]]]] = defaultdict(lambda: defaultdict(list))
        for grant in self.catalog.grants_on("column"):
            found[grant.object][grant.column].append((grant.grantee, grant.privilege))
        return {
            oid: self._alike(tuple([(number, self._acl(tuple(entries))) for number, entries in columns.items()]))
            for oid, columns in found.items()
        }

    def _alike(self, columns: tuple[tuple[int, Acl], ...]) -> Mapping[int, Acl]:
        return self._columns.setdefault(tuple([(number, id(acl)) for number, acl in columns]), dict(columns))

    def _acl(self, entries: tuple[tuple[int, str], ...]) -> Acl:
        """The entries by grantee."""
        found = self._acls.get(entries)
        if found is None:
            held: dict[int, set[str]] = defaultdict(set)
            for grantee, privilege in entries:
                held[grantee].add(privilege)
            found = self._acls[entries] = {who: frozenset(what) for who, what in held.items()}
        return found


def visibility_of(catalog: Catalog) -> Visibility:
    """The one of this catalog, so that all who ask share its answers."""
    # As functools.cached_property does on this frozen class: the answers live as long as the catalog does.
    found = catalog.__dict__.get(_CACHE)
    if not isinstance(found, Visibility):
        found = catalog.__dict__[_CACHE] = Visibility(catalog)
    return found


def _closure(start: int, edges: Mapping[int, set[int]]) -> frozenset[int]:
    """``start`` and all that can be reached from it."""
    found, todo = {start}, [start]
    while todo:
        new = edges.get(todo.pop(), set()) - found
        found |= new
        todo.extend(new)
    return frozenset(found)
