"""Leaks made small and shown again by psql, with the rows that stood in the seeded world."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice

import psycopg
from psycopg import sql

from rlsaudit.catalog.relations import Relation
from rlsaudit.probe.attacks.careless import careless
from rlsaudit.probe.attacks.claims import claims
from rlsaudit.probe.attacks.common_rows import changes
from rlsaudit.probe.attacks.copying import copies
from rlsaudit.probe.attacks.feeds import feeds
from rlsaudit.probe.attacks.loopbacks import loopbacks
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.attacks.unenforced import stored_references
from rlsaudit.probe.ground import ownership
from rlsaudit.probe.ground.leak import Leak
from rlsaudit.probe.ground.world import SHARED, Row
from rlsaudit.probe.judging.telling import Told
from rlsaudit.probe.ledger import Ledger, session_of
from rlsaudit.probe.parallel import jobs_for
from rlsaudit.probe.replay.script import MADE, SCHEMA_FILE, SeedRow, Stage, script
from rlsaudit.probe.replay.shrink import Trying, of_worlds, shrink_rows, shrink_worlds
from rlsaudit.probe.replay.shrink_visits import shrink_visits
from rlsaudit.probe.replay.worlds import two_worlds
from rlsaudit.probe.result import Progress, Scratch

_WORTH_LOADING = 3
"""Leaks from which on the schema is loaded once for all of them."""
_LOADING = 300.0
"""Seconds that this may take."""
_WITHOUT_SERVER = 2
"""What psql ends with when its connection went bad, or a script's own could not be had."""


def spoilt(server: Scratch, bare: str, arena: Arena, ledger: Ledger) -> None:
    """Add what is tried in a superuser's transaction: rows that no tenant's session could have made, and what asks for such."""
    stage, rows = Stage(arena.catalog, arena.tenancy, arena.world.tenants), seeded(arena)
    with server.connect(bare) as connection, Trying(connection, stage, rows) as trying:
        for role in arena.tenancy.roles:
            anyway = ledger.open_anyway(role.name)
            for leak in (one for one in careless(arena, role) if one.relation not in anyway):
                ledger.counts[leak.breaks, role.name] += 1
                ledger.leaks += [leak] if trying.shows(leak) else []
            for tries in (changes, claims, stored_references, copies):
                for leak in tries(arena, role, trying.shows):
                    ledger.counts[leak.breaks, role.name] += 1
                    ledger.leaks.append(leak)


def _needed(leak: Leak, rows: Sequence[SeedRow]) -> list[SeedRow]:
    return [row for row in rows if row.relation.oid not in leak.without]


def outward(server: Scratch, arena: Arena, ledger: Ledger, schema: str) -> None:
    """Add what leaves the server, through a publication or a foreign table; only where the server is our own."""
    ways = [*chain(feeds(arena), *(loopbacks(arena, role) for role in arena.tenancy.roles))]
    if server.shared and ways:
        ledger.notes["What publications and foreign tables send was not tried on the target's own server."] = None
    stage, rows = Stage(arena.catalog, arena.tenancy, arena.world.tenants), seeded(arena)
    for programs in () if server.shared else ways:
        shown = (
            one for one in programs if confirm(server, script(stage, one, () if len(one.visits) > 1 else rows), schema)
        )
        ledger.leaks += [*islice(shown, 1)]


