"""Reads a SOURCE: its catalog, what that means, and a scratch server where it can be attacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rlsaudit.catalog import snapshot
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.copying import Server, copied
from rlsaudit.errors import NotTrustworthy, UsageError
from rlsaudit.options import Options, Progress
from rlsaudit.own import OwnStatement
from rlsaudit.places import within
from rlsaudit.source import dsn, presets
from rlsaudit.source.load import load_sql
from rlsaudit.source.open import detect, layout, sql_files
from rlsaudit.source.presets import platform
from rlsaudit.source.server import ScratchServer
from rlsaudit.source.stand_in import STAND_IN, stand_in
from rlsaudit.source.statements import recorded
from rlsaudit.tenancy.infer import Declared, infer
from rlsaudit.tenancy.model import TENANT_DATA, Tenancy
from rlsaudit.untested import Untested

DATABASE = "rlsaudit_source"


@dataclass(frozen=True)
class Opened:
    """A source that has been read: its catalog, what it means, and where a scratch copy can be had."""

    catalog: Catalog
    tenancy: Tenancy
    notes: tuple[str, ...]
    server: Server | None
    """Running and holding ``DATABASE``; None for a snapshot, and for a DSN that is only audited."""
    scratch_catalog: Catalog | None
    scratch_tenancy: Tenancy | None
    recorded: tuple[OwnStatement, ...] = ()
    """What pg_stat_statements has seen on the target."""
    gaps: Untested = field(default_factory=Untested)
    """What of the target the scratch copy does not have."""
    places: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Where the SQL of the source last defined an object: its identity → file and line."""

    @property
    def live(self) -> bool:
        """Whether the catalog is that of the user's own server."""
        return self.scratch_catalog is not self.catalog


@contextmanager
def open_source(options: Options, progress: Progress) -> Iterator[Opened]:
    """Read the source; the scratch server runs while the block does."""
    kind = detect(options.source)
    ways = [name for name, chosen in _ways(options) if chosen]
    if ways and kind != "dsn":
        raise UsageError(f"{ways[0]} is for a live database: give a connection string")
    if len(ways) > 1:
        raise UsageError(f"{' and '.join(ways)} are two ways to test a live database: choose one")
    if ways and options.plans:
        raise UsageError(f"--plans reaches into the scratch server's files, so it wants one of our own: no {ways[0]}")
    if options.recorded and kind != "dsn":
        raise UsageError("--statements-from-stats asks a live database: give a connection string")
    if (options.own or options.recorded) and options.in_place:
        raise UsageError("own statements are run in a scratch copy: leave out --in-place")
    if options.preset and kind in ("snapshot", "dsn"):
        raise UsageError(f"--preset {options.preset} is for SQL; a live database has what its platform made")
    if kind == "snapshot":
        if options.probing:
            raise UsageError(f"{options.source}: a snapshot can be audited but not probed; use rlsaudit audit")
        if options.plans:
            raise UsageError(
                f"{options.source}: there is no copy of a snapshot to plan on; give --plans the database or its SQL"
            )
        catalog = _saved(options.source)
        yield Opened(catalog, infer(catalog, options.declared), (), None, None, None)
    elif kind == "dsn":
        with _live(options, progress) as opened:
            yield opened
    else:
        with _loaded(options, progress) as opened:
            yield opened


def _ways(options: Options) -> tuple[tuple[str, bool], ...]:
    return ("--scratch-on-target", options.scratch_on_target), ("--in-place", options.in_place)


def _saved(source: str) -> Catalog:
    try:
        return snapshot.parse(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{source}: cannot be read: {error}") from error
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error


@contextmanager
def _live(options: Options, progress: Progress) -> Iterator[Opened]:
    progress("reading the database", 0, 1)
    with dsn.connect(options.source) as connection:
        catalog = load_catalog(connection)
        seen = recorded(connection) if options.recorded else ()
    tenancy = infer(catalog, options.declared)
    if options.in_place or not (options.probing or options.plans):
        yield Opened(catalog, tenancy, tenancy.notes, None, None, None)
        return
    progress("copying the schema", 0, 1)
    with copied(
        options.source,
        options.pg_bin,
        DATABASE,
        catalog,
        tenancy,
        options.declared,
        on_target=options.scratch_on_target,
    ) as copy:
        notes = (*tenancy.notes, *copy.notes)
        yield Opened(catalog, tenancy, notes, copy.server, copy.catalog, copy.tenancy, seen, copy.gaps)


@contextmanager
def _loaded(options: Options, progress: Progress) -> Iterator[Opened]:
    files = sql_files(options.source, options.stdin)
    if options.preset:
        files = (presets.preset(options.preset), *files)
    progress("starting a scratch server", 0, 1)
    with ScratchServer(options.pg_bin) as server:
        server.create_database(DATABASE)
        progress("loading the schema", 0, 1)
        loaded = load_sql(
            lambda: server.connect(DATABASE), files, offered=presets.EXTENSIONS.get(options.preset, frozenset())
        )
        read = [said] if (said := layout(options.source)) else []
        notes = [*read, *presets.notes(options.preset, loaded.roles_created), *loaded.notes]
        if loaded.roles_created:
            notes.append(
                f"Roles that the SQL names but does not create were created: {', '.join(loaded.roles_created)}."
            )
        with server.connect(DATABASE) as connection:
            catalog = load_catalog(connection)
            declared = declared_for(options, catalog)
            tenancy = infer(catalog, declared)
            if not tenancy.roles and any(c.kind in TENANT_DATA for c in tenancy.relations.values()):
                stand_in(connection, catalog)
                notes.append(
                    f"No role of the schema holds a privilege on tenant data, so role {STAND_IN} with SELECT, INSERT, UPDATE "
                    "and DELETE on everything was made in the scratch copy and tested in the application's place."
                )
                catalog = load_catalog(connection)
                tenancy = infer(catalog, declared)
        yield Opened(
            catalog,
            tenancy,
            (*tenancy.notes, *notes),
            server,
            catalog,
            tenancy,
            places=within(loaded.places, Path.cwd()),
        )


def declared_for(options: Options, catalog: Catalog) -> Declared:
    """The configuration, and what the platform of the SQL adds to it."""
    return platform.declared_with(options.preset, catalog, options.declared)


def require_subject(opened: Opened) -> None:
    """Nothing to test is no pass."""
    catalog, tenancy = opened.catalog, opened.tenancy
    if not catalog.relations:
        raise NotTrustworthy("the database is empty: no relation in any user schema, so there is nothing to test")
    if not any(c.kind in TENANT_DATA for c in tenancy.relations.values()):
        raise NotTrustworthy(
            'no tenant key column was found, so nothing is known to be tenant data: name it with key = "…" under [tenancy] '
            "in rlsaudit.toml"
        )
    if not tenancy.roles:
        raise NotTrustworthy("no application role holds a privilege on tenant data: name one with --role")
    visibility = visibility_of(catalog)
    relations = [catalog.relation(oid) for oid in tenancy.tenant_data()]
    for role in tenancy.roles:
        if not any(visibility.may(role.oid, r, c) for r in relations for c in ("SELECT", "INSERT", "UPDATE", "DELETE")):
            raise NotTrustworthy(
                f"role {role.name} holds no privilege on any tenant relation, so there is nothing to test as it"
            )
