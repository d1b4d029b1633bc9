"""One connection of the application role, spoken to at the level of the wire protocol.

The probe sends ``ROLLBACK; BEGIN; context; statement; digest`` as one message: one round trip, and nothing of a failed
program survives into the next.  ROLLBACK comes first, because after an error the rest of a message is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGresult

from rlsaudit.errors import NotTrustworthy, ServerLost
from rlsaudit.probe.ground.statement_text import Login
from rlsaudit.probe.ground.wire import Reply, Transcript, diagnostics, exchange, notifications

__all__ = ["CANCELLED", "DENIED", "Patience", "Reply", "Session", "Transcript"]

# Outcomes by which the server says that row security or a privilege refused, rather than something else failing.
DENIED = frozenset({"42501"})
CANCELLED = "57014"
_PATIENCE = ((60, 100), (10, 300), (4, 1000), (0, 3000))
"""Statements that ran into the timeout, and the timeout from then on in milliseconds."""


@dataclass
class Patience:
    """How long the statements of a run may take: what hangs again and again would take hours, with a few rows a table."""

    cancelled: int = 0
    """Statements that ran into the timeout."""

    @property
    def milliseconds(self) -> int:
        return next(timeout for least, timeout in _PATIENCE if self.cancelled >= least)

    def note(self, replies: Sequence[Reply]) -> None:
        self.cancelled += bool(replies) and replies[-1].sqlstate == CANCELLED  # an error ends a message


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
    back: Callable[[], None] | None = None
    """Waits for a server that went away; raises ServerLost when it does not come back as it was.  None: it is not waited for."""
    fresh: Callable[[], None] | None = None
    """Called for every new connection; raises ServerLost where the rows are no longer all there."""
    _connections: dict[str, psycopg.Connection[tuple[object, ...]]] = field(default_factory=dict)
    _prepared: list[str] = field(default_factory=list)
    _waits: dict[str, int] = field(default_factory=dict)
    _last: str = ""
    _stays: bool = False
    """Whether what was run on the connection is meant to last."""
    _notices: list[str] = field(default_factory=list)

    def run(self, statements: Sequence[str]) -> Transcript:
        """Send ``statements`` as one message; what they leave in the session counts until ``close``.

        Raises ServerLost when the connection is lost meanwhile: nobody knows what had been committed by then.
        """
        self._stays = True
        transcript = self._sent(statements)
        if transcript.lost:
            raise ServerLost(f"the session of {self.role} was ended: {transcript.lost}")
        return self._told(transcript)

    def transaction(self, statements: Sequence[str]) -> Transcript:
        """Run ``statements`` in a fresh transaction that is never committed; the first two replies are dropped.

        When the connection is lost meanwhile they are run once more: what ends its own session does so again.  Raises
        ServerLost when the server does not come back, or what had been left in the session is gone.
        """
        message = ["ROLLBACK", "BEGIN", *statements]
        transcript = self._sent(message)
        if transcript.lost and self.back is not None and not self._stays:
            self.back()
            transcript = self._sent(message)
        if transcript.lost:
            failed = transcript.failed
            own = len(transcript.replies) > 2 and failed is not None and failed.sqlstate[:2] in ("08", "57")
            if self._stays or not own:
                raise ServerLost(f"the session of {self.role} was ended: {transcript.lost}")
        self._told(transcript)
        return Transcript(transcript.replies[2:], transcript.notices)

    def _told(self, transcript: Transcript) -> Transcript:
        if self.heard is not None:
            self.heard += transcript.replies
        return transcript

    def _sent(self, statements: Sequence[str]) -> Transcript:
        named = [one.role for one in statements if isinstance(one, Login)]
        login = named[0] if named else self.login or self.role
        if self._last not in ("", login) and self._last in self._connections:
            _execute(self._connections[self._last], "")  # its open transaction would keep the others waiting for locks
        self._last = login
        connection = self._open(login)
        self._notices.clear()
        pgconn = connection.pgconn
        replies: list[Reply] = []
        lost = ""
        try:
            if self.settings is not None and pgconn.parameter_status(b"session_authorization") != login.encode():
                _become(connection, login)  # DISCARD ALL has made it the superuser's session again
            if self._waits.get(login) != self.patience.milliseconds:
                self._waits[login] = self.patience.milliseconds
                _execute(connection, f"SET statement_timeout = {self.patience.milliseconds}")
            self.statements += len(statements)
            replies = exchange(pgconn, statements)
        except psycopg.OperationalError as error:
            if pgconn.status != pq.ConnStatus.BAD:
                raise
            lost = str(error)
        self.patience.note(replies)
        heard = notifications(pgconn)
        if pgconn.status == pq.ConnStatus.BAD:
            lost = lost or (replies[-1].error if replies else "") or "the connection is bad"
            self._connections.pop(login).close()
        return Transcript(tuple(replies), tuple(self._notices), heard, lost)

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
        self._stays = False
        for login in tuple(self._connections):
            self._connections.pop(login).close()

    def _open(self, login: str) -> psycopg.Connection[tuple[object, ...]]:
        """The connection of ``login``; a new one where there is none, and where the server just went away, as soon as it is back."""
        if login not in self._connections:
            try:
                try:
                    connection = self._entered(login)
                except psycopg.OperationalError:
                    if self.back is None:
                        raise
                    self.back()
                    connection = self._entered(login)
            except psycopg.OperationalError as error:
                raise NotTrustworthy(f"the scratch server refuses a login of {login}: {error}") from error
            self._connections[login] = connection
            self._waits[login] = self.patience.milliseconds
        return self._connections[login]

    def _entered(self, login: str) -> psycopg.Connection[tuple[object, ...]]:
        """A new connection on which everything was said that comes before a program."""
        who = self.conninfo if self.settings is not None else make_conninfo(self.conninfo, user=login)
        options = f"-c statement_timeout={self.patience.milliseconds} -c lock_timeout=1000"
        connection = psycopg.connect(who, options=options, autocommit=True)
        try:
            if self.fresh is not None:
                self.fresh()
            if self.settings is not None:
                for setting in self.settings:
                    if "_timeout'" not in setting:
                        _execute(connection, setting)
                _become(connection, login)
            connection.pgconn.notice_handler = self._notice
            for statement in self._prepared:
                _execute(connection, statement)
        except BaseException:
            connection.close()
            raise
        return connection

    def _notice(self, result: PGresult) -> None:
        message = diagnostics(result)
        if "there is no transaction in progress" not in message:
            self._notices.append(message)


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
