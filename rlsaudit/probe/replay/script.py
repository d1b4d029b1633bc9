"""A leak as a psql script that stands alone: own database, the schema, a handful of rows, the attack, LEAK or HELD."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import psycopg
from psycopg import sql

from rlsaudit.catalog.cluster import Role
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import settings_read
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.attacks.sweep import PEEK
from rlsaudit.probe.ground.leak import Leak
from rlsaudit.probe.ground.ownership import owner
from rlsaudit.probe.ground.statement_text import Copy, acting, insert, literal, name, text
from rlsaudit.probe.ground.world import SHARED, Row, Tenant
from rlsaudit.probe.replay.near import Near
from rlsaudit.tenancy.model import Tenancy

SCHEMA_FILE = "schema.sql"
_VERSIONED = re.compile(r"^(SET transaction_timeout = .*|\\(un)?restrict .*)\n", re.MULTILINE)
"""Lines of pg_dump that older servers and psql do not know and that change nothing here."""

_ANALYSED = ("table", "partitioned table", "materialized view")


@dataclass(frozen=True)
class SeedRow:
    relation: Relation
    row: Row
    owner: str
    """Label of the tenant that owns it."""

    @cached_property
    def insertion(self) -> str:
        """The INSERT that stores it."""
        generated = {column.name for column in self.relation.columns if column.generated}
        return text(insert(self.relation, {c: value for c, value in self.row.items() if c not in generated}))


@dataclass(frozen=True)
class Stage:
    """What a replay is made of besides the leak itself."""

    catalog: Catalog
    tenancy: Tenancy
    tenants: tuple[Tenant, ...]

    @cached_property
    def guarded(self) -> bool:
        """A CHECK or default reads the context, so that even a superuser must set it to store a row."""
        texts = [c.expression or "" for c in self.catalog.constraints if c.kind == "check"]
        return any(name in text_ for text_ in texts for name in ("current_setting", *self._readers()))

    def _readers(self) -> tuple[str, ...]:
        functions = self.catalog.functions
        return tuple(f"{f.name}(" for f in functions if f.extension is None and settings_read(self.catalog, f.oid))

    @cached_property
    def _near(self) -> Near:
        return Near(self.catalog)

    def near(self, leak: Leak, rows: Iterable[SeedRow]) -> tuple[SeedRow, ...]:
        """Those of the rows that the leak can be thought to hang on."""
        relations = self._near.relations(leak)
        return tuple(one for one in rows if one.relation.oid in relations)

    def acting(self, owner: str) -> tuple[str, ...]:
        """Statements that set the context of the tenant with this label."""
        tenant = next((t for t in self.tenants if t.key == owner), self.tenants[0])
        persona = self.tenancy.context.seeding
        return acting(persona, tenant.key, tenant.user) if persona else ()


def statements(stage: Stage, rows: Iterable[SeedRow]) -> tuple[str, ...]:
    """INSERTs of the rows as they stood, each owner's under its own context where the schema insists on one."""
    refreshed = tuple(
        text(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(name(relation)))
        for relation in stage.catalog.relations
        if relation.kind == "materialized view"
    )
    if not stage.guarded:
        return (*(one.insertion for one in rows), *refreshed)
    found: list[str] = []
    last: str | None = None
    for one in sorted(rows, key=lambda row: row.owner):
        if one.owner != last:
            found += stage.acting(one.owner)
            last = one.owner
        found.append(one.insertion)
    return (*found, *refreshed)


def put(
    connection: psycopg.Connection[tuple[object, ...]], stage: Stage, rows: Iterable[SeedRow], also: Iterable[str] = ()
) -> None:
    """Store the rows without triggers and foreign keys, and run what is ``also`` to stand, in one message.

    In the connection's transaction.  Raises psycopg.Error.
    """
    replica, origin = (f"SET LOCAL session_replication_role = {role}" for role in ("replica", "origin"))
    message = ";\n".join((replica, *statements(stage, rows), *also, origin))
    connection.execute(message.encode(), prepare=False)


def analysing(stage: Stage, rows: Iterable[SeedRow], leak: Leak) -> tuple[str, ...]:
    """ANALYZE of what the script fills and attacks: of a whole database, system catalogs too, it takes long."""
    wanted = dict.fromkeys((*(one.relation.oid for one in rows), leak.relation, leak.changed))
    found = [one for oid in wanted if (one := stage.catalog.find_relation(oid)) is not None and one.kind in _ANALYSED]
    return (text(sql.SQL("ANALYZE {};").format(sql.SQL(", ").join(map(name, found)))),) if found else ()


def fingerprint_query(stage: Stage, leak: Leak) -> str:
    """Count and hash of the rows that the leak changes, of the tenant that owns them."""
    relation = stage.catalog.relation(leak.changed)
    whose = owner(stage.catalog, stage.tenancy.of(relation.oid), stage.tenants)
    # An empty key names no tenant, as none does.
    label = None if leak.owner == SHARED else leak.owner
    return text(
        sql.SQL(
            "SELECT count(*) AS n, COALESCE(md5(string_agg(t::text, chr(10) ORDER BY t::text)), '-') AS h "
            "FROM {} AS t WHERE NULLIF({}, '') IS NOT DISTINCT FROM {}"
        ).format(name(relation), whose, literal(label))
    )


