"""A live database's schema in the scratch server: dumped with pg_dump, with the roles of its catalog."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg import sql

from rlsaudit.catalog.cluster import Membership, Role, Setting
from rlsaudit.catalog.model import Catalog
from rlsaudit.errors import NotTrustworthy, UsageError
from rlsaudit.source import process, programs
from rlsaudit.source.dsn import redact
from rlsaudit.source.files import SqlFile
from rlsaudit.source.leaving import Leaving
from rlsaudit.source.load import load_sql
from rlsaudit.source.on_target import TargetScratch
from rlsaudit.source.server import ScratchServer
from rlsaudit.source.tokens import tokens

_DUMP_SECONDS = 1800
WAYS_OUT = (
    "to have it tested name the bin directory of a server that has it with --pg-bin, or make the copy on the target's own "
    "cluster with --scratch-on-target"
)
_SUPERUSER = "postgres"
_LISTS = frozenset({"search_path"})
_SKIPPED = frozenset(
    {"session_preload_libraries", "local_preload_libraries", "temp_tablespaces", "default_tablespace", "role"}
)
"""Settings of a role that could keep it from connecting to a server with other files."""

Connection = psycopg.Connection[tuple[object, ...]]


class Server(Protocol):
    """What a restore needs of a server."""

    @property
    def version(self) -> str: ...
    def connect(self, dbname: str = ...) -> Connection: ...


def clone(dsn: str, catalog: Catalog, server: ScratchServer, dbname: str) -> tuple[str, ...]:
    """Create ``dbname`` in the scratch server as a copy, without rows, of the database that ``dsn`` opens.

    Roles, their attributes, memberships and settings come from ``catalog``, without passwords; everything
    else from pg_dump, which only reads.  What needs an extension or a language that the scratch server lacks is
    left out; ``difference`` tells what that means for relations.  Returns notes on what differs.  Raises
    NotTrustworthy: a target newer than pg_dump, a schema that cannot be dumped or restored.
    """
    _check_version(catalog, server)
    dump = dump_of(dsn, server.binary("pg_dump"))
    notes: list[str] = []
    with server.connect() as connection:
        _make_roles(catalog, connection, notes)
    server.create_database(dbname)
    notes += restore(dump, catalog, server, dbname)
    with server.connect() as connection:
        _apply_settings(catalog, connection, notes)
    if catalog.server.major != server.major:
        notes.append(
            f"the target runs PostgreSQL {catalog.server.version}, the scratch copy {server.version}: "
            "behaviour that changed in between is not covered"
        )
    return tuple(dict.fromkeys(notes))


def clone_on_target(dsn: str, catalog: Catalog, server: TargetScratch, dbname: str) -> tuple[str, ...]:
    """The same on the target's own cluster, whose roles are there already and stay as they are.  Raises NotTrustworthy."""
    dump = server.readable(dump_of(dsn, server.binary("pg_dump")))
    try:
        server.create_database(dbname)
    except psycopg.Error as error:
        raise NotTrustworthy(
            f"no scratch database can be made on the target: {error.diag.message_primary or error}"
        ) from error
    return tuple(dict.fromkeys((*server.notes, *restore(dump, catalog, server, dbname, roles_fixed=True))))


def _check_version(catalog: Catalog, server: ScratchServer) -> None:
    if catalog.server.major > server.major:
        raise NotTrustworthy(
            f"the target runs PostgreSQL {catalog.server.major}, newer than the scratch server "
            f"({server.major}), so it cannot be copied; name the bin directory of a PostgreSQL "
            f"{catalog.server.major} with --pg-bin"
        )


def restore(dump: str, catalog: Catalog, server: Server, dbname: str, *, roles_fixed: bool = False) -> list[str]:
    """Load a dump of the target into ``dbname``; gives notes.  Raises NotTrustworthy."""
    leaving = Leaving(roles_fixed=roles_fixed)
    try:
        loaded = load_sql(lambda: server.connect(dbname), [SqlFile(dump, "pg_dump of the target")], leaving=leaving)
    except UsageError as error:
        raise NotTrustworthy(f"the target's schema cannot be restored on the scratch server: {error}") from error
    expected = ("CREATE DATABASE", "\\connect", "what is said of database")
    notes = [note for note in loaded.notes if not note.startswith(expected)]
    if gone := [role for role in loaded.roles_created if not any(role == known.name for known in catalog.roles)]:
        notes.append(
            f"the target holds privileges of roles that are gone ({', '.join(gone)}); the copy has them as empty roles"
        )
    if leaving.lacking:
        first = next(iter(leaving.left_out.items()))
        notes.append(
            f"the scratch server (PostgreSQL {server.version}) lacks the target's {', '.join(leaving.lacking)}; "
            f"{len(leaving.left_out)} statements were left out, the first: {first[0]} ({first[1]}); {WAYS_OUT}"
        )
    return notes


