"""Running PostgreSQL's programs against the user's server, without a password where other users could see it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo

from rlsaudit.errors import NotTrustworthy
from rlsaudit.source import process
from rlsaudit.source.dsn import parameters

_RECENT = {"require_auth": "", "load_balance_hosts": "disable", "sslnegotiation": "postgres"}
"""Defaults of connection options that the libpq of an older program refuses to hear of."""


@dataclass(frozen=True, slots=True)
class Address:
    """How a program reaches a database; the password is in the environment alone."""

    conninfo: str
    environment: Mapping[str, str]
    password: str | None


def address(dsn: str, dbname: str | None = None) -> Address:
    """The database that ``dsn`` opens, or another of the same server.  Raises NotTrustworthy."""
    given = parameters(dsn)
    environment = {**os.environ, "LC_ALL": "C"}
    password = given.pop("password", None)
    if password is not None:
        environment["PGPASSWORD"] = password
    if given.pop("sslpassword", None) is not None:
        raise NotTrustworthy(
            "pg_dump cannot be given an sslpassword without showing it to other users; use a key without one"
        )
    given = {name: value for name, value in given.items() if _RECENT.get(name) != value}
    given.setdefault("application_name", "rlsaudit")
    given.setdefault("connect_timeout", "10")
    if dbname is not None:
        given["dbname"] = dbname
    return Address(make_conninfo(**given), environment, password)


def run(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    timeout: float,
    stdin: str = "",
    merge: bool = False,
) -> tuple[int, bytes, bytes]:
    """Exit code, output and errors of a program that runs as ourselves, who may have a passfile and certificates.

    ``merge`` sends the errors to the output.  Raises subprocess.TimeoutExpired; the program is ended then.
    """
    with process.signals_held():
        child = process.spawn(
            command,
            account=None,
            environment=environment,
            cwd=Path.cwd(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
        )
    with child:
        try:
            output, errors = child.communicate(stdin.encode(), timeout)
        finally:
            process.end(child, grace=0)
    return child.returncode, output, errors or b""
