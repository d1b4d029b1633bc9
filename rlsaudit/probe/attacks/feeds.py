"""Publications send rows past every policy: what a role with REPLICATION reads of them through a slot of its own.

A slot shows what is committed after it was made, so each program is tried by its replay, in a database of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from psycopg import sql

from rlsaudit.catalog.cluster import Publication
from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.leak import Leak, Visit
from rlsaudit.probe.ground.statement_text import insert, said
from rlsaudit.probe.ground.world import Row
from rlsaudit.tenancy.roles import subscribes

_SEEN = "rows of every tenant"
_RELATIONS = 3
"""How many relations of one publication are tried."""


def feeds(arena: Arena) -> Iterator[tuple[Leak, ...]]:
    """For each publication that somebody may take, the programs that would show rows of every tenant there.

    Rows of some tenants only are what a filter is for.
    """
    takers = [role for role in arena.catalog.roles if subscribes(role)]
    for publication in arena.catalog.publications if takers else ():
        sent = [one for one in map(arena.catalog.find_relation, publication.relations) if one is not None]
        held = [(one, rows) for one in sent if one.holds_rows and len(rows := _rows(arena, one)) > 1]
        yield tuple(
            _leak(publication, takers[0].name, relation, rows, arena.world.tenants[1].key)
            for relation, rows in held[:_RELATIONS]
        )


def _rows(arena: Arena, relation: Relation) -> dict[str, Row]:
    """Mark → a row of each tenant that has one to spare."""
    generated = {column.name for column in relation.columns if column.generated}
    plain = [
        column.name for column in relation.columns if column.category in ("S", "U") and column.name not in generated
    ]
    found: dict[str, Row] = {}
    for tenant in arena.world.tenants if arena.tenancy.of(relation.oid).tenant_data else ():
        for row in arena.world.spare.get((relation.oid, tenant.key), ())[:1]:
            marks = [value for c in plain if (value := row.get(c)) and len(value) > 4 and value not in found]
            found |= {marks[-1]: {c: v for c, v in row.items() if c not in generated}} if marks else {}
    return found


def _leak(publication: Publication, role: str, relation: Relation, rows: Mapping[str, Row], owner: str) -> Leak:
    slot = "('rlsaudit_feed_' || pg_backend_pid())::name"
    made = f"SELECT pg_create_logical_replication_slot({slot}, 'pgoutput')"
    stored = (said("{}", insert(relation, row)) for row in rows.values())
    visit = (
        "SET LOCAL SESSION AUTHORIZATION DEFAULT",
        "SET LOCAL session_replication_role = replica",
        "SET LOCAL synchronous_commit = on",  # a slot shows what has reached the disk
        *stored,
    )
    named = sql.Literal(sql.Identifier(publication.name).as_string(None))
    told = (sql.SQL("bool_or(position(convert_to({}, 'UTF8') IN fed.data) > 0)").format(sql.Literal(m)) for m in rows)
    read = said(
        "SELECT {} AS seen FROM pg_logical_slot_get_binary_changes({}, NULL, NULL, 'proto_version', '1', "
        "'publication_names', {}) AS fed HAVING {}",
        sql.Literal(_SEEN), sql.SQL(slot), named, sql.SQL(" AND ").join(told),
    )  # fmt: skip
    return Leak(
        breaks="read", relation=relation.oid, command="SELECT", role=role, actor="", owner=owner, channel="fed",
        visits=(Visit((made,)), Visit(visit), Visit((read,), commit=False)), context=(), mark=_SEEN,
        opened=f"publication {publication.name}", severity="high",
    )  # fmt: skip