def replayed(  # noqa: PLR0917
    server: Scratch, source: str, bare: str, visited: str, arena: Arena, told: tuple[Told, ...], schema: str,
    replaced: Sequence[SeedRow], progress: Progress,
) -> list[tuple[Told, str, bool]]:  # fmt: skip
    """(leak, its shrunk script, whether psql shows it again).  psql works on some leaks while the next is shrunk."""
    rows = seeded(arena)
    # What is the whole cluster's, two scripts cannot change at once.
    workers = 1 if server.shared or " ON PARAMETER " in schema else jobs_for(0)
    stage = Stage(arena.catalog, arena.tenancy, arena.world.tenants)
    waiting: list[tuple[Told, str, Future[bool]]] = []
    with (
        _loaded(server, f"{bare}_schema", schema, len(told)) as loaded,
        server.connect(bare) as connection,
        _pool(workers) as pool,
    ):
        for number, one in enumerate(told):
            progress("shrinking and replaying leaks", number, len(told))
            if one.leak.world:
                text = two_worlds(stage, one.leak, *shrink_worlds(connection, stage, one.leak, rows, replaced))
            else:
                kept = shrink_rows(connection, stage, one.leak, rows)
                if len(one.leak.visits) > 1:
                    kept = _shrunk_visits(server, source, visited, arena, stage, one.leak, kept)
                text = script(stage, one.leak, kept)
            # The first one shows that a script is all that it takes; the schema of the others is loaded already.
            waiting.append((one, text, pool.submit(confirm, server, text, schema, template=loaded if number else "")))
        return [
            (one, text, True) if shown.result() else _once_more(server, stage, one, text, rows, replaced, schema)
            for one, text, shown in waiting
        ]


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose work that has not begun is dropped when the run is ended."""
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _loaded(server: Scratch, name: str, schema: str, leaks: int) -> Iterator[str]:
    """A database that psql has loaded the schema into, as every script would; empty where that does not pay or failed."""
    if server.shared or leaks < _WORTH_LOADING:
        yield ""
        return
    try:
        server.create_database(name)
        code, _ = server.run_psql(name, f"\\set ON_ERROR_STOP on\n{schema}", timeout=_LOADING)
        yield "" if code else name
    finally:
        server.drop_database(name)


def _once_more(
    server: Scratch, stage: Stage, one: Told, text: str, rows: Sequence[SeedRow], replaced: Sequence[SeedRow], schema: str
) -> tuple[Told, str, bool]:  # fmt: skip
    """What does not show again with the fewest rows is run with all of them, before it is called unstable."""
    if one.leak.world:
        whole = two_worlds(stage, one.leak, *of_worlds(one.leak, rows, replaced))
    else:
        whole = script(stage, one.leak, _needed(one.leak, rows))
    return (one, whole, True) if confirm(server, whole, schema) else (one, text, False)


def _shrunk_visits(
    server: Scratch, source: str, visited: str, arena: Arena, stage: Stage, leak: Leak, rows: Sequence[SeedRow]
) -> tuple[SeedRow, ...]:  # fmt: skip
    """The fewest rows of a leak whose visits commit; it is tried in a database that is dropped afterwards."""
    role = next((role for role in arena.tenancy.roles if role.name == leak.role), None)
    if role is None:  # a subscriber, to whom only what is stored afterwards is sent
        return ()
    server.create_database(visited, source)
    try:
        with server.connect(visited) as connection:
            return shrink_visits(connection, session_of(server, visited, arena, role), stage, leak, rows)
    finally:
        server.drop_database(visited)


def confirm(server: Scratch, text: str, schema: str, *, template: str = "") -> bool:
    """Run a replay script with the real psql against the scratch server; True when it prints LEAK."""
    timeout = 60.0 if template else _LOADING
    return "LEAK" in replay_output(server, text, schema, timeout, template=template).splitlines()


def replay_output(server: Scratch, text: str, schema: str, timeout: float = 60, *, template: str = "") -> str:
    """What psql prints for a replay script whose ``schema.sql`` is ``schema``, which a ``template`` has already."""
    if template:
        made = (
            sql.SQL('CREATE DATABASE :"scratch" TEMPLATE {} STRATEGY FILE_COPY;')
            .format(sql.Identifier(template))
            .as_string()
        )
        text, schema = text.replace(MADE, made, 1), ""
    whole = text.replace(f"\\ir {SCHEMA_FILE}", schema, 1)
    code, output = server.run_psql("postgres", whole, timeout=timeout)
    if code == _WITHOUT_SERVER:
        server.await_back()
        _, output = server.run_psql("postgres", whole, timeout=timeout)
    return output


def seeded(arena: Arena) -> list[SeedRow]:
    """Every row of every tenant as it was seeded; not those that the schema brings along itself."""
    found: dict[int, list[tuple[str, Row]]] = defaultdict(list)
    for (oid, owner), rows in arena.world.rows.items():
        found[oid] += [(owner, row) for row in rows]
    return _placed(arena, ((r, found[r.oid]) for r in ownership.digested(arena.catalog, arena.tenancy)))


def stored(connection: psycopg.Connection[tuple[object, ...]], arena: Arena) -> list[SeedRow]:
    """Every row of every tenant as it stands in that database."""
    catalog, tenancy, tenants = arena.catalog, arena.tenancy, arena.world.tenants
    relations = ownership.digested(catalog, tenancy)
    return _placed(
        arena, ((r, ownership.owned_rows(connection, catalog, tenancy.of(r.oid), tenants)) for r in relations)
    )


def _placed(arena: Arena, found: Iterable[tuple[Relation, Sequence[tuple[str, Row]]]]) -> list[SeedRow]:
    own = (
        SeedRow(relation, row, owner) for relation, rows in found for owner, row in _not_brought(arena, relation, rows)
    )
    return [*_nobodys(arena), *own]


def _not_brought(arena: Arena, relation: Relation, rows: Sequence[tuple[str, Row]]) -> Sequence[tuple[str, Row]]:
    """Rows that the schema does not bring along itself; one that a trigger has changed since is still the same."""
    brought = arena.world.stood.get(relation.oid)
    if not brought:
        return rows
    names = ownership.primary_key(arena.catalog, relation) or [column.name for column in relation.columns]
    known = {tuple(row[name] for name in names) for row in brought}
    return [(owner, row) for owner, row in rows if tuple(row[name] for name in names) not in known]


def _nobodys(arena: Arena) -> list[SeedRow]:
    """Rows of relations without tenant data that the schema does not bring along itself."""
    own = {oid: found for oid, found in arena.world.common.items() if oid not in arena.world.brought}
    return [
        SeedRow(arena.catalog.relation(oid), row, SHARED)
        for oid, found in {**own, **arena.world.made}.items()
        for row in found
    ]
