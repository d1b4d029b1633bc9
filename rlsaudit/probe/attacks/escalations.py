"""What arbitrary SQL as the application role can do before it reads: take a role, alter what it owns, set what it may.

For each way the statements that open it, and then a plain read or write; pure, from the catalog.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.relations import Relation
from rlsaudit.finding import Severity
from rlsaudit.probe.attacks.programs import Program
from rlsaudit.probe.attacks.relation import target
from rlsaudit.probe.attacks.shadows import shadows
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.statement_text import acting, columns, name, text
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.tenancy.model import Persona

_REPLICA = "session_replication_role"
_FORGED = 8
"""Rows of another tenant that are tried as new ones with a setting changed."""


def escalations(arena: Arena, role: int, persona: Persona, tenant: Tenant) -> Iterator[Program]:
    """Every way that the catalog says may be open to ``role``; whether it leads anywhere the server tells."""
    yield from _other_roles(arena, role, persona)
    yield from _granted_to_oneself(arena, role)
    yield from _altered(arena, role)
    yield from _dropped(arena, role)
    yield from _without_triggers(arena, role, tenant)
    yield from _switched_off(arena, role, tenant)
    yield from _spying(arena, role, persona, tenant)
    yield from _statistics(arena)
    yield from shadows(arena, role, tenant)


def _guarded(arena: Arena) -> Iterator[Relation]:
    for relation in arena.relations():
        if arena.tenancy.of(relation.oid).tenant_data:
            yield relation


def reaching(arena: Arena, role: int, relation: Relation) -> Iterator[tuple[str, str]]:
    """(command, statement): read all, change all, delete all, as ``role``."""
    on = target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
    if on.readable:
        yield "SELECT", text(sql.SQL("SELECT {} FROM {}").format(columns(on.readable), name(relation)))
    plain = [c for c in on.updatable if c in on.readable and c not in on.key and c != on.tenant_key]
    if on.deletable:
        yield "DELETE", text(sql.SQL("DELETE FROM {}").format(name(relation)))
    elif plain:
        column = sql.Identifier(plain[0])
        yield "UPDATE", text(sql.SQL("UPDATE {} SET {} = NULL").format(name(relation), column))


def _other_roles(arena: Arena, role: int, persona: Persona) -> Iterator[Program]:
    """SET ROLE to whatever can be reached, unless that is how a tenant's context is set."""
    contexts = " ".join(persona.statements).lower()
    for other in sorted(arena.visibility.becomes(role) - {role}):
        taken = arena.catalog.role(other)
        if taken.name in arena.known and ("role" in contexts or arena.tenancy.context.login):
            severity: Severity | None = "medium"  # as good as setting the context to another tenant, and as bad
        elif taken.name.lower() in contexts:
            continue
        else:
            severity = None
        first = text(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(taken.name)))
        yield from _as(arena, other, (first,), f"SET ROLE {taken.name}", severity)


def _as(
    arena: Arena, other: int, first: tuple[str, ...], way: str, severity: Severity | None = None
) -> Iterator[Program]:
    for relation in _guarded(arena):
        for command, statement in reaching(arena, other, relation):
            yield Program(relation.oid, command, first, statement, way, severity=severity)


def _granted_to_oneself(arena: Arena, role: int) -> Iterator[Program]:
    """CREATEROLE or ADMIN OPTION lets a role grant itself another; what that gives is had by SET ROLE."""
    catalog, own = arena.catalog, arena.catalog.role(role)
    held = arena.visibility.inherits(role)
    administered = {m.role for m in catalog.memberships if m.admin and m.member in held}
    anyone = own.createrole and catalog.server.version_num < 160000
    owners = {relation.owner for relation in _guarded(arena)}
    for other in catalog.roles:
        wanted = other.oid in owners or other.bypassrls
        if other.oid in arena.visibility.becomes(role) or other.superuser or other.predefined or not wanted:
            continue
        if anyone or other.oid in administered:
            who = sql.Identifier(other.name)
            grant = text(sql.SQL("GRANT {} TO {}").format(who, sql.Identifier(own.name)))
            taken = text(sql.SQL("SET LOCAL ROLE {}").format(who))
            yield from _as(arena, other.oid, (grant, taken), f"GRANT {other.name} TO {own.name}")


def _altered(arena: Arena, role: int) -> Iterator[Program]:
    """An owner can switch row security off.  With FORCE that takes a statement that no honest program sends."""
    for relation in _guarded(arena):
        if relation.rls_enabled and relation.holds_rows and arena.visibility.owns(role, relation.owner):
            first = text(sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(name(relation)))
            for command, statement in reaching(arena, role, relation):
                way = "ALTER TABLE … DISABLE ROW LEVEL SECURITY, as the owner"
                yield Program(relation.oid, command, (first,), statement, way, severity="low")


