"""Login roles of tenants, made in the scratch copy: a role for each key, with the application role's privileges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import psycopg
from psycopg import sql

from rlsaudit.catalog.cluster import Role
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.errors import NotTrustworthy
from rlsaudit.probe.seeding import plan
from rlsaudit.tenancy.logins import filled
from rlsaudit.tenancy.model import Tenancy

Connection = psycopg.Connection[tuple[object, ...]]

UNKNOWN = {
    "uuid": "0f0f0f0f-0000-4000-8000-0000000f0f0f",
    "smallint": "31999",
    "integer": "1999999999",
    "bigint": "1999999999",
    "numeric": "1999999999",
}
GARBAGE = "rlsaudit garbage '%_;"

_GRANTS = """
    SELECT format('GRANT %s ON %s %s TO %I', a.privilege_type, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
                  c.oid::regclass, new.name)
      FROM pg_class AS c, aclexplode(c.relacl) AS a, new WHERE a.grantee = new.model
    UNION ALL
    SELECT format('GRANT %s (%I) ON TABLE %s TO %I', a.privilege_type, t.attname, t.attrelid::regclass, new.name)
      FROM pg_attribute AS t, aclexplode(t.attacl) AS a, new WHERE a.grantee = new.model
    UNION ALL
    SELECT format('GRANT %s ON ROUTINE %s TO %I', a.privilege_type, p.oid::regprocedure, new.name)
      FROM pg_proc AS p, aclexplode(p.proacl) AS a, new WHERE a.grantee = new.model
    UNION ALL
    SELECT format('GRANT %s ON SCHEMA %I TO %I', a.privilege_type, n.nspname, new.name)
      FROM pg_namespace AS n, aclexplode(n.nspacl) AS a, new WHERE a.grantee = new.model
    UNION ALL
    SELECT format('GRANT %I TO %I', g.rolname, new.name)
      FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid, new WHERE m.member = new.model
"""


class Cluster(Protocol):
    """What this needs of a scratch server."""

    @property
    def shared(self) -> bool: ...
    def connect(
        self, dbname: str = ..., user: str = ..., autocommit: bool = ...
    ) -> psycopg.Connection[tuple[object, ...]]: ...


def unknown_of(tenancy: Tenancy) -> tuple[str, str]:
    """(key, user) that no tenant has."""
    return UNKNOWN.get(tenancy.key_type, "nobody_x"), UNKNOWN.get(tenancy.user_type, "nobody_x")


def entrance(tenancy: Tenancy, role: str) -> str:
    """Whom a session without a context logs in as: the role itself, or one like it that is no tenant's."""
    login = tenancy.context.login
    return filled(login, *unknown_of(tenancy)) if login else role


def prepare(server: Cluster, database: str, catalog: Catalog, tenancy: Tenancy) -> tuple[Catalog, tuple[str, ...]]:
    """(the catalog with the login roles that were missing, their names).

    Raises NotTrustworthy where the server takes no such role.
    """
    if not tenancy.context.login or not tenancy.roles:
        return catalog, ()
    model = catalog.role(tenancy.roles[0].oid)
    wanted = _names(tenancy)
    missing = [name for name in wanted if catalog.role_named(name) is None]
    with server.connect(database) as connection:
        try:
            for name in missing:
                _make(connection, model, name, member=not tenancy.key_values or not model.login)
            for name in wanted:
                who, here = sql.Identifier(name), sql.Identifier(connection.info.dbname)
                connection.execute(sql.SQL("ALTER ROLE {} LOGIN CONNECTION LIMIT -1").format(who))
                connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(here, who))
        except psycopg.Error as error:
            drop(connection, missing)
            raise NotTrustworthy(
                f"no login role could be made for a tenant ({tenancy.context.login}): {error.diag.message_primary or error}"
            ) from error
        return (load_catalog(connection) if missing else catalog), tuple(missing)


def let_in(server: Cluster, database: str, catalog: Catalog, tenancy: Tenancy) -> tuple[str, ...]:
    """Real logins need LOGIN and CONNECT; in the scratch cluster only, and said in the report."""
    if server.shared:
        return ()
    if tenancy.context.login:
        keys = ", ".join(plan.key_families(tenancy)[0])
        return (f"In the scratch copy each tenant ({keys}) logs in as a role of its own: {tenancy.context.why}.",)
    changed = []
    with server.connect(database) as connection:
        for role in tenancy.roles:
            known, who = catalog.role(role.oid), sql.Identifier(role.name)
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN CONNECTION LIMIT -1").format(who))
            question = "SELECT pg_catalog.has_database_privilege(%s, %s, 'CONNECT')"
            row = connection.execute(question, (role.name, connection.info.dbname)).fetchone()
            if row == (False,):
                here = sql.Identifier(connection.info.dbname)
                connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(here, who))
            if not known.login or row == (False,):
                changed.append(role.name)
    return (f"In the scratch copy these roles were allowed to log in: {', '.join(changed)}.",) if changed else ()


def drop(connection: Connection, names: Iterable[str]) -> None:
    """Take the roles away again, with what was granted to them in this database."""
    for name in names:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is not None:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def _names(tenancy: Tenancy) -> tuple[str, ...]:
    keys = plan.key_families(tenancy)[0]
    users = plan.user_values(tenancy, len(keys))
    template = tenancy.context.login
    acting = (*zip(keys, users, strict=True), unknown_of(tenancy), (GARBAGE, GARBAGE))
    return tuple(dict.fromkeys(filled(template, key, user) for key, user in acting))


def _make(connection: Connection, model: Role, name: str, *, member: bool) -> None:
    """A member of the application role, or where that is itself a tenant's role, another like it."""
    attributes = sql.SQL("BYPASSRLS" if model.bypassrls else "NOBYPASSRLS")
    connection.execute(sql.SQL("CREATE ROLE {} LOGIN {}").format(sql.Identifier(name), attributes))
    if member:
        connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(model.name), sql.Identifier(name)))
        return
    copied = sql.SQL("WITH new (name, model) AS (VALUES ({}, {}::oid)) {}").format(
        sql.Literal(name), sql.Literal(model.oid), sql.SQL(_GRANTS)
    )
    for (statement,) in connection.execute(copied).fetchall():
        connection.execute(str(statement).encode())


def reduced(tenancy: Tenancy) -> Tenancy:
    """With a login role for each tenant there are those keys, and no others to fall back upon."""
    return replace(tenancy, key_values=plan.key_families(tenancy)[0]) if tenancy.context.login else tenancy
