"""Configuration: flag > RLSAUDIT_* > rlsaudit.toml > [tool.rlsaudit] of pyproject.toml.  Unknown keys are errors."""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, get_args

from rlsaudit import duration
from rlsaudit.allow import Allowed
from rlsaudit.config_keys import KEYS
from rlsaudit.errors import UsageError
from rlsaudit.finding import SEVERITIES, Severity
from rlsaudit.probe.detector.planting import MODES, Mode
from rlsaudit.tenancy.infer import Declared, DeclaredRelation
from rlsaudit.tenancy.model import Context, Persona, RelationClass, Seeding

FILENAME = "rlsaudit.toml"
T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    """What the configuration file says; the command line's own options come on top."""

    declared: Declared = field(default_factory=Declared)
    allowed: tuple[Allowed, ...] = ()
    fail_on: Severity | None = None
    seed: int | None = None
    budget: float | None = None
    jobs: int | None = None
    database: str | None = None
    """Directory in which random workloads keep their hard examples."""
    detector: Mode | None = None
    formats: tuple[str, ...] = ()
    output_dir: str | None = None
    pg_bin: str | None = None
    preset: str | None = None
    path: str = ""
    hash: str = ""
    """sha256 of the file; empty without one."""


def load(path: Path | None, directory: Path) -> Config:
    """Read ``path``, or the first of rlsaudit.toml and pyproject.toml's section in ``directory``.

    Raises UsageError: unreadable, not TOML, an unknown key (with the nearest known one), a value of the wrong kind.
    """
    if path is not None:
        return _parse(_read(path), str(path))
    if (directory / FILENAME).is_file():
        return _parse(_read(directory / FILENAME), FILENAME)
    if (directory / "pyproject.toml").is_file():
        text = _read(directory / "pyproject.toml")
        try:
            section = tomllib.loads(text).get("tool", {}).get("rlsaudit")
        except tomllib.TOMLDecodeError:
            section = None  # somebody else's file: its own tools say what is wrong with it
        if section is not None:
            return _build(_table(section, "tool.rlsaudit"), "pyproject.toml", text)
    return Config()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error


def _parse(text: str, name: str) -> Config:
    try:
        return _build(tomllib.loads(text), name, text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: not valid TOML: {error}") from error


def _build(table: Mapping[str, object], name: str, text: str) -> Config:
    try:
        _known(table, "")
        asked = _optional(table, "fail_on", str)
        fail_on = next((severity for severity in SEVERITIES if severity == asked), None)
        if asked is not None and fail_on is None:
            raise UsageError(f"fail_on = {asked!r}: choose one of {', '.join(SEVERITIES)}")
        planted = _optional(table, "detector", str)
        detector = next((mode for mode in MODES if mode == planted), None)
        if planted is not None and detector is None:
            raise UsageError(f"detector = {planted!r}: choose one of {', '.join(MODES)}")
        budget = table.get("budget")
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, (int, float, str))):
            raise UsageError('budget must be a number of seconds or a length of time like "5m"')
        given_seed = table.get("seed")
        seed = given_seed if isinstance(given_seed, dict) else {} if given_seed is None else {"number": given_seed}
        return Config(
            declared=Declared(
                roles=_strings(table, "roles"),
                keys=_key(_table(table.get("tenancy", {}), "tenancy")),
                context=_context(_table(table["context"], "context")) if "context" in table else None,
                relations=dict(_relations(_table(table.get("relations", {}), "relations"))),
                seeding=_seeding(seed),
            ),
            allowed=tuple(_allowed(table.get("allow", []))),
            fail_on=fail_on,
            seed=_optional(seed, "number", int, "seed"),
            budget=None if budget is None else duration.seconds(budget),
            jobs=_optional(table, "jobs", int),
            database=_optional(table, "database", str),
            detector=detector,
            formats=_strings(table, "formats"),
            output_dir=_optional(table, "output_dir", str),
            pg_bin=_optional(table, "pg_bin", str),
            preset=_optional(table, "preset", str),
            path=name,
            hash=hashlib.sha256(text.encode()).hexdigest(),
        )
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def _allowed(given: object) -> Iterable[Allowed]:
    for number, one in enumerate(given if isinstance(given, list) else [given], start=1):
        entry = _table(one, f"allow[{number}]")
        _known(entry, "allow")
        check, reason = _optional(entry, "check", str), _optional(entry, "reason", str)
        if not check or not (reason or "").strip():
            raise UsageError(f'allow[{number}]: give check = "RLS…" and a reason that an auditor can read')
        yield Allowed(check.upper(), _optional(entry, "object", str) or "*", (reason or "").strip())