def _dropped(arena: Arena, role: int) -> Iterator[Program]:
    """The owner of a schema may drop every table in it, whoever owns that."""
    owned = {s.name for s in arena.catalog.schemas if arena.visibility.owns(role, s.owner)}
    for relation in _guarded(arena):
        direct = arena.visibility.owns(role, relation.owner)
        if relation.schema in owned and not direct and relation.holds_rows and not relation.is_partition:
            statement = text(sql.SQL("DROP TABLE {} CASCADE").format(name(relation)))
            way = f"DROP TABLE, as the owner of schema {relation.schema}"
            yield Program(relation.oid, "DELETE", (), statement, way, severity="high", gone=True)


def _without_triggers(arena: Arena, role: int, tenant: Tenant) -> Iterator[Program]:
    """``session_replication_role = replica`` switches triggers and foreign keys off, where setting it was granted."""
    held = arena.visibility.inherits(role) | {PUBLIC}
    granted = {
        g.parameter.lower() for g in arena.catalog.grants_on("parameter") if g.grantee in held and g.privilege == "SET"
    }  # fmt: skip
    if _REPLICA not in granted:
        return
    first = f"SET LOCAL {_REPLICA} = replica"
    for relation in _guarded(arena):
        on = target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
        for command in ("INSERT", "UPDATE", "DELETE"):
            if arena.visibility.may(role, relation, command):
                for attack in arena.attacks(on, tenant, command):
                    yield Program(relation.oid, command, (first,), attack.statement, f"SET {_REPLICA} = replica")


def _switched_off(arena: Arena, role: int, tenant: Tenant) -> Iterator[Program]:
    """``row_security = off`` must end in an error wherever a policy binds; what reads the setting may open something."""
    first = "SET LOCAL row_security = off"
    for relation in _guarded(arena):
        on = target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
        forged = (one for one in arena.attacks(on, tenant, "INSERT") if one.aim == "foreign")
        tried = (*reaching(arena, role, relation), *(("INSERT", one.statement) for one in [*forged][:_FORGED]))
        for command, statement in tried:
            yield Program(relation.oid, command, (first,), statement, "SET row_security = off")


def _spying(arena: Arena, role: int, persona: Persona, tenant: Tenant) -> Iterator[Program]:
    """With TRIGGER on a table one's own function fires in everybody's sessions."""
    if persona.login:
        return
    made = (
        "CREATE FUNCTION pg_temp.rlsaudit_spy() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM set_config(''rlsaudit.spied'', COALESCE(OLD::text, ''''), true); RETURN COALESCE(NEW, OLD); END'"
    )
    other = arena.world.others(tenant)[0]
    for relation in _guarded(arena):
        owned = arena.visibility.owns(role, relation.owner)
        if (
            owned
            or relation.kind not in ("table", "partitioned table")
            or not arena.visibility.may(role, relation, "TRIGGER")
        ):
            continue
        spied = next((s for command, s in reaching(arena, role, relation) if command == "DELETE"), "")
        on = target(arena.catalog, arena.tenancy, arena.visibility, role, relation)
        plain = [c for c in on.updatable if c in on.readable and c != on.tenant_key]
        if plain:
            column = sql.Identifier(plain[0])
            spied = text(sql.SQL("UPDATE {} SET {} = {}").format(name(relation), column, column))
        trigger = text(
            sql.SQL("CREATE TRIGGER rlsaudit_spy BEFORE UPDATE OR DELETE ON {} FOR EACH ROW EXECUTE FUNCTION pg_temp.rlsaudit_spy()")
            .format(name(relation))
        )  # fmt: skip
        if spied:
            visit = (*acting(persona, other.key, other.user), spied)
            back = acting(persona, tenant.key, tenant.user)
            seen = "SELECT current_setting('rlsaudit.spied', true) AS spied"
            way = "CREATE TRIGGER, whose function then fires in every tenant's session"
            yield Program(relation.oid, "SELECT", (made, trigger, *visit, *back), seen, way, visited=visit)


def _statistics(arena: Arena) -> Iterator[Program]:
    """What ANALYZE keeps of the rows: the commonest values and the bounds of the histogram, as they stand."""
    for relation in _guarded(arena):
        if not relation.holds_rows:
            continue
        where = text(sql.SQL("{}::regclass").format(sql.Literal(text(name(relation)))))
        raw = ", ".join(f"stavalues{n}::text" for n in range(1, 6))
        statement = f"SELECT {raw} FROM pg_catalog.pg_statistic WHERE starelid = {where}"
        yield Program(relation.oid, "SELECT", (), statement, "read pg_catalog.pg_statistic")
        of = text(
            sql.SQL("schemaname = {} AND tablename = {}").format(
                sql.Literal(relation.schema), sql.Literal(relation.name)
            )
        )
        shown = f"SELECT most_common_vals::text, histogram_bounds::text FROM pg_catalog.pg_stats WHERE {of}"
        yield Program(relation.oid, "SELECT", (), shown, "read pg_catalog.pg_stats")
        extended = f"SELECT most_common_vals::text FROM pg_catalog.pg_stats_ext WHERE {of}"
        yield Program(relation.oid, "SELECT", (), extended, "read pg_catalog.pg_stats_ext")
