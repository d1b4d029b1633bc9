"""How the planner reads tenant tables under their policies, on a copy that it takes for a large database.

The copy has no rows.  What the planner sees of a table is the length of its file and the counts in pg_class, so the
files are made long (sparse, nothing is written) and the counts are set; without statistics of its own a key is taken
to have 200 values.  Works alike on all supported versions; nothing but EXPLAIN is run there.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
from psycopg import sql

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import Command
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.errors import NotTrustworthy
from rlsaudit.finding import Finding
from rlsaudit.probe.attacks.relation import Target, target
from rlsaudit.probe.ground.statement_text import acting, columns, name, text
from rlsaudit.probe.planner.plan_reading import Way, served, way_of
from rlsaudit.probe.seeding import plan
from rlsaudit.tenancy.model import ApplicationRole, Tenancy

ROWS = 1_000_000
TENANTS = 200
"""What the planner assumes of a column that it has no statistics of (``DEFAULT_NUM_DISTINCT`` of the server)."""

_PAGES = 20_000
_INDEX_PAGES = 3_000
_PAGE = 8192

Connection = psycopg.Connection[tuple[object, ...]]
Progress = Callable[[str, int, int], None]


class Scratch(Protocol):
    """What is needed of a scratch server."""

    def connect(self, dbname: str = ...) -> Connection: ...
    def create_database(self, name: str, template: str | None = ...) -> None: ...
    def drop_database(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of one command of one role on one table."""

    relation: str
    role: str
    command: Command
    way: Way
    detail: str
    """Names of the indexes, or why there is no plan."""
    possible: str = ""
    """An index that starts with the tenant key, though the plan may not use it."""


def plans(
    server: Scratch, database: str, catalog: Catalog, tenancy: Tenancy, progress: Progress
) -> tuple[Planned, ...]:
    """Plan every command of every application role on the tenant tables of ``database``, which stays as it is.

    Raises NotTrustworthy when the server's files cannot be reached.
    """
    copy = f"rlsaudit_plans_{secrets.token_hex(3)}"
    progress("planning as a large database", 0, 1)
    try:
        server.create_database(copy, database)
        with server.connect(copy) as connection:
            _enlarge(connection)
            connection.execute("SET max_parallel_workers_per_gather = 0")
            return tuple(_planned(connection, catalog, tenancy))
    finally:
        server.drop_database(copy)


def findings(planned: Sequence[Planned]) -> tuple[Finding, ...]:
    """One finding for the tables that are read whole although an index on the key is there."""
    missed = [one for one in planned if one.way == "whole table" and one.possible]
    if not missed:
        return ()
    tables = tuple(dict.fromkeys(one.relation for one in missed))
    commands = ", ".join(dict.fromkeys(one.command for one in missed))
    roles = ", ".join(dict.fromkeys(one.role for one in missed))
    indexes = ", ".join(dict.fromkeys(one.possible for one in missed))
    return (
        Finding(
            check="RLS608",
            source="check",
            title="The plan does not use the index on the tenant key",
            severity="low",
            object=tables[0] if len(tables) == 1 else "plans of tenant tables",
            message=(
                f"With {ROWS:,} rows in each table, {commands} of {', '.join(tables)} as {roles} reads the rows of all tenants"
                f" although {indexes} is there: the policy's condition is not one that the index can answer."
            ),
            relation=tables[0] if len(tables) == 1 else "",
            fix="-- compare the key column itself, by =, with one value that is the same for the whole statement",
            rationale="The policy is part of every query; what its plan costs, every query of every tenant pays.",
            standards=("ISO 27001 A.8.6", "NIST 800-53 SC-5", "CWE-405"),
        ),
    )


def _enlarge(connection: Connection) -> None:
    """Make every empty table of the users' look large to the planner, and its indexes in proportion."""
    rows = connection.execute(
        "SELECT c.oid::int8, c.relkind IN ('r', 'm'), pg_catalog.current_setting('data_directory') || '/'"
        " || pg_catalog.pg_relation_filepath(c.oid) FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'm', 'i') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'"
    ).fetchall()
    try:
        for _, table, path in rows:
            _lengthen(Path(str(path)), _PAGE * (_PAGES if table else _INDEX_PAGES))
    except OSError as error:
        raise NotTrustworthy(
            f"the scratch server's files cannot be reached, so no plan can be made: {error.strerror}"
        ) from error
    for tables, pages in ((True, _PAGES), (False, _INDEX_PAGES)):
        connection.execute(
            "UPDATE pg_catalog.pg_class SET reltuples = %s, relpages = %s WHERE oid = ANY (%s)",
            (ROWS, pages, [oid for oid, table, _ in rows if bool(table) is tables]),
        )


def _lengthen(path: Path, size: int) -> None:
    if path.stat().st_size < size:
        os.truncate(path, size)


def _planned(connection: Connection, catalog: Catalog, tenancy: Tenancy) -> Iterator[Planned]:
    visibility = visibility_of(catalog)
    for oid in tenancy.tenant_data():
        relation = catalog.relation(oid)
        if relation.kind not in ("table", "partitioned table") or relation.is_partition or not relation.rls_enabled:
            continue
        for role in tenancy.roles:
            if visibility.exempt(role.oid, relation) is None:
                yield from _of_role(connection, target(catalog, tenancy, visibility, role.oid, relation), role)


def _of_role(connection: Connection, on: Target, role: ApplicationRole) -> Iterator[Planned]:
    classified = on.tenancy.of(on.relation.oid)
    possible = served(on.catalog, on.relation, classified.key) if classified.key and not classified.path else ""
    for command, statement in _statements(on):
        try:
            root = _explained(connection, on.tenancy, role, statement)
        except psycopg.Error as error:
            reason = error.diag.message_primary or str(error)
            yield Planned(on.relation.qualified, role.name, command, "not planned", " ".join(reason.split()), possible)
            continue
        way, detail = way_of(on, root)
        yield Planned(on.relation.qualified, role.name, command, way, detail, possible)


def _statements(on: Target) -> Iterator[tuple[Command, sql.Composable]]:
    relation = name(on.relation)
    if on.readable:
        yield "SELECT", sql.SQL("SELECT {} FROM {}").format(columns(on.readable), relation)
    generated = {column.name for column in on.relation.columns if column.generated or column.identity == "always"}
    writable = [one for one in on.updatable if one not in generated]
    if writable:
        column = sql.Identifier(writable[0])
        value = column if writable[0] in on.readable else sql.SQL("DEFAULT")
        yield "UPDATE", sql.SQL("UPDATE {} SET {} = {}").format(relation, column, value)
    if on.deletable:
        yield "DELETE", sql.SQL("DELETE FROM {}").format(relation)


def _explained(
    connection: Connection, tenancy: Tenancy, role: ApplicationRole, statement: sql.Composable
) -> Mapping[str, Any]:
    """The plan's root as the role in the first tenant's context, in a transaction that is rolled back.

    Raises psycopg.Error: a context that cannot be set, a policy that fails to plan.
    """
    persona = tenancy.context.seeding
    key, user = plan.key_families(tenancy)[0][0], plan.user_values(tenancy, 1)[0]
    context = acting(persona, key, user) if persona else ()
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("SET LOCAL SESSION AUTHORIZATION {}").format(sql.Identifier(role.name)))
        for one in context:
            connection.execute(one.encode())
        explain = text(sql.SQL("EXPLAIN (FORMAT JSON, VERBOSE) {}").format(statement))
        row = connection.execute(explain.encode()).fetchone()
    assert row is not None
    root: Mapping[str, Any] = row[0][0]["Plan"]  # type: ignore[index]
    return root
