"""One connection of the application role, spoken to at the level of the wire protocol.

The probe sends ``ROLLBACK; BEGIN; context; statement; digest`` as one message: one round trip, and nothing of a failed
program survives into the next.  ROLLBACK comes first, because after an error the rest of a message is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGresult

from rlsaudit import interrupt
from rlsaudit.errors import NotTrustworthy

# Outcomes by which the server says that row security or a privilege refused, rather than something else failing.
DENIED = frozenset({"42501"})


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

    @property
    def affected(self) -> int:
        """Rows named by the command tag: ``UPDATE 3`` is 3."""
        last = self.tag.rpartition(" ")[2]
        return int(last) if last.isdigit() else 0


@dataclass(frozen=True, slots=True)
class Transcript:
    """Replies to the statements of one message, in order (those after an error are missing), and the notices."""

    replies: tuple[Reply, ...]
    notices: tuple[str, ...]

    @property
    def failed(self) -> Reply | None:
        return next((reply for reply in self.replies if reply.sqlstate), None)


@dataclass
class Session:
    """A login of ``role``; ``run`` is the only way to speak to the server."""

    conninfo: str
    role: str
    statement_timeout_ms: int = 3000
    statements: int = 0
    _connection: psycopg.Connection[tuple[object, ...]] | None = None
    _notices: list[str] = field(default_factory=list)

    def run(self, statements: Sequence[str]) -> Transcript:
        """Send ``statements`` as one message.  Reconnects once when the connection was lost."""
        connection = self._open()
        self._notices.clear()
        pgconn = connection.pgconn
        self.statements += len(statements)
        pgconn.send_query(";\n".join(statements).encode())
        replies: list[Reply] = []
        while (result := pgconn.get_result()) is not None:
            if result.status == pq.ExecStatus.COPY_OUT:
                rows = _drain_copy(pgconn)
                ended = pgconn.get_result()  # one statement, one reply: the rows and the command's end belong together
                failed = ended is not None and ended.status == pq.ExecStatus.FATAL_ERROR
                replies.append(_reply(ended) if ended is not None and failed else rows)
                continue
            if result.status in (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_BOTH):
                pgconn.put_copy_end(b"rlsaudit sends no data")
                continue
            replies.append(_reply(result))
        interrupt.check()
        if pgconn.status == pq.ConnStatus.BAD:
            self.close()
            if replies and replies[-1].sqlstate[:2] not in ("08", "57", ""):
                raise NotTrustworthy(f"the scratch server ended the session of {self.role}: {replies[-1].error}")
        return Transcript(tuple(replies), tuple(self._notices))

    def transaction(self, statements: Sequence[str]) -> Transcript:
        """Run ``statements`` in a fresh transaction that is never committed; the first two replies are dropped."""
        transcript = self.run(["ROLLBACK", "BEGIN", *statements])
        return Transcript(transcript.replies[2:], transcript.notices)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> psycopg.Connection[tuple[object, ...]]:
        if self._connection is None:
            options = f"-c statement_timeout={self.statement_timeout_ms} -c lock_timeout=1000"
            try:
                connection = psycopg.connect(self.conninfo, options=options, autocommit=True)
            except psycopg.OperationalError as error:
                raise NotTrustworthy(f"the scratch server refuses a login of {self.role}: {error}") from error
            connection.pgconn.notice_handler = self._notice
            self._connection = connection
        return self._connection

    def _notice(self, result: PGresult) -> None:
        message = _diagnostics(result)
        if "there is no transaction in progress" not in message:
            self._notices.append(message)


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


def _reply(result: PGresult) -> Reply:
    if result.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE):
        sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"XX000").decode()
        constraint = (result.error_field(pq.DiagnosticField.CONSTRAINT_NAME) or b"").decode(errors="replace")
        return Reply(sqlstate=sqlstate, error=_diagnostics(result), constraint=constraint)
    rows: tuple[tuple[str | None, ...], ...] = ()
    if result.status == pq.ExecStatus.TUPLES_OK:
        columns = range(result.nfields)
        rows = tuple(tuple(_text(result.get_value(row, c)) for c in columns) for row in range(result.ntuples))
    return Reply(rows=rows, tag=(result.command_status or b"").decode())


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _diagnostics(result: PGresult) -> str:
    fields = (
        pq.DiagnosticField.MESSAGE_PRIMARY,
        pq.DiagnosticField.MESSAGE_DETAIL,
        pq.DiagnosticField.MESSAGE_HINT,
        pq.DiagnosticField.CONTEXT,
    )
    parts = [value.decode(errors="replace") for name in fields if (value := result.error_field(name))]
    return "\n".join(parts)
