"""One message of statements on the wire, and what came back to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGresult

from rlsaudit import interrupt
from rlsaudit.bulk import made_in_bulk

_DONE = int(pq.ExecStatus.COMMAND_OK)


_RAISE = b"exec_stmt_raise"
"""The server's routine that runs RAISE (src/pl/plpgsql/src/pl_exec.c)."""


@made_in_bulk
@dataclass(frozen=True, slots=True)
class Reply:
    """What one statement gave: cells as the server's text, the command tag, or the error."""

    rows: tuple[tuple[str | None, ...], ...] = ()
    tag: str = ""
    sqlstate: str = ""
    error: str = ""
    """Message, detail, hint and context joined, as a client could read them."""
    constraint: str = ""
    """Name of the constraint or unique index that refused."""
    raised: bool = False
    """The error is a RAISE of a PL/pgSQL function, whatever SQLSTATE that gave it."""

    @property
    def affected(self) -> int:
        """Rows named by the command tag: ``UPDATE 3`` is 3."""
        last = self.tag.rpartition(" ")[2]
        return int(last) if last.isdigit() else 0


@made_in_bulk
@dataclass(frozen=True, slots=True)
class Transcript:
    """Replies to the statements of one message, in order (those after an error are missing), and the notices."""

    replies: tuple[Reply, ...]
    notices: tuple[str, ...]
    heard: tuple[tuple[str, str], ...] = ()
    """(channel, payload) of the notifications that came with the end of a transaction."""
    lost: str = ""
    """Why the connection ended, when it did."""

    @property
    def failed(self) -> Reply | None:
        return next((reply for reply in self.replies if reply.sqlstate), None)


def exchange(pgconn: pq.abc.PGconn, statements: Sequence[str]) -> list[Reply]:
    """Send ``statements`` as one message and gather a reply to each, up to the first error."""
    pgconn.send_query(";\n".join(statements).encode())
    replies: list[Reply] = []
    while (result := pgconn.get_result()) is not None:
        status = result.status
        if status == _DONE:
            replies.append(_done(result.command_status or b""))
            continue
        if status == pq.ExecStatus.COPY_OUT:
            rows = _drain_copy(pgconn)
            ended = pgconn.get_result()  # one statement, one reply: the rows and the command's end belong together
            failed = ended is not None and ended.status == pq.ExecStatus.FATAL_ERROR
            replies.append(_reply(ended) if ended is not None and failed else rows)
            continue
        if status in (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_BOTH):
            pgconn.put_copy_end(b"rlsaudit sends no data")
            continue
        replies.append(_reply(result))
    interrupt.check()
    return replies


def notifications(pgconn: pq.abc.PGconn) -> tuple[tuple[str, str], ...]:
    """(channel, payload) of those that have come."""
    found = []
    while (one := pgconn.notifies()) is not None:
        found.append((one.relname.decode(errors="replace"), one.extra.decode(errors="replace")))
    return tuple(found)


def _drain_copy(pgconn: pq.abc.PGconn) -> Reply:
    lines: list[tuple[str | None, ...]] = []
    while True:
        try:
            count, data = pgconn.get_copy_data(0)
        except psycopg.OperationalError:
            break  # an error in the middle of the rows; the result that follows tells which
        if count <= 0:
            break
        lines.append((bytes(data).decode(errors="replace").rstrip("\n"),))
    return Reply(rows=tuple(lines), tag="COPY")


@lru_cache(maxsize=256)
def _done(tag: bytes) -> Reply:
    """Most statements of a message are alike: BEGIN, ROLLBACK, UPDATE 2."""
    return Reply(tag=tag.decode())


def _reply(result: PGresult) -> Reply:
    if result.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE):
        sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"XX000").decode()
        constraint = (result.error_field(pq.DiagnosticField.CONSTRAINT_NAME) or b"").decode(errors="replace")
        raised = result.error_field(pq.DiagnosticField.SOURCE_FUNCTION) == _RAISE
        return Reply(sqlstate=sqlstate, error=diagnostics(result), constraint=constraint, raised=raised)
    rows: tuple[tuple[str | None, ...], ...] = ()
    if result.status == pq.ExecStatus.TUPLES_OK:
        columns = range(result.nfields)
        rows = tuple([tuple([_text(result.get_value(row, c)) for c in columns]) for row in range(result.ntuples)])
    return Reply(rows=rows, tag=(result.command_status or b"").decode())


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def diagnostics(result: PGresult) -> str:
    """Message, detail, hint and context of an error or a notice."""
    fields = (
        pq.DiagnosticField.MESSAGE_PRIMARY,
        pq.DiagnosticField.MESSAGE_DETAIL,
        pq.DiagnosticField.MESSAGE_HINT,
        pq.DiagnosticField.CONTEXT,
    )
    parts = [value.decode(errors="replace") for name in fields if (value := result.error_field(name))]
    return "\n".join(parts)
