"""Running single statements in a scratch database: missing roles, savepoints, errors with file and line."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from rlsaudit.catalog.identifiers import quote
from rlsaudit.errors import NotTrustworthy, UsageError
from rlsaudit.source.deadline import Deadline
from rlsaudit.source.dsn import redact
from rlsaudit.source.extensions import STAND_INS, stand_in_for
from rlsaudit.source.leaving import Leaving
from rlsaudit.source.places import Places
from rlsaudit.source.presets import expected_by
from rlsaudit.source.rewrite import Prepared, Refused, created_role, prepare, role_as_alteration
from rlsaudit.source.script import Session, Statement

Connection = psycopg.Connection[tuple[object, ...]]

_NO_ROLE = re.compile(r'role "(.*)" does not exist\Z', re.DOTALL)
_ROLE_EXISTS = re.compile(r'role "(.*)" already exists\Z', re.DOTALL)
_NO_EXTENSION = re.compile(r'extension "([^"]+)" is not available|control file ".*/([^"/]+)\.control"')
_ABSENT_EXTENSION = re.compile(r'extension "([^"]+)" does not exist\Z')
_COPY_LINE = re.compile(r"^COPY .*, line (\d+)", re.MULTILINE)
_SUPERUSER = "postgres"
_SHOWN = 100


class MissingExtension(UsageError):
    """The scratch server lacks an extension that the SQL creates."""


class Executor:
    """The session that runs the statements of one load, and what it notes on the way."""

    def __init__(
        self,
        factory: Callable[[], Connection],
        side: Connection,
        places: Places,
        deadline: Deadline,
        offered: frozenset[str] = frozenset(),
        leaving: Leaving | None = None,
    ) -> None:
        """``side`` is a second superuser session, for what the script's own ROLLBACK must not undo.

        ``offered`` are extensions whose objects are there already, made by a preset; ``leaving`` takes up what may be
        left out, None for nothing.
        """
        self._offered = offered
        self._leaving = leaving
        self._factory = factory
        self._side = side
        self._places = places
        self._deadline = deadline
        self._declared: set[str] = set()
        self._created: dict[str, None] = {}
        self._notes: dict[str, None] = {}
        self._opened = ""
        self.count = 0
        self.session = Session()
        self._connection = self._open()

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    @property
    def roles_created(self) -> tuple[str, ...]:
        return tuple(role for role in self._created if role not in self._declared)

    def note(self, text: str) -> None:
        """Keep a remark for the report, once."""
        self._notes[redact(text)] = None

    def close(self) -> None:
        self._connection.close()

    def reconnect(self, role: str, where: str) -> None:
        """Begin a new session, as ``role`` if one is named.  Raises UsageError inside a transaction."""
        self.check_finished(where)
        self._connection.close()
        self._connection = self._open()
        if role:
            self._ensure_role(role, where)
            self._connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))

    def check_finished(self, where: str) -> None:
        """Raises UsageError when a transaction is open: the end of a script would undo it silently."""
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            raise UsageError(
                f"{where}: the transaction begun at {self._opened} is still open here, so nothing of it "
                "would remain; add COMMIT"
            )

    def execute(self, statement: Statement) -> None:
        """Run one statement, creating the roles it misses.  Raises UsageError with file and line."""
        try:
            prepared = prepare(
                statement.text,
                self._connection.info.dbname,
                standard_strings=self.session.standard_conforming_strings,
            )
        except Refused as error:
            raise UsageError(f"{statement.file}:{statement.line}: {error}") from error
        if prepared.note:
            self.note(prepared.note)
        if not prepared.text:
            return
        rows = self._attempt(statement, prepared)
        self.count += 1
        self._places.settle(statement.file, statement.line)
        role = created_role(prepared.text) if prepared.words[:1] == ("create",) else None
        if role is not None:
            self._declared.add(role)
            # Event triggers do not see what belongs to the cluster.
            self._places.found[f"role {quote(role)}"] = (statement.file, statement.line)
        self._learn(statement, rows)

    def _open(self) -> Connection:
        connection = self._factory()
        connection.autocommit = True
        connection.prepare_threshold = None
        connection.add_notice_handler(self._places.listen)
        variables = self.session.variables
        variables |= {"DBNAME": connection.info.dbname, "USER": connection.info.user, "ENCODING": "UTF8"}
        variables["SERVER_VERSION_NUM"] = str(connection.info.server_version)
        variables["SERVER_VERSION_NAME"] = str(connection.info.parameter_status("server_version"))
        return connection

    def _attempt(self, statement: Statement, prepared: Prepared) -> psycopg.Cursor[tuple[object, ...]]:
        """Run, and run again as long as an attempt fails for the lack of one more role."""
        made: set[str] = set()
        while True:
            try:
                return self._run(statement, prepared)
            except psycopg.Error as error:
                self._places.forget()
                message = error.diag.message_primary or str(error)
                exists = _ROLE_EXISTS.match(message) if error.sqlstate == "42710" else None
                if exists and (rows := self._align_role(statement, prepared, exists.group(1))) is not None:
                    return rows
                if (substitute := self._stand_in(prepared, error)) is not None:
                    return substitute
                missing = _NO_ROLE.search(message) if error.sqlstate in ("42704", "22023") else None
                fixed = self._leaving is not None and self._leaving.roles_fixed
                if missing is None or fixed or missing.group(1) in made:
                    if self._left_out(statement, prepared, error):
                        return self._connection.cursor()
                    raise self._failure(statement, prepared, error) from error
                made.add(missing.group(1))
                self._ensure_role(missing.group(1), f"{statement.file}:{statement.line}")
                # Locking a relation makes the session look again; SET ROLE alone would not.
                self._connection.execute("SELECT FROM pg_catalog.pg_roles LIMIT 0")

    def _stand_in(self, prepared: Prepared, error: psycopg.Error) -> psycopg.Cursor[tuple[object, ...]] | None:
        """What takes the place of a CREATE EXTENSION that the server cannot do, or of a remark about one."""
        said = f"{error.diag.message_primary} {error.diag.message_detail or ''}"
        lacking = _NO_EXTENSION.search(said) if prepared.words[:2] == ("create", "extension") else None
        if lacking:
            name = lacking.group(1) or lacking.group(2)
            note = stand_in_for(self._connection, name, prepared.text)
            if note is None and name in self._offered:
                note = f"extension {name} is not there; only what the preset makes in its place is"
            if note is None:
                return None
            self.note(note)
            return self._connection.cursor()
        about = _ABSENT_EXTENSION.match(error.diag.message_primary or "")
        return self._connection.cursor() if about and about.group(1) in {*STAND_INS, *self._offered} else None

    def _left_out(self, statement: Statement, prepared: Prepared, error: psycopg.Error) -> bool:
        if self._leaving is None or self._connection.closed:
            return False
        said = " ".join(part for part in (error.diag.message_primary, error.diag.message_detail) if part)
        return self._leaving.excuse(_excerpt(statement.text), prepared.words, error.sqlstate or "", _one_line(said))

    def _run(self, statement: Statement, prepared: Prepared) -> psycopg.Cursor[tuple[object, ...]]:
        connection = self._connection
        inside = connection.info.transaction_status == TransactionStatus.INTRANS
        guarded = inside and not prepared.controls_transaction
        if guarded:
            connection.execute("SAVEPOINT rlsaudit_statement")
        self._deadline.begin(connection)
        try:
            cursor = self._send(statement, prepared)
        except psycopg.Error:
            self._deadline.end()
            if guarded and connection.info.transaction_status == TransactionStatus.INERROR:
                connection.execute("ROLLBACK TO SAVEPOINT rlsaudit_statement")
                connection.execute("RELEASE SAVEPOINT rlsaudit_statement")
            raise
        finally:
            self._deadline.end()
        status = connection.info.transaction_status
        if guarded and status == TransactionStatus.INTRANS:
            connection.execute("RELEASE SAVEPOINT rlsaudit_statement")
        if not inside and status == TransactionStatus.INTRANS:
            self._opened = f"{statement.file}:{statement.line}"
        return cursor

    def _send(self, statement: Statement, prepared: Prepared) -> psycopg.Cursor[tuple[object, ...]]:
        cursor = self._connection.cursor()
        text = prepared.text.encode()
        if statement.copy_data is not None:
            with cursor.copy(text) as copy:
                copy.write(statement.copy_data)
        elif prepared.to_client:
            with cursor.copy(text) as copy:
                for _ in copy:
                    pass
        else:
            cursor.execute(text)
        return cursor

    def _ensure_role(self, name: str, where: str) -> None:
        """Create a role that is named but never created: plain, because nothing says what it may do."""
        try:
            self._side.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
        except psycopg.errors.DuplicateObject:
            return
        except psycopg.Error as error:
            raise UsageError(
                f"{where}: role {name!r} does not exist on the scratch server and cannot be created: "
                f"{error.diag.message_primary}; a newer server may have it (--pg-bin)"
            ) from error
        self._created[name] = None

    def _align_role(
        self, statement: Statement, prepared: Prepared, name: str
    ) -> psycopg.Cursor[tuple[object, ...]] | None:
        """CREATE ROLE of a role that we made, or another load: alter it to match.  None if it is not that."""
        if created_role(prepared.text) != name or name in self._declared:
            return None
        if name == _SUPERUSER:
            self.note(f"CREATE ROLE {_SUPERUSER} is left out: the scratch server's superuser has that name")
            return self._connection.cursor()
        cursor = self._connection.cursor()
        for text in role_as_alteration(prepared.text):
            cursor = self._attempt(Statement(text, statement.file, statement.line), Prepared(text))
        return cursor

    def _learn(self, statement: Statement, rows: psycopg.Cursor[tuple[object, ...]]) -> None:
        """Keep what later statements depend on, and run the statements that a query produced."""
        standard = self._connection.info.parameter_status("standard_conforming_strings")
        self.session.standard_conforming_strings = standard != "off"
        self.session.variables["ROW_COUNT"] = str(max(rows.rowcount, 0))
        if statement.ending not in ("gset", "gexec"):
            return
        where = f"{statement.file}:{statement.line}"
        if rows.description is None:
            raise UsageError(f"{where}: \\{statement.ending} wants a query that returns rows")
        found = rows.fetchall()
        if statement.ending == "gexec":
            for text in (str(cell) for row in found for cell in row if cell is not None):
                self.execute(Statement(text, statement.file, statement.line))
            return
        if len(found) != 1:
            raise UsageError(f"{where}: \\gset wants one row, the query returned {len(found)}")
        for column, cell in zip(rows.description, found[0], strict=True):
            name = statement.argument + column.name
            if cell is None:
                self.session.variables.pop(name, None)
            else:
                self.session.variables[name] = str(cell)

    def _failure(self, statement: Statement, prepared: Prepared, error: psycopg.Error) -> UsageError:
        if isinstance(error, psycopg.OperationalError) and self._connection.closed:
            raise NotTrustworthy(
                f"{statement.file}:{statement.line}: the scratch server ended the session: {_one_line(str(error))}"
            ) from error
        message = error.diag.message_primary or str(error)
        excerpt = _excerpt(statement.text)
        where = f"{statement.file}:{_line_of(statement, prepared, error)}"
        if self._deadline.expired:
            limit = f"{self._deadline.seconds:g}"
            return UsageError(f"{where}: {excerpt}: still running after {limit} seconds; it was cancelled")
        extension = _NO_EXTENSION.search(f"{message} {error.diag.message_detail or ''}")
        if extension:
            name = extension.group(1) or extension.group(2)
            version = self._connection.info.parameter_status("server_version")
            return MissingExtension(
                f"{where}: the scratch server (PostgreSQL {version}) has no extension {name!r}; name the bin "
                "directory of a server that has it with --pg-bin, or leave it out if no policy depends on it"
            )
        hint = f" (hint: {error.diag.message_hint})" if error.diag.message_hint else ""
        if message.endswith('at or near ":"'):
            hint = " (hint: a psql variable that is not set; give it a value with \\set first)"
        expected = expected_by(message, statement.file)
        mend = f"; the SQL expects a platform: --preset {expected}" if expected and not self._offered else ""
        return UsageError(f"{where}: {excerpt}: {redact(_one_line(message + hint))}{mend}")


def _line_of(statement: Statement, prepared: Prepared, error: psycopg.Error) -> int:
    """The line of the file that the server complains of, as far as it says so."""
    context = _COPY_LINE.search(error.diag.context or "")
    if statement.copy_data is not None and context:
        return statement.copy_line + int(context.group(1)) - 1
    position = error.diag.statement_position
    if position and position.isdigit():
        return statement.line + prepared.text.count("\n", 0, int(position) - 1)
    return statement.line


def _excerpt(text: str) -> str:
    shown = redact(_one_line(text))
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"


def _one_line(text: str) -> str:
    return " ".join(text.split())