def gone_query(stage: Stage, leak: Leak) -> str:
    """Whether the relation of the leak is no longer there."""
    relation = text(name(stage.catalog.relation(leak.relation)))
    return text(sql.SQL("SELECT to_regclass({}) IS NULL AS leaked").format(sql.Literal(relation)))


def script(stage: Stage, leak: Leak, rows: Sequence[SeedRow]) -> str:
    """The psql script; it reads ``schema.sql`` from the directory it stands in and drops its database at the end."""
    parts = [HEAD, PREPARE]
    parts += [
        "-- The rows it takes, as they stood.",
        "BEGIN;",
        "SET LOCAL session_replication_role = replica;",
    ]
    parts += [f"{statement};" for statement in (*statements(stage, rows), *leak.found)]
    parts += ["COMMIT;", *analysing(stage, rows, leak)]
    if leak.channel == "digest":
        parts.append(fingerprint_query(stage, leak) + " \\gset before_")
    parts += [
        '\\connect :"scratch"',
        "\\set ON_ERROR_STOP off",
        "\\set leaked f",
        "",
        "-- The attack, as the application role.",
    ]
    parts += [f"{statement};" for statement in role_settings(stage.catalog, leak.role)]
    parts.append(text(sql.SQL("SET SESSION AUTHORIZATION {};").format(sql.Identifier(leak.role))))
    if "rlsaudit_peek" in leak.statement:
        parts.append(PEEK + ";")
    if leak.channel == "heard":
        parts.append("\\set heard_file `mktemp`\n\\o :heard_file")  # where psql prints notifications
    for visit in leak.visits[:-1]:
        visited = [f"{_counting(leak, statement)};" for statement in visit.statements]
        parts += ["BEGIN;", *visited, "COMMIT;" if visit.commit else "ROLLBACK;", *(f"{one};" for one in visit.after)]
    if leak.channel == "notice":
        return "\n".join((*parts, *_heard(stage, leak), TAIL)) + "\n"
    parts += ["BEGIN;", *(f"{statement};" for statement in (*leak.context, *leak.leading))]
    parts += [_observed(stage, leak), "ROLLBACK;", TAIL]
    return "\n".join(parts) + "\n"


def _heard(stage: Stage, leak: Leak) -> tuple[str, ...]:
    """What the server says beside the rows no SQL can look into: a second psql runs the visit, and grep reads it."""
    became = text(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(leak.role)))
    said = (*role_settings(stage.catalog, leak.role), became, "BEGIN", *leak.context, *leak.leading, leak.shown)
    return (
        *(f"\\setenv PG{name} :{name}" for name in ("HOST", "PORT")),
        "\\setenv PGUSER :USER",
        "\\setenv PGDATABASE :scratch",
        f"\\setenv RLSAUDIT_SAID {_argument('; '.join(said))}",
        f"\\setenv RLSAUDIT_MARK {_argument(leak.mark)}",
        '\\set leaked `printf \'%s;\' "$RLSAUDIT_SAID" | psql -X -q 2>&1 >/dev/null | grep -qF "$RLSAUDIT_MARK" && echo t || echo f`',
    )


