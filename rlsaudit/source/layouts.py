"""How a directory of migrations is laid out: which tool's it is, which files it runs to build a schema, in which order.

The rules are those of each tool's manual: Flyway (versioned, repeatable, baseline and callback scripts), sqitch
(``sqitch.plan``, reworked changes), Prisma, Supabase, Drizzle, Graphile Migrate, goose, dbmate, sql-migrate,
golang-migrate, tern, Rails (``structure.sql``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from configparser import ConfigParser
from configparser import Error as BadConfiguration
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

from rlsaudit.errors import UsageError

_PLACES = (
    "supabase/migrations",
    "prisma/migrations",
    "db/migrations",
    "db/migration",
    "src/main/resources/db/migration",
    "drizzle",
    "migrations",
)
_WHOLE = ("db/structure.sql", "structure.sql")
_UNDO_DIRECTORIES = frozenset({"revert", "verify", "down", "rollback", "undo"})
_UNDO_FILE = re.compile(r"(?:^|\.)(?:down|undo|rollback|revert)\.sql\Z|^U\d[\d._]*__", re.IGNORECASE)
_UNDO_PAIR = re.compile(r"[_-](?:down|undo|rollback|revert)\.sql\Z", re.IGNORECASE)
"""Undoes what a file beside it does whose name begins the same; by itself it is a migration that is called so."""
_FLYWAY = re.compile(r"([VRB])(\d+(?:[._]\d+)*)?__", re.IGNORECASE)
_CALLBACK = re.compile(
    r"(before|after)(Migrate|Each|Versioned|Repeatables|Clean|Info|Repair|Validate|Baseline|Undo|Connect)"
)
_MARKS = (
    (re.compile(r"^\s*--\s*\+goose\s", re.IGNORECASE | re.MULTILINE), "goose"),
    (re.compile(r"^\s*--\s*migrate:up", re.IGNORECASE | re.MULTILINE), "dbmate"),
    (re.compile(r"^\s*--\s*\+migrate\s", re.IGNORECASE | re.MULTILINE), "sql-migrate"),
    (re.compile(r"^\s*--\s*rambler\s", re.IGNORECASE | re.MULTILINE), "rambler"),
    (re.compile(r"^---- create above / drop below ----", re.MULTILINE), "tern"),
)
_CHANGE = re.compile(r"(?P<name>[^\s@%#\[][^\s@]*)(?:\s+\[[^]]*\])?(?:\s|\Z)")
_PROGRAM = re.compile(
    r"(?:\d+[\w.-]*|V\d[\w.]*__.*|m\d{6,}_.*)\.(?:go|java|kt|scala|js|ts|mjs|cjs|py|rb|php|exs|cs)\Z", re.IGNORECASE
)
"""A migration that is a program: it builds part of the schema, and cannot be run here."""
_READ = 4096


@dataclass(frozen=True, slots=True)
class Layout:
    """The files that build a schema, in the order in which they run."""

    name: str
    """The tool whose layout it is, or ``files in the order of their names``."""
    directory: Path
    paths: tuple[Path, ...]


def recognise(directory: Path) -> Layout:
    """The layout of ``directory``, or of the first place inside it where tools keep migrations.

    Numbers count as numbers: ``V2__`` before ``V10__``, ``0002`` before ``0010``.  What only undoes is left out.
    Raises UsageError when no SQL file is left, or a plan names a file that is not there.
    """
    if (directory / "sqitch.plan").is_file() or (directory / "sqitch.conf").is_file():
        return _sqitch(directory)
    for name in _PLACES:
        if _forward(directory / name):
            return _ordered(directory / name)
    for name in _WHOLE:
        if (directory / name).is_file():
            return Layout("Rails structure.sql", directory, (directory / name,))
    return _ordered(directory)


def passed_over(source: Path, layout: Layout) -> tuple[Path, ...]:
    """What looks as if it built part of the schema too, and is not run: programs among the migrations, SQL that the
    layout does not name, and other places inside ``source`` where tools keep migrations."""
    if any(layout.paths == (source / name,) for name in _WHOLE):
        return ()  # the state that all migrations lead to
    # A project of sqitch holds SQL of all kinds; its scripts have a directory of their own.
    scripts = Path(commonpath([path.parent for path in layout.paths]))
    ran, directory = set(layout.paths), scripts if layout.name == "sqitch" else layout.directory
    beside = [path for path in _forward(directory) if path not in ran and not _CALLBACK.match(path.name)]
    programs = [
        path for path in sorted(directory.rglob("*")) if _PROGRAM.match(path.name) and not _skipped(path, directory)
    ]
    places = [source / name for name in _PLACES if (source / name) != layout.directory]
    apart = [place for place in places if not any(path.is_relative_to(place) for path in ran) and _forward(place)]
    return tuple(dict.fromkeys((*(path for path in beside if not _superseded(path, layout)), *programs, *apart)))


def _superseded(path: Path, layout: Layout) -> bool:
    """Older versions of Flyway for which the newest baseline stands."""
    return layout.name == "Flyway" and _FLYWAY.match(path.name) is not None


def _skipped(path: Path, directory: Path) -> bool:
    """Whether it lies where nobody keeps migrations, or undoes them."""
    parents = path.relative_to(directory).parts[:-1]
    hidden = any(part.startswith(".") or part == "node_modules" for part in parents)
    return hidden or not path.is_file() or bool(_UNDO_DIRECTORIES.intersection(parents))


def _ordered(directory: Path) -> Layout:
    found = _forward(directory)
    if not found:
        raise UsageError(f"{directory}: no .sql migrations there; name the directory that holds them, or a file")
    for name, choose in _TOOLS:
        paths = choose(directory, found)
        if paths:
            return Layout(name, directory, tuple(paths))
    marks = found[0].read_bytes()[:_READ].decode("utf-8", "replace")
    name = next((name for mark, name in _MARKS if mark.search(marks)), "files in the order of their names")
    return Layout(name, directory, tuple(found))


def _forward(directory: Path) -> list[Path]:
    """The SQL files below, without what undoes, in order of their versions."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.rglob("*.[sS][qQ][lL]") if not _skipped(path, directory)]
    forward = [path for path in found if not _UNDO_FILE.search(path.name)]
    does = {path for path in forward if not _UNDO_PAIR.search(path.name)}
    forward = [path for path in forward if path in does or not any(_undoes(path, other) for other in does)]
    return sorted(forward, key=lambda path: tuple(_natural(part) for part in path.relative_to(directory).parts))