def dump_of(dsn: str, program: Path, dbname: str | None = None) -> str:
    """What pg_dump prints of the target, or of another database of its server.  Raises NotTrustworthy."""
    there = programs.address(dsn, dbname)
    options = ["--schema-only", "--create", "--encoding=UTF8", "--no-password", "--lock-wait-timeout=60s"]
    options += ["--no-tablespaces", "--no-subscriptions", "--no-table-access-method"]
    command: list[str | Path] = [program, *options, "--dbname", there.conninfo]
    try:
        code, output, errors = programs.run(command, there.environment, timeout=_DUMP_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise NotTrustworthy(f"pg_dump of the target did not end within {_DUMP_SECONDS} seconds") from error
    if code != 0:
        raise NotTrustworthy(f"pg_dump of the target failed: {_dump_reason(errors, there.password)}")
    return output.decode()


def _dump_reason(errors: bytes, password: str | None) -> str:
    lines = [line for line in errors.decode(errors="replace").splitlines() if "error:" in line.lower()]
    reason = redact(lines[0] if lines else process.last_line(errors.decode(errors="replace")))
    if password:
        reason = reason.replace(password, "********")
    if "server version mismatch" in reason:
        reason += "; name the bin directory of a PostgreSQL of the target's major version with --pg-bin"
    if "permission denied" in reason:
        reason += (
            "; pg_dump needs SELECT on every table, rows are not read: connect as a member of pg_read_all_data "
            "(GRANT pg_read_all_data TO the login), or run only the audit, which needs neither"
        )
    return reason


def _make_roles(catalog: Catalog, connection: Connection, notes: list[str]) -> None:
    rows = connection.execute("SELECT rolname FROM pg_catalog.pg_roles").fetchall()
    existing = {str(name) for (name,) in rows}
    for role in catalog.roles:
        if role.name == _SUPERUSER:
            if not role.superuser:
                notes.append(
                    f"role {_SUPERUSER} is no superuser on the target but is one on the scratch server: "
                    "what it owns is tested with more rights than it has"
                )
        elif not role.predefined:
            verb = "ALTER" if role.name in existing else "CREATE"
            statement = sql.SQL(verb + " ROLE {} WITH {}")
            connection.execute(statement.format(sql.Identifier(role.name), sql.SQL(_attributes(role))))
            existing.add(role.name)
    names = {role.oid: role.name for role in catalog.roles}
    for membership in catalog.memberships:
        role_name, member = names.get(membership.role), names.get(membership.member)
        if role_name in existing and member in existing and role_name != "pg_database_owner":
            _grant(connection, membership, role_name, member)


def _attributes(role: Role) -> str:
    flags = {
        "SUPERUSER": role.superuser,
        "CREATEDB": role.createdb,
        "CREATEROLE": role.createrole,
        "INHERIT": role.inherit,
        "LOGIN": role.login,
        "REPLICATION": role.replication,
        "BYPASSRLS": role.bypassrls,
    }
    return " ".join(name if value else f"NO{name}" for name, value in flags.items())


def _grant(connection: Connection, membership: Membership, role: str | None, member: str | None) -> None:
    assert role is not None and member is not None
    if connection.info.server_version >= 160000:
        flags = (("ADMIN", membership.admin), ("INHERIT", membership.inherit), ("SET", membership.set))
        options = " WITH " + ", ".join(f"{name} {'TRUE' if value else 'FALSE'}" for name, value in flags)
    else:
        options = " WITH ADMIN OPTION" if membership.admin else ""
    statement = sql.SQL("GRANT {} TO {}" + options)
    connection.execute(statement.format(sql.Identifier(role), sql.Identifier(member)))


def _apply_settings(catalog: Catalog, connection: Connection, notes: list[str]) -> None:
    """ALTER ROLE … SET for all databases; those of the database itself are in the dump."""
    for setting in catalog.settings:
        role = next((role for role in catalog.roles if role.oid == setting.role), None)
        if setting.database or (setting.role and role is None):
            continue
        who = f"role {role.name}" if role else "all roles"
        if setting.name in _SKIPPED:
            notes.append(f"setting {setting.name} of {who} is left out of the scratch copy")
            continue
        target = sql.Identifier(role.name) if role else sql.SQL("ALL")
        name = sql.SQL(".").join(sql.Identifier(part) for part in setting.name.split("."))
        statement = sql.SQL("ALTER ROLE {} SET {} TO {}").format(target, name, _setting_value(setting))
        try:
            connection.execute(statement)
        except psycopg.Error as error:
            reason = error.diag.message_primary
            notes.append(f"setting {setting.name} of {who} is left out of the scratch copy: {reason}")


def _setting_value(setting: Setting) -> sql.Composable:
    if setting.name not in _LISTS:
        return sql.Literal(setting.value)
    names = [token.identifier for token in tokens(setting.value) if token.kind in ("word", "name")]
    return sql.SQL(", ").join(sql.Literal(name) for name in names) if names else sql.Literal("")
