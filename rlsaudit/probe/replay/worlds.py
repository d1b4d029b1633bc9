"""The replay of an interference: one statement in two worlds that differ in another tenant's rows, and the outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg
from psycopg import sql

from rlsaudit.probe.attacks.interference import WORLDS
from rlsaudit.probe.ground.leak import Leak
from rlsaudit.probe.ground.statement_text import text
from rlsaudit.probe.replay.script import (
    HEAD,
    PREPARE,
    TAIL,
    SeedRow,
    Stage,
    analysing,
    gathering,
    put,
    role_settings,
    statements,
)

Connection = psycopg.Connection[tuple[object, ...]]


class Outcome(NamedTuple):
    """What a program shows in one world."""

    sqlstate: str
    """Of the error it ended in; else empty."""
    seen: tuple[object, ...]


def two_worlds(
    stage: Stage, leak: Leak, common: Sequence[SeedRow], first: Sequence[SeedRow], second: Sequence[SeedRow]
) -> str:
    """The psql script: ``common`` rows stand in both worlds, ``first`` and ``second`` in one each."""
    parts = [HEAD, PREPARE, "-- The rows that stand in both worlds, as they stood."]
    parts += _seeds(stage, leak, common)
    parts += [
        "-- The first world: " + ("other tenants' rows with other values." if first else "without other tenants' rows.")
    ]
    parts += [*_seeds(stage, leak, first), *_attack(stage, leak, "first")]
    parts += [
        "",
        "-- The second world: other tenants' rows as they stood.",
        '\\connect :"scratch"',
        "\\set ON_ERROR_STOP on",
    ]
    parts += [*_gone(first), *_seeds(stage, leak, second), *_attack(stage, leak, "second")]
    parts += ["RESET SESSION AUTHORIZATION;", "\\set leaked f", "SELECT :'first' <> :'second' AS leaked \\gset", TAIL]
    return "\n".join(parts) + "\n"


def _seeds(stage: Stage, leak: Leak, rows: Sequence[SeedRow]) -> list[str]:
    inserts = [f"{statement};" for statement in statements(stage, rows)]
    if not inserts:
        return []
    replica = "SET LOCAL session_replication_role = replica;"
    return ["BEGIN;", replica, *inserts, "COMMIT;", *analysing(stage, rows, leak)]


def _gone(rows: Sequence[SeedRow]) -> list[str]:
    if not rows:
        return []
    deleted = [
        text(sql.SQL("DELETE FROM {}.{} AS t WHERE t::text = {};").format(
            sql.Identifier(one.relation.schema), sql.Identifier(one.relation.name), _as_record(one)))
        for one in rows
    ]  # fmt: skip
    return ["BEGIN;", "SET LOCAL session_replication_role = replica;", *deleted, "COMMIT;"]


def _as_record(one: SeedRow) -> sql.Composed:
    """The row's text, made by the server from its values."""
    values = sql.SQL(", ").join(
        sql.SQL("{}::{}").format(sql.Literal(one.row.get(column.name)), sql.SQL(column.type))
        for column in one.relation.columns
    )
    return sql.SQL("ROW({})::text").format(values)


def _attack(stage: Stage, leak: Leak, outcome: str) -> list[str]:
    observed = observing(leak)
    lines = ['\\connect :"scratch"', "\\set ON_ERROR_STOP off", "\\set seen -", "\\set LAST_ERROR_MESSAGE -"]
    lines += [f"{statement};" for statement in role_settings(stage.catalog, leak.role)]
    lines += [
        text(sql.SQL("SET SESSION AUTHORIZATION {};").format(sql.Identifier(leak.role))),
        "BEGIN;",
        *(f"{statement};" for statement in (*leak.context, *observed[:-1])),
        f"{observed[-1]} \\gset" if observed[-1].startswith("SELECT ") else f"{observed[-1]};",
        f"\\set {outcome} :SQLSTATE _ :ROW_COUNT _ :seen _ :LAST_ERROR_MESSAGE",
        "SET CONSTRAINTS ALL IMMEDIATE;",
        f"\\set {outcome} :{outcome} _ :SQLSTATE _ :LAST_ERROR_MESSAGE",
        "ROLLBACK;",
    ]
    return lines


def observing(leak: Leak) -> tuple[str, ...]:
    """The statements that show, the last of them, the leak's rows as one text, whatever their order."""
    if leak.own:
        return *leak.leading, gathering(leak.shown), "SELECT current_setting('rlsaudit.seen', true) AS seen"
    if not leak.shown.startswith("SELECT "):
        return (leak.shown,)
    counted = "SELECT count(*) || ' ' || COALESCE(md5(string_agg(x::text, chr(10) ORDER BY x::text)), '-') AS seen"
    return (f"{counted} FROM ({leak.shown}) AS x",)


def outcomes(
    connection: Connection, stage: Stage, leak: Leak, common: Sequence[SeedRow], first: Sequence[SeedRow],
    second: Sequence[SeedRow],
) -> tuple[Outcome, Outcome]:  # fmt: skip
    """What is observed in each of the two worlds, each built in a transaction that is rolled back."""
    return _outcome(connection, stage, leak, (*common, *first)), _outcome(connection, stage, leak, (*common, *second))


def as_found(leak: Leak, without: Outcome, with_them: Outcome) -> bool:
    """Whether the outcomes end as those that ``leak.mark`` tells of: in the same errors, or in none."""
    for said in WORLDS.values():
        told_with, found, told_without = leak.mark.partition(f"; {said} ")
        if found:
            return _ends_as(with_them, told_with) and _ends_as(without, told_without)
    return False


def _ends_as(outcome: Outcome, told: str) -> bool:
    if not outcome.sqlstate:
        return not told.startswith("error ")
    message = str(outcome.seen[0]).partition("\n")[0]
    return told.startswith(f"error {outcome.sqlstate} ({message}")


def _outcome(connection: Connection, stage: Stage, leak: Leak, rows: Sequence[SeedRow]) -> Outcome:
    with connection.transaction(force_rollback=True):
        put(connection, stage, rows)
        role = text(sql.SQL("SET LOCAL SESSION AUTHORIZATION {}").format(sql.Identifier(leak.role)))
        for statement in (role, *leak.context):
            connection.execute(statement.encode())
        try:
            for statement in observing(leak):
                ran = connection.execute(statement.encode())
            seen = tuple(ran.fetchall()) if ran.description else ()
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.Error as error:
            return Outcome(error.sqlstate or "", (error.diag.message_primary,))
        return Outcome("", (seen, ran.rowcount))
