"""One connection of the application role, spoken to at the level of the wire protocol.

The probe sends ``ROLLBACK; BEGIN; context; statement; digest`` as one message: one round trip, and nothing of a failed
program survives into the next.  ROLLBACK comes first, because after an error the rest of a message is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGresult

from rlsaudit import interrupt
from rlsaudit.errors import NotTrustworthy
from rlsaudit.probe.ground.statement_text import Login

# Outcomes by which the server says that row security or a privilege refused, rather than something else failing.
DENIED = frozenset({"42501"})
CANCELLED = "57014"
_PATIENCE = ((60, 100), (10, 300), (4, 1000), (0, 3000))
"""Statements that ran into the timeout, and the timeout from then on in milliseconds."""


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
    heard: tuple[tuple[str, str], ...] = ()
    """(channel, payload) of the notifications that came with the end of a transaction."""

    @property
    def failed(self) -> Reply | None:
        return next((reply for reply in self.replies if reply.sqlstate), None)


@dataclass
class Patience:
    """How long the statements of a run may take: what hangs again and again would take hours, with a few rows a table."""

    cancelled: int = 0
    """Statements that ran into the timeout."""

    @property
    def milliseconds(self) -> int:
        return next(timeout for least, timeout in _PATIENCE if self.cancelled >= least)

    def note(self, replies: Sequence[Reply]) -> None:
        self.cancelled += any(reply.sqlstate == CANCELLED for reply in replies)


@dataclass
class Session:
    """A login of ``role``; ``run`` is the only way to speak to the server."""

    conninfo: str
    role: str
    statements: int = 0
    login: str = ""
    """Whom to log in as where no statement names another login; empty for ``role``."""
    settings: tuple[str, ...] | None = None
    """Where nobody can log in as the role: its settings, given by a superuser's session that then becomes the role."""
    heard: list[Reply] | None = None
    """Every reply, while somebody listens."""
    patience: Patience = field(default_factory=Patience)
    """Shared by the sessions of one run."""
    _connections: dict[str, psycopg.Connection[tuple[object, ...]]] = field(default_factory=dict)
    _prepared: list[str] = field(default_factory=list)
    _waits: dict[str, int] = field(default_factory=dict)
    _last: str = ""
    _notices: list[str] = field(default_factory=list)

    def run(self, statements: Sequence[str]) -> Transcript:
        """Send ``statements`` as one message.  Reconnects once when the connection was lost."""
        login = next((one.role for one in statements if isinstance(one, Login)), self.login or self.role)
        if self._last not in ("", login) and self._last in self._connections:
            _execute(self._connections[self._last], "")  # its open transaction would keep the others waiting for locks
        self._last = login
        connection = self._open(login)
        self._notices.clear()
        pgconn = connection.pgconn
        if self.settings is not None and pgconn.parameter_status(b"session_authorization") != login.encode():
            _become(connection, login)  # DISCARD ALL has made it the superuser's session again
        if self._waits.get(login) != self.patience.milliseconds:
            self._waits[login] = self.patience.milliseconds
            _execute(connection, f"SET statement_timeout = {self.patience.milliseconds}")
        self.statements += len(statements)
        replies = exchange(pgconn, statements)
        self.patience.note(replies)
        if pgconn.status == pq.ConnStatus.BAD:
            self._close(login)
            if replies and replies[-1].sqlstate[:2] not in ("08", "57", ""):
                raise NotTrustworthy(f"the scratch server ended the session of {self.role}: {replies[-1].error}")
        if self.heard is not None:
            self.heard += replies
        return Transcript(tuple(replies), tuple(self._notices), _notifications(pgconn))

    def transaction(self, statements: Sequence[str]) -> Transcript:
        """Run ``statements`` in a fresh transaction that is never committed; the first two replies are dropped."""
        transcript = self.run(["ROLLBACK", "BEGIN", *statements])
        return Transcript(transcript.replies[2:], transcript.notices)

    def prepare(self, statement: str) -> None:
        """Run ``statement`` outside any program, on every connection that is open or will be."""
        self._prepared += [statement] if statement not in self._prepared else []
        for connection in self._connections.values():
            _execute(connection, statement)

    def rest(self) -> None:
        """End what is under way, so that no lock stands in another session's way."""
        for connection in self._connections.values():
            _execute(connection, "ROLLBACK")

    def close(self) -> None:
        """Close every connection; the next program finds a new one."""
        for login in tuple(self._connections):
            self._close(login)

    def _close(self, login: str) -> None:
        self._connections.pop(login).close()

    def _open(self, login: str) -> psycopg.Connection[tuple[object, ...]]:
        if login not in self._connections:
            options = f"-c statement_timeout={self.patience.milliseconds} -c lock_timeout=1000"
            try:
                who = self.conninfo if self.settings is not None else make_conninfo(self.conninfo, user=login)
                connection = psycopg.connect(who, options=options, autocommit=True)
                if self.settings is not None:
                    for setting in self.settings:
                        if "_timeout'" not in setting:
                            _execute(connection, setting)
                    _become(connection, login)
            except psycopg.OperationalError as error:
                raise NotTrustworthy(f"the scratch server refuses a login of {login}: {error}") from error
            connection.pgconn.notice_handler = self._notice
            for statement in self._prepared:
                _execute(connection, statement)
            self._connections[login] = connection
            self._waits[login] = self.patience.milliseconds
        return self._connections[login]

    def _notice(self, result: PGresult) -> None:
        message = _diagnostics(result)
        if "there is no transaction in progress" not in message:
            self._notices.append(message)


def _notifications(pgconn: pq.abc.PGconn) -> tuple[tuple[str, str], ...]:
    found = []
    while (one := pgconn.notifies()) is not None:
        found.append((one.relname.decode(errors="replace"), one.extra.decode(errors="replace")))
    return tuple(found)


def exchange(pgconn: pq.abc.PGconn, statements: Sequence[str]) -> list[Reply]:
    """Send ``statements`` as one message and gather a reply to each, up to the first error."""
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
    return replies


def _become(connection: psycopg.Connection[tuple[object, ...]], role: str) -> None:
    """Raises psycopg.Error: a session that stayed the superuser's would see everything."""
    if connection.info.transaction_status != pq.TransactionStatus.IDLE:
        connection.execute(b"ROLLBACK")
    connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))


def _execute(connection: psycopg.Connection[tuple[object, ...]], statement: str) -> None:
    """What fails here fails again where it is used, and is seen there."""
    with suppress(psycopg.Error):
        connection.execute(b"ROLLBACK")
        connection.execute(statement.encode())


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
