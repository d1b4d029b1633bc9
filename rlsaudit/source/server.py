"""A PostgreSQL server of our own: private, throw-away, gone when we are."""

from __future__ import annotations

import atexit
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from rlsaudit.errors import NotTrustworthy
from rlsaudit.source import binaries, database, process, stale
from rlsaudit.source.process import last_line

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "jit": "off",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "max_wal_size": "4GB",
    "wal_level": "logical",
    "max_wal_senders": "4",
    "max_replication_slots": "4",
    # One dump or one load takes a lock per object of a schema with thousands of them.
    "max_locks_per_transaction": "1024",
    # Files in our directory instead of /dev/shm, which containers keep small and nobody cleans.
    "dynamic_shared_memory_type": "mmap",
    "log_min_error_statement": "panic",
    "logging_collector": "off",
}
_PINNED = {
    "hostaddr": "",
    "options": "",
    "password": "",
    "gssencmode": "disable",
    "sslmode": "disable",
    "sslnegotiation": "postgres",
    "channel_binding": "disable",
    "require_auth": "",
    "target_session_attrs": "any",
    "load_balance_hosts": "disable",
    "client_encoding": "UTF8",
    "application_name": "rlsaudit",
    "connect_timeout": "10",
}
"""Every connection option that a variable of the environment could set to something that leads astray."""
_SOCKET_ROOM = 80
"""Longest directory name that leaves room for ``/.s.PGSQL.5432`` in a socket address (104 bytes on BSD)."""
_BOOT_SECONDS = 60.0
_PORT = "5432"


