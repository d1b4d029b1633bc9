"""A leak as a psql script that stands alone: own database, the schema, a handful of rows, the attack, LEAK or HELD."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg import sql

from rlsaudit.catalog.model import Catalog, Relation, Role
from rlsaudit.probe.leak import Leak
from rlsaudit.probe.ownership import owner
from rlsaudit.probe.statement_text import insert, literal, name, text
from rlsaudit.probe.sweep import PEEK
from rlsaudit.probe.world import SHARED, Row, Tenant
from rlsaudit.tenancy.model import Tenancy

SCHEMA_FILE = "schema.sql"


@dataclass(frozen=True, slots=True)
class SeedRow:
    relation: Relation
    row: Row


def statements(rows: Iterable[SeedRow]) -> tuple[str, ...]:
    """INSERTs of the rows as they stood, without the columns that the server computes."""
    return tuple(text(insert(one.relation, _storable(one))) for one in rows)


def _storable(one: SeedRow) -> dict[str, str | None]:
    generated = {column.name for column in one.relation.columns if column.generated}
    return {column: value for column, value in one.row.items() if column not in generated}


def fingerprint_query(catalog: Catalog, tenancy: Tenancy, tenants: tuple[Tenant, ...], leak: Leak) -> str:
    """Count and hash of the rows that the leak changes, of the tenant that owns them."""
    relation = catalog.relation(leak.changed)
    whose = owner(catalog, tenancy.of(relation.oid), tenants)
    label = None if leak.owner == SHARED else leak.owner
    return text(
        sql.SQL(
            "SELECT count(*) AS n, COALESCE(md5(string_agg(t::text, chr(10) ORDER BY t::text)), '-') AS h "
            "FROM {} AS t WHERE {} IS NOT DISTINCT FROM {}"
        ).format(name(relation), whose, literal(label))
    )


def script(catalog: Catalog, tenancy: Tenancy, tenants: tuple[Tenant, ...], leak: Leak, rows: Sequence[SeedRow]) -> str:
    """The psql script; it reads ``schema.sql`` from the directory it stands in and drops its database at the end."""
    parts = [_HEAD, _PREPARE]
    parts += ["-- The rows it takes, as they stood.", "SET session_replication_role = replica;"]
    parts += [f"{statement};" for statement in statements(rows)]
    parts += ["RESET session_replication_role;", "ANALYZE;"]
    if leak.channel == "digest":
        parts.append(fingerprint_query(catalog, tenancy, tenants, leak) + " \\gset before_")
    parts += ['\\connect :"scratch"', "\\set ON_ERROR_STOP off", "\\set leaked f", "", "-- The attack, as the application role."]
    parts += [f"{statement};" for statement in _role_settings(catalog, leak.role)]
    parts.append(text(sql.SQL("SET SESSION AUTHORIZATION {};").format(sql.Identifier(leak.role))))
    if "rlsaudit_peek" in leak.statement:
        parts.append(PEEK + ";")
    for visit in leak.visits[:-1]:
        visited = [f"{_counting(leak, statement)};" for statement in visit.statements]
        parts += ["BEGIN;", *visited, "COMMIT;" if visit.commit else "ROLLBACK;"]
    parts += ["BEGIN;", *(f"{statement};" for statement in (*leak.context, *leak.visits[-1].statements[:-1]))]
    parts += [_observed(catalog, tenancy, tenants, leak), "ROLLBACK;", _TAIL]
    return "\n".join(parts) + "\n"


def _observed(catalog: Catalog, tenancy: Tenancy, tenants: tuple[Tenant, ...], leak: Leak) -> str:
    statement, mark = leak.statement, text(literal(leak.mark))
    if leak.channel == "digest":
        after = fingerprint_query(catalog, tenancy, tenants, leak)
        return "\n".join((
            f"{statement};",
            "RESET SESSION AUTHORIZATION;",
            f"{after} \\gset after_",
            "\\if :{?after_n}",
            "SELECT :'before_n' <> :'after_n' OR :'before_h' <> :'after_h' AS leaked \\gset",
            "\\endif",
        ))  # fmt: skip
    if leak.channel in ("error", "notice"):
        return "\n".join((
            _catching(statement),
            f"SELECT position({mark} IN COALESCE(current_setting('rlsaudit.seen', true), '')) > 0 AS leaked \\gset",
        ))  # fmt: skip
    if statement.startswith("EXECUTE "):
        return f"{statement} \\gset"
    return f"{_count(statement, mark)} \\gset"


def _counting(leak: Leak, statement: str) -> str:
    """A prepared plan counts what it sees, because psql cannot look into the rows of an EXECUTE."""
    prefix = "PREPARE rlsaudit_plan AS "
    if statement.startswith(prefix) and leak.statement.startswith("EXECUTE "):
        return prefix + _count(statement.removeprefix(prefix), text(literal(leak.mark)))
    return statement


def _count(statement: str, mark: str) -> str:
    condition = f"WHERE position({mark} IN seen::text) > 0"
    if statement.startswith(("SELECT ", "TABLE ", "VALUES ")):
        return f"SELECT count(*) > 0 AS leaked FROM ({statement}) AS seen {condition}"
    if statement.startswith(("INSERT ", "UPDATE ", "DELETE ", "MERGE ")):
        return f"WITH seen AS ({statement}) SELECT count(*) > 0 AS leaked FROM seen {condition}"
    return statement


def _catching(statement: str) -> str:
    quoted = text(literal(statement))
    body = (
        "DECLARE m text; d text; h text; c text; "
        f"BEGIN EXECUTE {quoted}; EXCEPTION WHEN OTHERS THEN GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, "
        "d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT, c = PG_EXCEPTION_CONTEXT; "
        "PERFORM set_config('rlsaudit.seen', concat_ws(chr(10), m, d, h, c), true); END"
    )
    return f"DO {text(literal(body))};"


def _role_settings(catalog: Catalog, role: str) -> tuple[str, ...]:
    """SET SESSION AUTHORIZATION does not apply ALTER ROLE … SET, a login does."""
    known = catalog.role_named(role)
    wanted = [s for s in catalog.settings if s.role == 0 or (known is not None and s.role == known.oid)]
    return tuple(
        text(sql.SQL("SELECT set_config({}, {}, false)").format(literal(s.name), literal(s.value)))
        for s in sorted(wanted, key=lambda s: s.role != 0)
    )


def schema_script(dump: str, catalog: Catalog) -> str:
    """``schema.sql``: the roles that are missing, then the schema as pg_dump writes it."""
    roles = [role for role in catalog.roles if not role.predefined and role.name != "postgres"]
    if not roles:
        return dump
    listed = ", ".join(f"({text(literal(role.name))}, {text(literal(_attributes(role)))})" for role in roles)
    missing = f"(VALUES {listed}) AS wanted(n, attributes) WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = n)"
    parts = [
        f"SELECT COALESCE(string_agg(format('DROP ROLE %I;', n), ' '), '') AS drop_roles FROM {missing} \\gset",
        f"SELECT format('CREATE ROLE %I %s', n, attributes) FROM {missing} \\gexec",
    ]
    pairs = [
        f"({text(literal(catalog.role_name(m.role)))}, {text(literal(catalog.role_name(m.member)))})"
        for m in catalog.memberships
        if not catalog.role_name(m.member).startswith("pg_") and catalog.role_name(m.member) != "postgres"
    ]
    if pairs:
        parts.append(
            f"SELECT format('GRANT %I TO %I', g, m) FROM (VALUES {', '.join(pairs)}) AS wanted(g, m) WHERE NOT EXISTS "
            "(SELECT FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles s ON s.oid = a.member "
            "WHERE r.rolname = g AND s.rolname = m) \\gexec"
        )
    return "\n".join((*parts, "SET check_function_bodies = off;", dump))


def _attributes(role: Role) -> str:
    flags = (
        ("SUPERUSER", role.superuser), ("INHERIT", role.inherit), ("CREATEROLE", role.createrole),
        ("CREATEDB", role.createdb), ("LOGIN", role.login), ("REPLICATION", role.replication), ("BYPASSRLS", role.bypassrls),
    )  # fmt: skip
    return " ".join(flag if held else f"NO{flag}" for flag, held in flags)


_HEAD = """\
-- Written by rlsaudit. Run as a superuser of any scratch cluster:  psql -X -d postgres -f THIS_FILE
-- or without a server at hand:  rlsaudit replay THIS_FILE
-- It makes a database of its own, loads schema.sql from beside this file, attacks, prints LEAK or HELD, and drops both
-- the database and the roles that were missing.
"""

_PREPARE = """\
\\set QUIET on
\\set ON_ERROR_STOP on
\\set drop_roles ''
\\o /dev/null
SET client_min_messages = error;
SELECT 'rlsaudit_replay_' || pg_backend_pid() AS scratch, current_database() AS home \\gset
CREATE DATABASE :"scratch" TEMPLATE template0;
\\connect :"scratch"
SET client_min_messages = error;
\\ir schema.sql
\\connect :"scratch"
"""

_TAIL = """\
\\o
\\if :leaked
  \\echo LEAK
\\else
  \\echo HELD
\\endif
\\o /dev/null
\\connect :"home"
DROP DATABASE :"scratch";
:drop_roles"""