def _context(table: Mapping[str, object]) -> Context:
    _known(table, "context")
    personas = []
    given = table.get("personas", [])
    for number, one in enumerate(given if isinstance(given, list) else [given]):
        persona = _table(one, f"context.personas[{number}]")
        _known(persona, "context.personas")
        personas.append(
            Persona(
                _optional(persona, "name", str) or f"persona {number + 1}",
                _strings(persona, "statements"),
                _optional(persona, "login", str) or "",
                _optional(persona, "opening", bool) or False,
            )
        )
    statements = _strings(table, "statements")
    if statements:
        personas.insert(0, Persona("tenant", statements))
    if not personas or not all(persona.statements or persona.login for persona in personas):
        raise UsageError(
            'context: give statements = [...] with :tenant and :user where the values go, or login = ":tenant" where each '
            "tenant has a login role"
        )
    logins = {persona.login for persona in personas}
    if len(logins) > 1 or not all(":tenant" in login or ":user" in login for login in logins if login):
        raise UsageError("context.personas: login names :tenant or :user, and is the same for all personas")
    if all(persona.opening for persona in personas):
        raise UsageError("context.personas: one of them must be an ordinary session, without opening = true")
    return Context(
        tuple(personas),
        reset=_strings(table, "reset"),
        why="declared in the configuration",
        declared=True,
    )


def _relations(table: Mapping[str, object]) -> Iterable[tuple[str, DeclaredRelation]]:
    classes = get_args(RelationClass)
    for name, one in table.items():
        entry = _table(one, f'relations."{name}"')
        _known(entry, "relations")
        kind: RelationClass | None = next((one for one in classes if one == entry.get("class")), None)
        if kind is None:
            raise UsageError(f'relations."{name}": class = {entry.get("class")!r}; choose one of {", ".join(classes)}')
        yield (
            name,
            DeclaredRelation(kind, _optional(entry, "key", str), _optional(entry, "reason", str) or ""),
        )


def _key(table: Mapping[str, object]) -> tuple[str, ...]:
    _known(table, "tenancy")
    key = table.get("key")
    return (key,) if isinstance(key, str) else _strings(table, "key")


def _seeding(table: Mapping[str, object]) -> Seeding:
    """``[seed]``: statements that are run for every tenant, and values for columns that are hard to guess."""
    _known(table, "seed")
    values = _table(table.get("values", {}), "seed.values")
    listed = {column: _strings(values, column) for column in values}
    if empty := [column for column, one in listed.items() if not one]:
        raise UsageError(f"seed.values.{empty[0]!r}: give at least one value")
    return Seeding(_strings(table, "sql"), listed)


def _known(table: Mapping[str, object], place: str) -> None:
    for key in table:
        if key not in KEYS[place]:
            near = difflib.get_close_matches(key, KEYS[place], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(KEYS[place])}"
            raise UsageError(f"unknown key {f'{place}.' if place else ''}{key}: {hint}")


def _table(value: object, place: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise UsageError(f"{place} must be a table")
    return value


def _strings(table: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = table.get(key, [])
    items: list[object] = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in items):
        raise UsageError(f"{key} must be a list of strings")
    return tuple(str(item) for item in items)


def _optional(table: Mapping[str, object], key: str, kind: type[T], called: str = "") -> T | None:
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"{called or key} must be of type {kind.__name__}")
    return value
