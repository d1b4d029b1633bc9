"""Running SQL files in a scratch database, as the superuser, the way psql would, up to the first error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from rlsaudit.errors import UsageError
from rlsaudit.source.commands import Connect, Include, carry_out
from rlsaudit.source.deadline import Deadline
from rlsaudit.source.execute import Executor
from rlsaudit.source.files import SqlFile, included
from rlsaudit.source.leaving import Leaving
from rlsaudit.source.places import Places
from rlsaudit.source.script import Session
from rlsaudit.source.seal import seal
from rlsaudit.source.splitter import split

_DEEPEST = 50


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load did beyond running statements."""

    roles_created: tuple[str, ...]
    """Roles that the SQL names but never creates; made as plain NOLOGIN roles."""
    statements: int
    notes: tuple[str, ...]
    places: Mapping[str, tuple[str, int]]
    """Object identity as the server prints it (``table public.t``, ``policy p on public.t``) → file and line
    of the statement that created it last (or altered it, for a policy)."""


def load_sql(
    connection_factory: Callable[[], psycopg.Connection[tuple[object, ...]]],
    sources: Sequence[SqlFile],
    *,
    statement_seconds: float = 300,
    offered: frozenset[str] = frozenset(),
    leaving: Leaving | None = None,
) -> LoadResult:
    """Run ``sources`` in order in the database that ``connection_factory`` opens as a superuser.

    One session runs them all, so that SET lasts as it does in psql.  SQL has the powers of the server's
    account; what reaches the shell, files or other servers through psql or COPY is refused.  Roles belong to
    the cluster: two loads that must not share them need two servers.  CREATE EXTENSION of what is in ``offered``
    is passed over where the server lacks it, because a preset has made what it gives.  With ``leaving``,
    statements that fail for the lack of something are left out and kept there.

    Raises UsageError with file and line: a statement that fails or takes longer than ``statement_seconds``, a
    refused command, a transaction left open.  Raises NotTrustworthy when the server ends the session.
    """
    places = Places()
    with connection_factory() as side, Deadline(statement_seconds) as deadline:
        side.autocommit = True
        places.install(side)
        executor = Executor(connection_factory, side, places, deadline, offered, leaving)
        try:
            loader = _Loader(executor)
            for source in sources:
                loader.run(source, 0)
                executor.check_finished(source.name)
            for note in seal(side):
                executor.note(note)
        finally:
            executor.close()
            places.remove(side)
    return LoadResult(
        roles_created=tuple(executor.roles_created),
        statements=executor.count,
        notes=tuple(executor.notes),
        places=dict(places.found),
    )


class _Loader:
    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.session: Session = executor.session

    def run(self, source: SqlFile, depth: int) -> None:
        if depth > _DEEPEST:
            raise UsageError(f"{source.name}: files include each other more than {_DEEPEST} deep; break the cycle")
        for item in split(source.text, source.name, self.session):
            action = carry_out(item, self.executor)
            where = f"{item.file}:{item.line}"
            if isinstance(action, Include):
                try:
                    file = included(action.name, source, relative=action.relative)
                except UsageError as error:
                    raise UsageError(f"{where}: {error}") from error
                self.run(file, depth + 1)
            elif isinstance(action, Connect):
                self.executor.reconnect(action.role, where)
