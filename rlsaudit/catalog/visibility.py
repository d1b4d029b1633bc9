"""Who may do what, and which policies bind whom: pure functions over a Catalog.

Mirrors the server's rules (PostgreSQL manual 5.8 Privileges, 5.9 Row Security Policies, 22.3 Role Membership), so that
a saved snapshot answers as the server would; tests hold the answers against has_table_privilege and its family.
"""

from __future__ import annotations

from collections.abc import Iterable

from rlsaudit.catalog.model import Catalog, Command, Function, Policy, Relation


class Visibility:
    """Effective privileges, reachable roles and applicable policies of one Catalog; answers are cached."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def inherits(self, role: int) -> frozenset[int]:
        """Roles whose privileges ``role`` holds without SET ROLE: itself and the INHERIT closure (PUBLIC not listed)."""

    def becomes(self, role: int) -> frozenset[int]:
        """Roles that a session of ``role`` can SET ROLE to, itself included; all of them for a superuser."""

    def owns(self, role: int, owner: int) -> bool:
        """True when ``role`` has the rights of ``owner`` without SET ROLE."""

    def privileges(self, role: int, relation: Relation) -> frozenset[str]:
        """Effective privileges on the relation as a whole: SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER,
        MAINTAIN (17+), USAGE (sequences); counts ownership, superuser, PUBLIC, inheritance and the predefined roles
        pg_read_all_data, pg_write_all_data and pg_maintain."""

    def may(self, role: int, relation: Relation, command: str) -> bool:
        """True when the privilege is held on the relation or on any of its columns, and USAGE on its schema."""

    def columns(self, role: int, relation: Relation, command: str) -> tuple[str, ...]:
        """Names of the columns on which ``role`` holds the privilege (all of them for a table-level grant)."""

    def may_execute(self, role: int, function: Function) -> bool:
        """EXECUTE on the function and USAGE on its schema."""

    def may_use_schema(self, role: int, schema: str) -> bool: ...

    def may_create_in(self, role: int, schema: str) -> bool: ...

    def exempt(self, role: int, relation: Relation) -> str | None:
        """Why row security does not bind ``role`` on this relation, or None when it does.

        ``superuser``, ``BYPASSRLS``, ``owner without FORCE``, ``row security is off``.
        """

    def policies(self, role: int, relation: Relation, command: Command) -> tuple[Policy, ...]:
        """Policies that apply to ``role`` for ``command`` (ALL included), permissive and restrictive."""

    def granted_roles(self, relation: Relation, command: str) -> Iterable[int]:
        """Roles (PUBLIC excluded, superusers excluded) that effectively hold ``command`` on the relation."""
