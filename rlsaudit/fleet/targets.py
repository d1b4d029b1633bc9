"""The databases of a fleet: from a TOML file, from libpq services, or from a cluster's own list.

A TOML file holds ``[defaults]`` and one ``[targets.NAME]`` each::

    [defaults]
    roles = ["app_user"]
    time_limit = "20m"

    [targets.billing]
    source = "service=billing"
    config = "billing/rlsaudit.toml"
"""

from __future__ import annotations

import configparser
import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rlsaudit import duration
from rlsaudit.errors import UsageError
from rlsaudit.source import dsn

_LISTS = ("roles",)
_TEXTS = ("source", "config", "waivers", "budget", "time_limit", "mode", "preset")
_NUMBERS = ("seed", "retries")
_KEYS = (*_LISTS, *_TEXTS, *_NUMBERS)
_MODES = ("scan", "audit")
_FILES = ("index.html", "test-fleet.xml", "fleet.json")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Target:
    """One database, and how it is to be tested."""

    name: str
    """Names its directory in the output."""
    source: str
    roles: tuple[str, ...] = ()
    config: str = ""
    waivers: str = ""
    budget: str = ""
    preset: str = ""
    mode: str = "scan"
    seed: int | None = None
    time_limit: float = 3600.0
    """Seconds after which it is ended, and is a result without a verdict."""
    service_file: str = ""
    """Connection service file that ``source`` names a service of."""
    retries: int = 1
    """How often it is run again after a run without a verdict."""

    def arguments(self) -> list[str]:
        """Of the command line: ``scan SOURCE --role …``."""
        given = [
            ("--config", self.config),
            ("--waivers", self.waivers),
            ("--budget", self.budget),
            ("--preset", self.preset),
        ]
        given += [("--role", role) for role in self.roles]
        given += [("--seed", str(self.seed))] if self.seed is not None else []
        return [self.mode, self.source, *(part for name, value in given if value for part in (name, value))]


def read(place: Path) -> tuple[Target, ...]:
    """The targets of a TOML file, or of a directory: its ``*.toml`` files, else its libpq service files (``*.conf``).

    Paths in a file are meant from where it stands.  Raises UsageError for what cannot be read, an unknown key, a target
    without a source, no target at all.
    """
    if place.is_dir():
        files = sorted(place.glob("*.toml"))
        found = [target for file in files for target in _toml(file)] if files else list(_services(place))
        return _distinct(found, place)
    return _distinct(list(_toml(place)), place)


def of_cluster(source: str, query: str, defaults: Target) -> tuple[Target, ...]:
    """A target for each database that ``query`` (default: all that take connections) names on the cluster of ``source``.

    Raises UsageError when the query fails or gives no name.
    """
    named = dsn.databases(source, query)
    if not named:
        raise UsageError("--query: names no database")
    found = [replace(defaults, name=_safe(name), source=database) for name, database in named]
    return _distinct(found, Path("the cluster"))


def _toml(file: Path) -> Iterator[Target]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error
    _known(content, ("defaults", "targets"), str(file))
    defaults, targets = content.get("defaults", {}), content.get("targets", {})
    if not isinstance(defaults, dict) or not isinstance(targets, dict):
        raise UsageError(f"{file}: [defaults] and [targets.NAME] are tables")
    if "source" in defaults:
        raise UsageError(f"{file}: defaults.source: every target has a source of its own")
    for name, given in targets.items():
        where = f"{file}: targets.{name}"
        if not _NAME.fullmatch(name):
            raise UsageError(f"{where}: a name holds letters, digits, '.', '_' and '-', because it names a directory")
        if not isinstance(given, dict):
            raise UsageError(f"{where}: must be a table with a source")
        yield _target(name, defaults | given, where, file.parent)


def _target(name: str, given: Mapping[str, object], where: str, beside: Path) -> Target:
    _known(given, _KEYS, where)
    for key, value in given.items():
        kind: type = list if key in _LISTS else int if key in _NUMBERS else str
        wrong = not isinstance(value, kind) or (isinstance(value, list) and not all(isinstance(v, str) for v in value))
        if wrong or isinstance(value, bool):
            raise UsageError(f"{where}.{key}: must be {'a list of texts' if kind is list else kind.__name__}")
    if not given.get("source"):
        raise UsageError(f"{where}: has no source")
    if given.get("mode", "scan") not in _MODES:
        raise UsageError(f"{where}.mode: {given['mode']!r} is none of {', '.join(_MODES)}")
    fields = {key: value for key, value in given.items() if key not in ("time_limit", "roles")}
    for key in ("config", "waivers"):
        fields |= {key: str(beside / str(given[key]))} if given.get(key) else {}
    source = str(given["source"])
    if (beside / source).exists():
        fields["source"] = str(beside / source)
    roles = given.get("roles", ())
    target = Target(name, **fields, roles=tuple(roles) if isinstance(roles, list) else ())  # type: ignore[arg-type]
    return replace(target, time_limit=duration.seconds(str(given["time_limit"]))) if "time_limit" in given else target


def _known(given: Mapping[str, object], keys: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            raise UsageError(f"{where}.{key}: unknown{f'; did you mean {near[0]}?' if near else ''}")


def _services(directory: Path) -> Iterator[Target]:
    """The services of connection service files (PostgreSQL manual, 32.17)."""
    for file in sorted(directory.glob("*.conf")):
        parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True, default_section="")
        try:
            parser.read_string(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}") from error
        except (configparser.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: {' '.join(str(error).split())}") from error
        for name in parser.sections():
            # By name: what the file holds may be a password.
            yield Target(_safe(name), dsn.of_service(name), service_file=str(file.resolve()))


def _safe(name: str) -> str:
    """A name for a directory; what it may not hold becomes its code."""
    plain = "".join(c if re.match(r"[A-Za-z0-9._-]", c) else f"%{ord(c):x}" for c in name)[:100]
    return plain if _NAME.fullmatch(plain) else f"x{plain.replace('%', '_')}"


def _distinct(targets: list[Target], place: Path) -> tuple[Target, ...]:
    if not targets:
        raise UsageError(f"{place}: names no target, so there is nothing to test")
    names = [target.name.lower() for target in targets]
    twice = next((target.name for target in targets if names.count(target.name.lower()) > 1), "")
    if twice:
        raise UsageError(f"{place}: two targets are called {twice}; on some file systems case does not tell them apart")
    taken = next((target.name for target in targets if target.name.lower() in _FILES), "")
    if taken:
        raise UsageError(f"{place}: {taken} is the name of a file of the report; call the target otherwise")
    return tuple(targets)
