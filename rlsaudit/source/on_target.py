"""Scratch databases on the target's own cluster: made under names of ours, dropped whatever happens.

Nothing that belongs to the whole cluster is changed.  Roles keep their attributes and passwords: sessions are opened
with the DSN, whose login must be a superuser, and become the application role by SET SESSION AUTHORIZATION.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from rlsaudit.errors import Leftovers, NotTrustworthy, ServerLost
from rlsaudit.source import binaries, database, process, programs, stale
from rlsaudit.source.dsn import redact
from rlsaudit.source.process import last_line

_PREFIX = "rlsaudit_scratch_"
_STAMP = "%Y%m%d%H%M"
_OURS = re.compile(re.escape(_PREFIX) + r"(\d{12})_[0-9a-f]{4}_")
_OLD = timedelta(days=1)
_AWAY = 120.0
"""Seconds that a server may take to come back: a restart with recovery, not an outage."""
_NEWER = re.compile(r"^(SET transaction_timeout = .*|\\(un)?restrict .*)\n", re.MULTILINE)
"""Lines of a newer pg_dump that an older server does not know and that change nothing here."""

Connection = psycopg.Connection[tuple[object, ...]]


class TargetScratch:
    """Databases of our own on the cluster that ``dsn`` leads to; all of them are dropped when the block ends."""

    shared = True
    """Its roles are the user's, so they are not changed."""

    def __init__(self, dsn: str, pg_bin: Path | None = None) -> None:
        """``pg_bin``: the bin directory whose psql and pg_dump are used instead of the embedded ones."""
        self._dsn = dsn
        self._pg_bin = pg_bin
        self._owner = os.getpid()
        self._prefix = f"{_PREFIX}{datetime.now(UTC).strftime(_STAMP)}_{secrets.token_hex(2)}_"
        self._directory: Path | None = None
        self._lock = -1
        self._away = False
        self._version_num = 0
        self._locale: sql.Composable = sql.SQL("")
        self.version = ""
        self.notes: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        with self.connect() as connection:
            self._examine(connection)
        base = Path(tempfile.gettempdir())
        stale.remove_stale(base, {os.geteuid()})
        self._directory = base / f"{stale.PREFIX}{secrets.token_hex(5)}"
        self._directory.mkdir(mode=0o700)
        self._lock = stale.claim(self._directory)
        atexit.register(self.stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Drop every database that was made.  Raises Leftovers, naming them, when the server does not let us."""
        if self._directory is None or self._owner != os.getpid():
            return
        if not self._away:
            with suppress(ServerLost):
                self.await_back()
        with process.signals_held():
            directory, self._directory = self._directory, None
            shutil.rmtree(directory, ignore_errors=True)
            os.close(self._lock)
            atexit.unregister(self.stop)
            try:
                with self.connect() as connection:
                    self._drop_all(connection)
            except (NotTrustworthy, psycopg.Error) as error:
                said = redact(" ".join(str(error).split()))
                raise Leftovers(
                    f"scratch databases may be left on the target, drop those named {self._prefix}…: {said}"
                ) from None

    @property
    def directory(self) -> Path:
        """A private directory for files of the run.  Raises RuntimeError outside the block."""
        if self._directory is None:
            raise RuntimeError("not in use")
        return self._directory

    @property
    def major(self) -> int:
        return self._version_num // 10000

    def binary(self, name: str) -> Path:
        """The path of a client program.  Raises NotTrustworthy when the installation lacks it."""
        path = binaries.locate(self._pg_bin) / name
        if not path.is_file():
            raise NotTrustworthy(
                f"{path.parent}: no program {name!r} there; name a complete bin directory with --pg-bin"
            )
        return path

    def name(self, dbname: str) -> str:
        """What a scratch database is called on the cluster; ``postgres`` stands for the target itself."""
        return self._prefix + dbname.removeprefix("rlsaudit_") if dbname != "postgres" else ""

    def conninfo(self, dbname: str = "postgres", user: str = "") -> str:  # noqa: ARG002 - as ScratchServer
        """The DSN with another database; ``user`` has no say, because only the DSN's own login is known."""
        there = self.name(dbname)
        named = {"dbname": there} if there else {}
        return make_conninfo(self._dsn, application_name="rlsaudit", **named)

    def connect(self, dbname: str = "postgres", user: str = "", autocommit: bool = True) -> Connection:  # noqa: ARG002
        """Open a session of the DSN's login.  Raises psycopg.Error, or NotTrustworthy for the target itself."""
        try:
            return database.Watched.connect(self.conninfo(dbname), autocommit=autocommit, prepare_threshold=None)
        except psycopg.Error as error:
            if self.name(dbname):
                raise
            raise NotTrustworthy(f"cannot connect: {_said(error)}") from None

    def await_back(self) -> None:
        """Wait for a server that is being restarted.  Raises ServerLost when it is not back in time."""
        try:
            database.await_back(self.conninfo(), _AWAY)
        except ServerLost:
            self._away = True
            raise

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, a copy of ``template`` (in use by nobody) or empty.  Raises psycopg.Error."""
        real = self.name(name)
        with self.connect() as connection:
            if template is None:
                made = sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}").format(sql.Identifier(real), self._locale)
            else:
                made = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(real), sql.Identifier(self.name(template))
                )
            connection.execute(made)
        if template is not None:
            with self.connect(name) as connection:
                database.settle(connection, self.name(template))

    def drop_database(self, name: str) -> None:
        """Drop a database of ours if it exists, ending the sessions in it.  Raises psycopg.Error."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        with self.connect() as connection:
            connection.execute(statement.format(sql.Identifier(self.name(name))))

    def dump_schema(self, dbname: str, *, data: bool) -> str:
        """What pg_dump prints of a scratch database.  Raises NotTrustworthy with its last line when it fails."""
        there = programs.address(self._dsn, self.name(dbname))
        extent = [] if data else ["--schema-only"]
        command: list[str | Path] = [self.binary("pg_dump"), "--no-password", *extent, "--dbname", there.conninfo]
        code, output, errors = programs.run(command, there.environment, timeout=600)
        if code != 0:
            raise NotTrustworthy(f"pg_dump of the scratch database failed: {redact(last_line(errors.decode()))}")
        return self.readable(output.decode())

    def readable(self, dump: str) -> str:
        """A dump without what the cluster's version does not know."""
        return _NEWER.sub("", dump)

    def run_psql(self, dbname: str, script: str | Path, *, timeout: float) -> tuple[int, str]:
        """Run a replay script through psql; the database it makes is called like ours, so that it is dropped with them.

        Raises NotTrustworthy after ``timeout`` seconds.
        """
        text = script.read_text(encoding="utf-8") if isinstance(script, Path) else script
        text = text.replace("'rlsaudit_replay_'", f"'{self._prefix}replay_'")
        there = programs.address(self._dsn, self.name(dbname) or None)
        options = ["-X", "-q", "-v", "ON_ERROR_STOP=0", "--no-password", "--dbname", there.conninfo]
        try:
            command: list[str | Path] = [self.binary("psql"), *options]
            code, output, _ = programs.run(command, there.environment, timeout=timeout, stdin=text, merge=True)
        except subprocess.TimeoutExpired as error:
            raise NotTrustworthy(f"psql did not end within {timeout:g} seconds") from error
        return code, output.decode(errors="replace")

    def _examine(self, connection: Connection) -> None:
        row = connection.execute(
            "SELECT rolsuper, pg_catalog.pg_is_in_recovery(), rolname FROM pg_catalog.pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert row is not None
        superuser, standby, login = row
        if standby:
            raise NotTrustworthy(
                "the target is a standby, on which no database can be made; leave out --scratch-on-target"
            )
        if not superuser:
            raise NotTrustworthy(
                f"--scratch-on-target wants a superuser, and {login} is none: without passwords for the application roles "
                "only a superuser can act as them; connect as one, or leave it out to copy into the embedded server"
            )
        self.version = str(connection.info.parameter_status("server_version"))
        self._version_num = connection.info.server_version
        self._locale = database.like_current(connection)
        self.notes = (
            f"Scratch databases were made on the target's own cluster, as {login}, and dropped afterwards; sessions of the "
            "probe become the application role by SET SESSION AUTHORIZATION, with its settings, instead of logging in as it.",
            *_orphans(connection),
        )

    def _drop_all(self, connection: Connection) -> None:
        names = connection.execute(
            "SELECT datname FROM pg_catalog.pg_database WHERE pg_catalog.starts_with(datname, %s)", (self._prefix,)
        ).fetchall()
        for (name,) in names:
            with suppress(psycopg.errors.InvalidCatalogName):
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(name))))


def _orphans(connection: Connection) -> tuple[str, ...]:
    """A note on databases that runs which were killed have left."""
    rows = connection.execute("SELECT datname FROM pg_catalog.pg_database ORDER BY datname").fetchall()
    limit = (datetime.now(UTC) - _OLD).strftime(_STAMP)
    old = [str(name) for (name,) in rows if (found := _OURS.match(str(name))) and found[1] < limit]
    if not old:
        return ()
    return (
        f"Databases that a killed run of rlsaudit left on the target more than a day ago: {', '.join(old)}; drop them.",
    )


def _said(error: psycopg.Error) -> str:
    return redact(" ".join(str(error).split()))
