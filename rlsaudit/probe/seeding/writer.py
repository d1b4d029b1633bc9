"""Sends the seeder's statements: each behind a savepoint, with the tenant's context, in one message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.ground.statement_text import acting, columns, literal, name, text
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.tenancy.model import Tenancy

Connection = psycopg.Connection[tuple[object, ...]]
Filled = dict[str, str | None]
Way = Literal["context", "role", "alone", "replica"]
"""How a row is inserted: in the tenant's context, as an application role, without any context, past all triggers."""

TIMEOUT = "4s"
"""For one message; a trigger that hangs or loops must not take the run with it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the server said, and the column whose value it pointed at."""

    code: str
    message: str
    constraint: str = ""
    table: str = ""
    column: str = ""
    datatype: str = ""
    source: str = ""
    """Name of the server's own function that raised it."""


class Writer:
    """One transaction's worth of attempts on a superuser's connection."""

    def __init__(self, connection: Connection, tenancy: Tenancy, tenants: tuple[Tenant, ...]) -> None:
        self._connection = connection
        self._tenancy = tenancy
        self._tenants = tenants
        self._role = tenancy.roles[0].name if tenancy.roles else ""
        self._acts: dict[str, str] = {}
        connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(TIMEOUT)))

    def insert(
        self,
        relation: Relation,
        row: Mapping[str, str | None],
        tenant: Tenant | None,
        *,
        keep: bool,
        way: Way = "context",
    ) -> Filled | Refusal | None:
        """The row as it stands, None when a trigger or rule made nothing of it, or why it was refused."""
        statement, places = _insert(relation, row)
        found = self._send(statement, tenant, keep=keep, way=way, at=places)
        if isinstance(found, Refusal):
            return found
        return as_row(relation, found[0]) if found else None

    def run(
        self, statement: str, tenant: Tenant | None, *, keep: bool, way: Way = "context"
    ) -> list[tuple[object, ...]] | Refusal:
        """The rows that the statement returns, or why it was refused."""
        return self._send(statement, tenant, keep=keep, way=way, at=lambda position: "")

    def _send(
        self, statement: str, tenant: Tenant | None, *, keep: bool, way: Way, at: Callable[[int], str]
    ) -> list[tuple[object, ...]] | Refusal:
        before = "SAVEPOINT rlsaudit; " + self._before(tenant, way)
        after = "; SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED; " + self._after(way)
        end = "RELEASE SAVEPOINT rlsaudit" if keep else "ROLLBACK TO SAVEPOINT rlsaudit; RELEASE SAVEPOINT rlsaudit"
        message = f"{before}{statement}{after}{end}"
        try:
            cursor = self._connection.execute(message.encode())
        except psycopg.Error as problem:
            if self._connection.closed:
                raise
            self._connection.execute(b"ROLLBACK TO SAVEPOINT rlsaudit; RELEASE SAVEPOINT rlsaudit")
            return _refusal(problem, len(before), at)
        return _rows(cursor)

    def _before(self, tenant: Tenant | None, way: Way) -> str:
        match way:
            case "replica":
                return "SET LOCAL session_replication_role = replica; " + self._acting(tenant)
            case "role" if self._role:
                return text(sql.SQL("SET LOCAL ROLE {}; ").format(sql.Identifier(self._role))) + self._acting(tenant)
            case "alone":
                return "".join(
                    text(sql.SQL("SELECT pg_catalog.set_config({}, '', true); ").format(sql.Literal(setting)))
                    for setting in self._tenancy.context.settings
                )
        return self._acting(tenant)

    @staticmethod
    def _after(way: Way) -> str:
        return {"replica": "SET LOCAL session_replication_role = origin; ", "role": "RESET ROLE; "}.get(way, "")

    def _acting(self, tenant: Tenant | None) -> str:
        """The tenant's context: triggers and defaults read it.  A statement that cannot be run yet is no obstacle."""
        acting_for, persona = tenant or self._tenants[0], self._tenancy.context.seeding
        if persona is None:
            return ""
        if acting_for.name not in self._acts:
            statements = acting(persona, acting_for.key, acting_for.user)
            working = [one.rstrip("; ") for one in statements if self._works(one)]
            joined = "".join(f"{one}; " for one in working)
            if len(working) < len(statements):
                return joined
            self._acts[acting_for.name] = joined
        return self._acts[acting_for.name]

    def _works(self, statement: str) -> bool:
        try:
            with self._connection.transaction(force_rollback=True):
                self._connection.execute(statement.encode())
        except psycopg.Error:
            return False
        return True


def _rows(cursor: psycopg.Cursor[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """The rows of the one statement that is not the context's: the last that returned any."""
    found: list[tuple[object, ...]] = []
    while True:
        if cursor.description is not None:
            found = cursor.fetchall()
        if not cursor.nextset():
            return found


def _refusal(problem: psycopg.Error, offset: int, at: Callable[[int], str]) -> Refusal:
    diag = problem.diag
    position = int(diag.statement_position or 0) - 1 - offset
    return Refusal(
        problem.sqlstate or "",
        " ".join(str(diag.message_primary or problem).split()),
        diag.constraint_name or "",
        diag.table_name or "",
        diag.column_name or (at(position) if position >= 0 else ""),
        diag.datatype_name or "",
        diag.source_function or "",
    )


def _insert(relation: Relation, row: Mapping[str, str | None]) -> tuple[str, Callable[[int], str]]:
    """The statement, and which column a place in it belongs to."""
    start = inserting(relation, row)
    ends: list[tuple[int, str]] = []
    written = start
    for number, (column, value) in enumerate(row.items()):
        written += (", " if number else "") + text(literal(value))
        ends.append((len(written), column))
    written += ") " if row else " "

    def at(position: int) -> str:
        return next((column for end, column in ends if len(start) <= position < end), "")

    return written + "RETURNING " + text(as_text(relation)), at


def inserting(relation: Relation, row: Mapping[str, str | None]) -> str:
    """``INSERT INTO relation (columns) VALUES (``, or the whole statement for an empty row."""
    if not row:
        return text(sql.SQL("INSERT INTO {} DEFAULT VALUES").format(name(relation)))
    overriding = (
        " OVERRIDING SYSTEM VALUE" if any(c.identity == "always" and c.name in row for c in relation.columns) else ""
    )
    return text(sql.SQL("INSERT INTO {} ({}){} VALUES (").format(name(relation), columns(row), sql.SQL(overriding)))


def as_text(relation: Relation) -> sql.Composable:
    """Every column of the relation as text."""
    parts = [sql.SQL("{}::text").format(sql.Identifier(column.name)) for column in relation.columns]
    return sql.SQL(", ").join(parts) if parts else sql.SQL("NULL")


def as_row(relation: Relation, record: Sequence[object]) -> Filled:
    """Column name → text, of what ``as_text`` selected."""
    cells = (None if cell is None else str(cell) for cell in record)
    return dict(zip((column.name for column in relation.columns), cells, strict=False))
