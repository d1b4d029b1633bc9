"""Foreign tables that lead back into the database they stand in: row security asks about the role at the other end.

The scratch copy is cut off from other servers, so each program is tried by its replay alone, whose server option points
at the database of the replay itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from rlsaudit.catalog.cluster import ForeignServer
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.attacks.relation import target
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.statement_text import acting, columns, name, said
from rlsaudit.tenancy.model import ApplicationRole

_HERE = ("", "localhost", "127.0.0.1", "::1")
_MARKS = 3
"""How many values are looked for in one foreign table."""


def loopbacks(arena: Arena, role: ApplicationRole) -> Iterator[tuple[Leak, ...]]:
    """For each such table that the role may read, the programs that would show another tenant's rows there."""
    persona = arena.tenancy.context.ordinary
    if persona is None:
        return
    tenant, other = arena.world.tenants[:2]
    servers = {one.oid: one for one in arena.catalog.foreign_servers if _here(arena, one)}
    for relation in arena.relations():
        server = servers.get(relation.foreign_server)
        on = target(arena.catalog, arena.tenancy, arena.visibility, role.oid, relation)
        if server is None or not on.readable:
            continue
        read = said("SELECT {} FROM {}", columns(on.readable), name(relation))
        yield tuple(
            Leak(
                breaks="read", relation=relation.oid, command="SELECT", role=role.name, actor=tenant.key,
                owner=other.key, channel="rows", visits=(Visit((read,), commit=False),),
                context=acting(persona, tenant.key, tenant.user), mark=mark, found=(_pointed(server),),
                persona=persona.name,
            )
            for mark in _marks(arena, relation, other.key)
        )  # fmt: skip


def _here(arena: Arena, server: ForeignServer) -> bool:
    options = dict(option.partition("=")[::2] for option in server.options)
    near = options.get("host", "") in _HERE or options["host"].startswith("/")
    return server.wrapper == "postgres_fdw" and near and options.get("dbname") == arena.catalog.server.database


def _marks(arena: Arena, relation: Relation, owner: str) -> list[str]:
    """Values of another tenant in tables that have all the columns of the foreign one."""
    wanted = {column.name for column in relation.columns}
    values = (
        value
        for one in arena.relations()
        if one.holds_rows and one.oid != relation.oid and wanted <= {column.name for column in one.columns}
        for row in arena.world.of(one.oid, owner)
        for value in (row.get(column) for column in sorted(wanted))
        if value is not None and arena.world.marks.get(value) == owner
    )
    return [*dict.fromkeys(values)][:_MARKS]


def _pointed(server: ForeignServer) -> str:
    """psql fills in where it is connected."""
    known = {option.partition("=")[0] for option in server.options}
    places = (("dbname", ":'scratch'"), ("host", ":'HOST'"), ("port", ":'PORT'"))
    options = ", ".join(f"{'SET' if option in known else 'ADD'} {option} {value}" for option, value in places)
    return said("ALTER SERVER {} OPTIONS ", sql.Identifier(server.name)) + f"({options})"