def _undoes(path: Path, other: Path) -> bool:
    stem = _UNDO_PAIR.sub("", path.name)
    return other.parent == path.parent and re.match(rf"{re.escape(stem)}[._-]", other.name) is not None


def _flyway(directory: Path, found: Sequence[Path]) -> list[Path]:
    """Versioned files, then repeatable ones; the newest baseline stands for all versions up to it.

    Of the callbacks only beforeMigrate and afterMigrate build anything on a new database.
    """
    kinds = {path: match for path in found if (match := _FLYWAY.match(path.name))}
    if not any(match.group(1) in "Vv" for match in kinds.values()):
        return []
    baselines = [path for path, match in kinds.items() if match.group(1) in "Bb"]
    newest = max(baselines, key=lambda path: _version(path.name), default=None)
    base = _version(newest.name) if newest else []
    versioned = [p for p, m in kinds.items() if m.group(1) in "Vv" and (newest is None or _version(p.name) > base)]
    repeatable = sorted((p for p, m in kinds.items() if m.group(1) in "Rr"), key=lambda path: path.name)
    versioned.sort(key=lambda path: (_version(path.name), path.name))
    before = [path for path in found if path.name.startswith("beforeMigrate")]
    after = [path for path in found if re.match(r"afterMigrate(?!Error|Apply)", path.name)]
    other = [p for p in found if p not in kinds and not _CALLBACK.match(p.name)]
    if other:
        return []  # a mixed directory is no Flyway location: nothing may be passed over in silence
    return [*before, *([newest] if newest else []), *versioned, *repeatable, *after]


def _prisma(directory: Path, found: Sequence[Path]) -> list[Path]:
    locked = (directory / "migration_lock.toml").is_file()
    return sorted(path for path in found if path.name == "migration.sql") if locked else []