class ScratchServer:
    """A server in a private directory (mode 0700), reachable through a Unix socket in it and no other way.

    Use it as a context manager, or call ``start`` and ``stop``.  It is stopped and its directory removed when
    the interpreter exits; on Linux it ends also with the thread that called ``start``, however that ends.
    """

    shared = False
    """Its roles are ours alone, so they may be changed."""

    def __init__(self, pg_bin: Path | None = None) -> None:
        """``pg_bin``: the bin directory of the server to use instead of the embedded one."""
        self._pg_bin = pg_bin
        self._bin: Path | None = None
        self._directory: Path | None = None
        self._account: binaries.Account | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._owner = os.getpid()
        self._booting = True
        self._version = ""
        self._version_num = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make a cluster and start the server.  Raises NotTrustworthy when it does not come up."""
        if self._directory is not None:
            return
        self._owner = os.getpid()
        atexit.register(self.stop)
        try:
            self._boot()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server at once and remove its directory; does nothing when there is none."""
        if self._owner != os.getpid():
            return  # a forked child must not take its parent's server away
        with process.signals_held():
            child, self._process = self._process, None
            if child is not None:
                # initdb leaves children that go on writing unless its whole group is killed.
                process.end(child, grace=0 if self._booting else 10)
            directory, self._directory = self._directory, None
            if directory is not None:
                process.end_other(directory / "data")
                _remove(directory)
            lock, self._lock = self._lock, None
            if lock is not None:
                os.close(lock)
        atexit.unregister(self.stop)

    @property
    def directory(self) -> Path:
        """The private directory; the socket is in it.  Raises RuntimeError when the server is not running."""
        if self._directory is None:
            raise RuntimeError("the scratch server is not running")
        return self._directory

    @property
    def version(self) -> str:
        """``18.6``, as ``SHOW server_version`` prints it."""
        return self._version

    @property
    def version_num(self) -> int:
        """``180006``, as ``SHOW server_version_num`` prints it."""
        return self._version_num

    @property
    def major(self) -> int:
        return self._version_num // 10000

    def binary(self, name: str) -> Path:
        """The path of one of the server's programs.  Raises NotTrustworthy when the installation lacks it."""
        directory = self._bin or binaries.locate(self._pg_bin)
        path = directory / name
        if not path.is_file():
            raise NotTrustworthy(f"{directory}: no program {name!r} there; name a complete bin directory with --pg-bin")
        return path

    def conninfo(self, dbname: str = "postgres", user: str = "postgres") -> str:
        """A libpq connection string; what PG* variables could change is pinned, so none leads elsewhere."""
        known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
        pinned = {name: value for name, value in _PINNED.items() if name in known}
        return make_conninfo(host=str(self.directory), port=_PORT, user=user, dbname=dbname, **pinned)

    def connect(
        self, dbname: str = "postgres", user: str = "postgres", autocommit: bool = True
    ) -> psycopg.Connection[tuple[object, ...]]:
        """Open a session.  Raises psycopg.Error."""
        return database.Watched.connect(self.conninfo(dbname, user), autocommit=autocommit)

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, a copy of ``template`` (in use by nobody) or empty.  Raises psycopg.Error."""
        # Without fsync a checkpoint costs little, and copying files half of what writing every page to the log does.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        names = sql.Identifier(name), sql.Identifier(template or "template0")
        with self.connect() as connection:
            connection.execute(statement.format(*names))
        if template is not None:
            with self.connect(name) as connection:
                database.settle(connection, template)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, ending the sessions in it.  Raises psycopg.Error."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        with self.connect() as connection:
            connection.execute(statement.format(sql.Identifier(name)))

    def await_back(self) -> None:
        """Wait until it takes connections again after the crash of a session.

        Raises ServerLost when it has ended: what was written last may be gone, and nobody starts it again.
        """
        database.await_back(self.conninfo(), _BOOT_SECONDS, self._ended)

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def dump_schema(self, dbname: str, *, data: bool) -> str:
        """What pg_dump prints of a database, owners, grants and policies included; ``data`` adds the rows.

        Raises NotTrustworthy with pg_dump's last line when it fails.
        """
        extent = [] if data else ["--schema-only"]
        command: list[str | Path] = [self.binary("pg_dump"), "--dbname", self._address(dbname), *extent]
        code, output, errors = self.run(command, timeout=600)
        if code != 0:
            raise NotTrustworthy(f"pg_dump of the scratch database {dbname!r} failed: {last_line(errors)}")
        return output

    def run_psql(self, dbname: str, script: str | Path, *, timeout: float) -> tuple[int, str]:
        """Run a script through the real psql, going on after errors; returns exit code and combined output.

        The script is fed through standard input, so psql's own account need not be able to read a file.  No
        PG* variable and no psqlrc has a say.  Raises NotTrustworthy after ``timeout`` seconds.
        """
        text = script.read_text(encoding="utf-8") if isinstance(script, Path) else script
        options = ["-X", "-q", "-v", "ON_ERROR_STOP=0", "--no-password", "--dbname", self._address(dbname)]
        psql = self.binary("psql")
        path = f"{Path(psql).parent}:{process.clean_environment()['PATH']}"  # a script may start another psql
        code, output, _ = self.run(
            [psql, *options], timeout=timeout, stdin=text, environment={"PATH": path}, merge=True
        )
        return code, output

    def run(
        self,
        command: Sequence[str | Path],
        *,
        timeout: float,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        merge: bool = False,
    ) -> tuple[int, str, str]:
        """Run one of the server's programs as the server's account: exit code, output, errors.

        ``merge`` sends the errors to the output, in order.  Raises NotTrustworthy after ``timeout`` seconds.
        """
        with process.signals_held():
            child = process.spawn(
                command,
                account=self._account,
                environment=process.clean_environment(**(environment or {})),
                cwd=self.directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            )
        with child:
            try:
                output, errors = child.communicate(stdin.encode(), timeout)
            except subprocess.TimeoutExpired as error:
                program = Path(command[0]).name
                raise NotTrustworthy(f"{program} did not end within {timeout:g} seconds") from error
            finally:
                process.end(child, grace=0)
        return child.returncode, output.decode(errors="replace"), (errors or b"").decode(errors="replace")

    def _address(self, dbname: str) -> str:
        """The connection string for programs, whose libpq may be too old to know every pinned option."""
        return make_conninfo(host=str(self.directory), port=_PORT, user="postgres", dbname=dbname)

    def _boot(self) -> None:
        found = binaries.locate(self._pg_bin)
        self._account = binaries.unprivileged_account()
        self._directory = _new_directory_name(self._account is not None)
        owners = {os.geteuid(), self._account.uid} if self._account else {os.geteuid()}
        stale.remove_stale(self._directory.parent, owners)
        try:
            self._directory.mkdir(mode=0o700)
            self._lock = stale.claim(self._directory)
            if self._account:
                os.chown(self._directory, self._account.uid, self._account.gid)
            self._bin = self._runnable(found)
        except OSError as error:
            raise NotTrustworthy(
                f"the scratch server cannot be set up in {self._directory}: {error.strerror}"
            ) from error
        self._initdb()
        log = self._directory / "log"
        self._booting = False
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        place: list[str | Path] = ["-D", self._directory / "data", "-k", self._directory, "-p", _PORT]
        with log.open("ab") as output:
            server = self._launch([self.binary("postgres"), *place, *settings], output)
        self._await_ready(server, log)

    def _runnable(self, directory: Path) -> Path:
        """``directory``, or a private copy of the installation when the account cannot run it there."""
        if self._account is None or self._runs(directory):
            return directory
        private = self.directory / "pg"
        private.mkdir(mode=0o755)
        copied = binaries.copy_installation(directory, private)
        if not self._runs(copied):
            raise NotTrustworthy(
                f"{directory}: the account {self._account.name!r} can run these programs neither there nor "
                "from a copy; move them to a directory that it can read"
            )
        return copied

    def _runs(self, directory: Path) -> bool:
        try:
            return self.run([directory / "postgres", "--version"], timeout=30)[0] == 0
        except OSError:
            return False

    def _initdb(self) -> None:
        command: list[str | Path] = [self.binary("initdb"), "-D", self.directory / "data", "-U", "postgres"]
        command += ["-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8", "--no-instructions"]
        version = re.search(r"\) (\d+)", self.run([self.binary("initdb"), "--version"], timeout=30)[1])
        if version and int(version[1]) >= 16:  # 15 has no such option
            # What is ended half way must not leave its shared memory where nobody clears up.
            command += ["--set", "dynamic_shared_memory_type=mmap"]
        log = self.directory / "initdb.log"
        with log.open("ab") as output:
            child = self._launch(command, output)
        try:
            code = child.wait(_BOOT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise NotTrustworthy(f"initdb did not end within {_BOOT_SECONDS:g} seconds") from error
        self._process = None
        if code != 0:
            raise NotTrustworthy(f"{command[0]} failed: {last_line(log.read_text(errors='replace'))}")

    def _launch(self, command: Sequence[str | Path], output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a child and remember it; a signal in between cannot make us forget it."""
        with process.signals_held():
            try:
                self._process = process.spawn(
                    command,
                    account=self._account,
                    environment=process.clean_environment(),
                    cwd=self.directory,
                    stdout=output,
                )
            except OSError as error:
                raise NotTrustworthy(f"{command[0]} cannot be run: {error.strerror}") from error
            return self._process

    def _await_ready(self, server: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + _BOOT_SECONDS
        while True:
            try:
                with self.connect() as connection:
                    self._version = str(connection.info.parameter_status("server_version"))
                    self._version_num = connection.info.server_version
                    return
            except psycopg.OperationalError as error:
                reason = str(error)
            if server.poll() is not None:
                reason = last_line(log.read_text(errors="replace"))
                raise NotTrustworthy(f"the scratch server did not start: {reason}")
            if time.monotonic() > deadline:
                waited = f"the scratch server is not ready after {_BOOT_SECONDS:g} s"
                raise NotTrustworthy(f"{waited}: {last_line(reason)}")
            time.sleep(0.01)


def _new_directory_name(for_other_account: bool) -> Path:
    """A fresh name in the temporary directory, or in /tmp when that is too long or closed to the account."""
    with process.signals_held():  # it writes a file to see whether it can
        base = Path(tempfile.gettempdir())
    closed = for_other_account and any(not p.stat().st_mode & 0o001 for p in (base, *base.parents))
    if closed or len(os.fsencode(base)) > _SOCKET_ROOM - 20:
        base = Path("/tmp")  # noqa: S108  (a private directory is made inside)
    return base / f"{stale.PREFIX}{secrets.token_hex(5)}"


def _remove(directory: Path) -> None:
    """Remove a tree, again when a dying process still wrote into it."""
    for _ in range(5):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)