def _argument(value: str) -> str:
    """A text as a quoted argument of a psql command, in one line."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _observed(stage: Stage, leak: Leak) -> str:
    statement = leak.shown
    if leak.channel == "gone":
        return f"{statement};\n{gone_query(stage, leak)} \\gset"
    if leak.channel == "digest":
        after = fingerprint_query(stage, leak)
        return "\n".join((
            f"{statement};" + (f"\n{leak.statement.data}\\." if isinstance(leak.statement, Copy) else ""),
            *(("SET ROLE NONE;",) if leak.escalates else ()),
            "RESET SESSION AUTHORIZATION;",
            f"{after} \\gset after_",
            "\\if :{?after_n}",
            "SELECT :'before_n' <> :'after_n' OR :'before_h' <> :'after_h' AS leaked \\gset",
            "\\endif",
        ))  # fmt: skip
    if leak.channel == "heard":
        return "\n".join((
            f"{statement};",
            "\\o /dev/null",
            "\\set heard `cat :'heard_file'; rm -f :'heard_file'`",
            f"SELECT position({text(literal(leak.mark))} IN :'heard') > 0 AS leaked \\gset",
        ))  # fmt: skip
    if leak.channel == "error":
        return "\n".join((
            _catching(statement),
            f"SELECT position({text(literal(leak.mark))} IN COALESCE(current_setting('rlsaudit.seen', true), '')) > 0 AS leaked \\gset",
        ))  # fmt: skip
    if leak.own:
        return "\n".join((
            f"{gathering(statement)};",
            f"SELECT position({text(literal(leak.mark))} IN COALESCE(current_setting('rlsaudit.seen', true), '')) > 0 AS leaked \\gset",
        ))  # fmt: skip
    if statement.startswith("EXECUTE "):
        return f"{statement} \\gset"
    return f"{_count(leak, statement)} \\gset"


def _counting(leak: Leak, statement: str) -> str:
    """A prepared plan counts what it sees, because psql cannot look into the rows of an EXECUTE."""
    prefix = "PREPARE rlsaudit_plan AS "
    if statement.startswith(prefix) and not leak.own and leak.statement.startswith("EXECUTE "):
        return prefix + _count(leak, statement.removeprefix(prefix))
    return statement


_GATHERING = (
    "DECLARE r record; a text[] := '{{}}'; BEGIN FOR r IN EXECUTE {} LOOP a := a || r::text; END LOOP; "
    "PERFORM set_config('rlsaudit.seen', (SELECT count(*) || ' ' || COALESCE(string_agg(x, chr(10) ORDER BY x), '') "
    "FROM unnest(a) AS x), true); END"
)


def gathering(statement: str) -> str:
    """Keeps the rows of a statement that stays as the application sends it: a count around it would be planned otherwise."""
    return f"DO {text(literal(_GATHERING.format(text(literal(statement)))))}"


def _count(leak: Leak, statement: str) -> str:
    mark = text(literal(leak.mark))
    column = text(sql.Identifier("seen", leak.key_column))
    condition = f"WHERE {column}::text = {mark}" if leak.key_column else f"WHERE position({mark} IN seen::text) > 0"
    verb = statement.split(maxsplit=1)[0].upper()
    if verb in ("SELECT", "TABLE", "VALUES", "WITH"):
        return f"SELECT count(*) > 0 AS leaked FROM ({statement}) AS seen {condition}"
    if verb in ("INSERT", "UPDATE", "DELETE", "MERGE"):
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


def role_settings(catalog: Catalog, role: str) -> tuple[str, ...]:
    """Statements for what ALTER ROLE has set: SET SESSION AUTHORIZATION does not apply ALTER ROLE … SET, a login does."""
    known = catalog.role_named(role)
    wanted = [s for s in catalog.settings if s.role == 0 or (known is not None and s.role == known.oid)]
    return tuple(
        text(sql.SQL("SELECT set_config({}, {}, false)").format(literal(s.name), literal(s.value)))
        for s in sorted(wanted, key=lambda s: s.role != 0)
    )


def schema_script(dump: str, catalog: Catalog) -> str:
    """``schema.sql``: the roles that are missing, then the schema as pg_dump writes it."""
    dump = _VERSIONED.sub("", dump)
    roles = [role for role in catalog.roles if not role.predefined and role.name != "postgres"]
    if not roles:
        return dump
    listed = ", ".join(f"({text(literal(role.name))}, {text(literal(_attributes(role)))})" for role in roles)
    missing = f"(VALUES {listed}) AS wanted(n, attributes) WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = n)"
    parts = [
        f"SELECT COALESCE(string_agg(format('DROP OWNED BY %1$I; DROP ROLE %1$I;', n), ' '), '') AS drop_roles FROM {missing} \\gset",
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
    parts += [
        text(sql.SQL("GRANT SET ON PARAMETER {} TO {};").format(sql.Identifier(g.parameter), sql.Identifier(catalog.role_name(g.grantee))))
        for g in catalog.grants_on("parameter")
        if g.privilege == "SET" and catalog.role_named(catalog.role_name(g.grantee)) in roles
    ]  # fmt: skip
    return "\n".join((*parts, "SET check_function_bodies = off;", dump))


def _attributes(role: Role) -> str:
    flags = (
        ("SUPERUSER", role.superuser), ("INHERIT", role.inherit), ("CREATEROLE", role.createrole),
        ("CREATEDB", role.createdb), ("LOGIN", role.login), ("REPLICATION", role.replication), ("BYPASSRLS", role.bypassrls),
    )  # fmt: skip
    return " ".join(flag if held else f"NO{flag}" for flag, held in flags)


HEAD = """\
-- Written by rlsaudit. Run as a superuser of any scratch cluster:  psql -X -d postgres -f THIS_FILE
-- or without a server at hand:  rlsaudit replay THIS_FILE
-- It makes a database of its own, loads schema.sql from beside this file, attacks, prints LEAK or HELD, and drops both
-- the database and the roles that were missing.
"""

MADE = 'CREATE DATABASE :"scratch" TEMPLATE template0;'
"""The statement by which a script makes its database, which the schema is then loaded into."""

PREPARE = f"""\
\\set QUIET on
\\set ON_ERROR_STOP on
\\set drop_roles ''
\\o /dev/null
SET client_min_messages = error;
SELECT 'rlsaudit_replay_' || pg_backend_pid() AS scratch, current_database() AS home \\gset
{MADE}
\\connect :"scratch"
SET client_min_messages = error;
\\ir schema.sql
\\connect :"scratch"
"""

TAIL = """\
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