def _drizzle(directory: Path, found: Sequence[Path]) -> list[Path]:
    journal = directory / "meta" / "_journal.json"
    if not journal.is_file():
        return []
    try:
        entries = json.loads(journal.read_text(encoding="utf-8"))["entries"]
        names = [f"{entry['tag']}.sql" for entry in sorted(entries, key=lambda entry: int(entry["idx"]))]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UsageError(f"{journal}: not a journal of Drizzle migrations: {error}") from error
    return [_there(directory / name, journal) for name in names]


def _supabase(directory: Path, found: Sequence[Path]) -> list[Path]:
    named = sorted(path for path in found if path.parent == directory and re.match(r"\d+_", path.name))
    return named if directory.parts[-2:] == ("supabase", "migrations") else []


def _graphile(directory: Path, found: Sequence[Path]) -> list[Path]:
    committed = directory / "committed"
    if not committed.is_dir():
        return []
    current = directory / "current.sql"
    return [*_forward(committed), *([current] if current.is_file() else _forward(directory / "current"))]


def _golang_migrate(directory: Path, found: Sequence[Path]) -> list[Path]:
    return list(found) if all(path.name.endswith(".up.sql") for path in found) else []


def _hasura(directory: Path, found: Sequence[Path]) -> list[Path]:
    return list(found) if all(path.name == "up.sql" for path in found) else []


_TOOLS: tuple[tuple[str, Callable[[Path, Sequence[Path]], list[Path]]], ...] = (
    ("Flyway", _flyway),
    ("Prisma", _prisma),
    ("Drizzle", _drizzle),
    ("Supabase", _supabase),
    ("Graphile Migrate", _graphile),
    ("golang-migrate", _golang_migrate),
    ("Hasura", _hasura),
)


def _sqitch(directory: Path) -> Layout:
    """The deploy scripts in the order of the plan; a change that was reworked runs as it was, then as it is."""
    settings = ConfigParser(interpolation=None, strict=False, allow_no_value=True, comment_prefixes=("#", ";"))
    try:
        settings.read(directory / "sqitch.conf", encoding="utf-8")
    except (BadConfiguration, UnicodeDecodeError) as error:
        raise UsageError(f"{directory / 'sqitch.conf'}: {' '.join(str(error).split())}") from error
    top = Path(settings.get("core", "top_dir", fallback="") or ".")
    plan = directory / (settings.get("core", "plan_file", fallback="") or top / "sqitch.plan")
    scripts = directory / (settings.get("core", "deploy_dir", fallback="") or top / "deploy")
    extension = settings.get("core", "extension", fallback="") or "sql"
    try:
        names = list(_planned(plan.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{plan}: cannot be read: {error}") from error
    if not names:
        raise UsageError(f"{plan}: plans no change; nothing to audit")
    return Layout("sqitch", directory, tuple(_there(scripts / f"{name}.{extension}", plan) for name in names))


def _planned(text: str) -> Iterator[str]:
    """Script names of a plan, without suffix; an earlier instance of a change is called by the tag that ended it."""
    lines = [line.strip() for line in text.splitlines()]
    changes: list[tuple[str, int]] = []
    tags: list[tuple[str, int]] = []
    for number, line in enumerate(lines):
        if line.startswith("@"):
            tags.append((line.split()[0], number))
        elif (match := _CHANGE.match(line)) and not line.startswith(("#", "%", "-")):
            changes.append((match["name"].lstrip("+"), number))
    for position, (name, number) in enumerate(changes):
        again = any(later == name for later, _ in changes[position + 1 :])
        tag = next((tag for tag, at in tags if at > number), "") if again else ""
        yield name + tag


def _there(path: Path, said_by: Path) -> Path:
    if not path.is_file():
        raise UsageError(f"{said_by}: names {path}, which is not there")
    return path


def _version(name: str) -> list[int]:
    match = _FLYWAY.match(name)
    return [int(number) for number in re.findall(r"\d+", (match and match.group(2)) or "")]


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key in which digits count as a number and Flyway's versions as lists of numbers."""
    flyway = _FLYWAY.match(name)
    if flyway:
        last = int(flyway.group(1) in "Rr")
        return ((2 * last, 0, ""), *((0, number, "") for number in _version(name)), (-1, 0, name))
    pieces = re.findall(r"\d+|\D+", name)
    return (*((0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces), (-1, 0, name))
