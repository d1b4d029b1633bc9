"""A session of the application role inside a transaction that somebody else holds: savepoints instead of transactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import pq, sql

from rlsaudit.errors import NotTrustworthy, ServerLost
from rlsaudit.probe.ground.session import Session, Transcript
from rlsaudit.probe.ground.statement_text import text
from rlsaudit.probe.ground.wire import exchange

_SAVEPOINT = "rlsaudit_attack"
Connection = psycopg.Connection[tuple[object, ...]]


def settle(connection: Connection) -> None:
    """Settings of the host's transaction: nothing of its own ends it, and no event trigger minds what the probe makes."""
    connection.execute("SET LOCAL statement_timeout = 0")
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    if connection.info.server_version >= 170000:
        connection.execute("SET LOCAL transaction_timeout = 0")
        connection.execute("SET LOCAL event_triggers = off")


@dataclass
class Guest(Session):
    """Programs are run as ``role`` after a savepoint and undone before the next one.

    The role is taken by SET LOCAL SESSION AUTHORIZATION, which the rollback to the savepoint takes back as well.
    """

    host: Connection | None = None
    _before: tuple[str, ...] = ()
    _helpers: dict[str, bool] = field(default_factory=dict)

    def enter(self, settings: Iterable[str]) -> None:
        """Begin: a savepoint on the host's transaction, and those of the role's settings that can be given here."""
        self._host.execute(f"SAVEPOINT {_SAVEPOINT}".encode())
        become = text(sql.SQL("SET LOCAL SESSION AUTHORIZATION {}").format(sql.Identifier(self.role)))
        usable = [one for one in settings if "_timeout'" not in one and not self._fails(one)]
        self._before = (*usable, become)

    def transaction(self, statements: Sequence[str]) -> Transcript:
        """Run ``statements`` after the savepoint; only their own replies are given."""
        helpers = [
            one for one, works in self._helpers.items() if works and any("rlsaudit_peek" in s for s in statements)
        ]
        timeout = f"SET LOCAL statement_timeout = {self.patience.milliseconds}"
        first = [f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}", timeout, *self._before, *helpers]
        self.statements += len(statements)
        pgconn = self._host.pgconn
        pgconn.notice_handler = self._notice
        self._notices.clear()
        replies = exchange(pgconn, [*first, *statements])
        gone = pgconn.status == pq.ConnStatus.BAD
        if gone or len(replies) < len(first) or any(one.sqlstate for one in replies[: len(first)]):
            said = " ".join((replies[-1].error if replies else "").split()) or "no answer"
            raise (ServerLost if gone else NotTrustworthy)(f"the one transaction on the target is lost: {said}")
        own = tuple(replies[len(first) :])
        self.patience.note(own)
        if self.heard is not None:
            self.heard += own
        return Transcript(own, tuple(self._notices))

    def run(self, statements: Sequence[str]) -> Transcript:  # noqa: ARG002
        """Nothing is ever committed here.  Raises RuntimeError."""
        raise RuntimeError("a guest's statements go through transaction()")

    def prepare(self, statement: str) -> None:
        """Make a helper available to the programs that use it, if the role may make it."""
        if statement not in self._helpers:
            self._helpers[statement] = not self.transaction([statement]).failed

    def rest(self) -> None:
        """Undo the last program."""
        self._host.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}".encode())

    def leave(self) -> None:
        """Undo the last program and take the savepoint away: what follows stands where ``enter`` found it."""
        self.rest()
        self._host.execute(f"RELEASE SAVEPOINT {_SAVEPOINT}".encode())

    def close(self) -> None:
        """The connection is the host's; the last program is undone."""
        self.rest()

    @property
    def _host(self) -> Connection:
        assert self.host is not None
        return self.host

    def _fails(self, statement: str) -> bool:
        try:
            with self._host.transaction(force_rollback=True):
                self._host.execute(statement.encode())
        except psycopg.Error:
            return True
        return False
