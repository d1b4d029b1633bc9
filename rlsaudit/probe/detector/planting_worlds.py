"""A unique key across tenants, planted into every world: does the comparison of worlds tell of it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Index, Relation
from rlsaudit.probe.attacks.interference import WorldName, generated, interferences
from rlsaudit.probe.attacks.sweep import Arena, narrowed
from rlsaudit.probe.detector.planting import TRIES, Connection, Mode, Planted, Result
from rlsaudit.probe.detector.plants import Plant
from rlsaudit.probe.ground.session import Reply, Session
from rlsaudit.probe.ground.statement_text import columns, name, said
from rlsaudit.tenancy.model import ApplicationRole

_INDEX = "rlsaudit_plant_unique"


def plant_unique(
    connections: Sequence[Connection], arena: Arena, role: ApplicationRole, present: Session,
    worlds: Mapping[WorldName, Session], mode: Mode, planted: Planted,
) -> None:  # fmt: skip
    """A unique key that leaves the tenant out, in every world: whether it can be told what others have."""
    for relation in arena.relations():
        writable = arena.visibility.may(role.oid, relation, "INSERT")
        if not writable or relation.kind != "table" or not arena.tenancy.of(relation.oid).tenant_data:
            continue
        for column in _candidates(arena, relation):
            made = said("CREATE UNIQUE INDEX {} ON {} ({})", sql.Identifier(_INDEX), name(relation), columns((column,)))
            undone = said("DROP INDEX IF EXISTS {}.{}", sql.Identifier(relation.schema), sql.Identifier(_INDEX))
            try:
                for connection in connections:
                    connection.execute(made.encode())
                result = _told(arena, role, relation, column, present, worlds)
            except psycopg.Error:
                continue
            finally:
                for session in (present, *worlds.values()):
                    session.rest()
                for connection in connections:
                    connection.execute(undone.encode())
            plant = Plant(
                "unique key across tenants",
                (relation.oid, role.name, "INSERT"),
                (made,),
                (undone,),
                frozenset({"interference"}),
            )
            planted.note(plant, result)
            if result != "idle":
                break
        if mode == "sample" and planted.used["unique key across tenants"]:
            return


def _candidates(arena: Arena, relation: Relation) -> tuple[str, ...]:
    classified = arena.tenancy.of(relation.oid)
    return tuple(
        column.name
        for column in relation.columns
        if column.name != classified.key and column.category in "SN" and not generated(relation, column.name)
    )[:TRIES]


def _told(
    arena: Arena, role: ApplicationRole, relation: Relation, column: str, present: Session, worlds: Mapping[WorldName, Session]
) -> Result:  # fmt: skip
    number = next(one.number for one in relation.columns if one.name == column)
    index = Index(0, _INDEX, relation.oid, (number,), True, False, True, False, None, "")
    catalog: Catalog = replace(arena.catalog, functions=(), indexes=(index,))
    narrow = narrowed(arena, relation, catalog=catalog)
    heard: list[Reply] = []
    present.heard = heard
    try:
        leaks = interferences(narrow, role.oid, present, worlds, frozenset())
        if any(leak is not None and leak.constraint == _INDEX for leak in leaks):
            return "found"
        return "missed" if any(reply.constraint == _INDEX for reply in heard) else "idle"
    finally:
        present.heard = None
