"""A seeded scratch copy that stays open, for a team's own tests: sessions of its tenants, and queries held against isolation."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.pq import TransactionStatus

from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.errors import NotTrustworthy, UsageError
from rlsaudit.own import OwnStatement
from rlsaudit.probe.attacks.statements import Ran, run_own
from rlsaudit.probe.attacks.sweep import Arena
from rlsaudit.probe.ground.statement_text import Login, acting
from rlsaudit.probe.judging.findings import attack_text
from rlsaudit.probe.judging.statements import state_of
from rlsaudit.probe.ledger import session_of
from rlsaudit.probe.result import Scratch
from rlsaudit.probe.seeding import logins
from rlsaudit.probe.seeding.populate import populate
from rlsaudit.tenancy.model import ApplicationRole, Tenancy


class Crossed(AssertionError):
    """A query showed or changed rows of another tenant, or could not be shown to hold."""


@dataclass(frozen=True)
class Laboratory:
    """A scratch copy in which several tenants have rows."""

    server: Scratch
    database: str
    arena: Arena
    read: Callable[[str, str], OwnStatement]
    """Makes a statement of a label and SQL text."""

    @property
    def tenants(self) -> tuple[str, ...]:
        """Tenant keys, as text."""
        return tuple(tenant.key for tenant in self.arena.world.tenants)

    @contextmanager
    def as_tenant(
        self, tenant: object = None, role: str | None = None
    ) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """A session of the application role in a transaction with the context of a tenant, rolled back at the end.

        ``tenant`` is a key (default: the first tenant's), ``role`` an application role (default: the first).  Raises
        UsageError for one that is unknown, and where COMMIT was sent; ``connection.commit()`` is refused by psycopg.
        """
        known = self.arena.world.tenants
        wanted = known[0].key if tenant is None else str(tenant)
        acting_for = next((one for one in known if one.key == wanted), None)
        if acting_for is None:
            raise UsageError(f"no tenant {wanted} in the scratch copy; there are {', '.join(self.tenants)}")
        who = self._role(role)
        context = acting(self.arena.tenancy.context.personas[0], acting_for.key, acting_for.user)
        entrance = logins.entrance(self.arena.tenancy, who.name)
        login = next((one.role for one in context if isinstance(one, Login)), entrance)
        conninfo = self.server.conninfo(self.database, login)
        with psycopg.connect(conninfo) as connection, connection.transaction(force_rollback=True):
            for statement in context:
                connection.execute(statement.encode())
            yield connection
            if not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE:
                raise UsageError(
                    "SQL ended the transaction of as_tenant: what it changed stands for all tests after it"
                )

    def assert_isolated(self, query: str, role: str | None = None) -> None:
        """Run ``query`` under two tenants, with own and foreign values for its parameters: ``$1``, ``:name`` or ``%s``.

        Raises Crossed when rows of another tenant came out or were changed, and when nothing came out at all.
        """
        session = session_of(self.server, self.database, self.arena, self._role(role))
        try:
            ran = next(run_own(self.arena, session, (self.read("query", query),), frozenset()))
        finally:
            session.close()
        state, reason = state_of(ran, {leak.breaks for leak in ran.leaks})
        if state != "held":
            raise Crossed("\n".join((f"{state}: {reason}", query, *_shown(ran))))

    def _role(self, name: str | None) -> ApplicationRole:
        roles = self.arena.tenancy.roles
        found = roles[0] if name is None else next((one for one in roles if one.name == name), None)
        if found is None:
            raise UsageError(f"{name} is no application role here; there are {', '.join(one.name for one in roles)}")
        return found


def _shown(ran: Ran) -> tuple[str, ...]:
    return ("", attack_text(ran.leaks[0])) if ran.leaks else ()


@contextmanager
def laboratory(
    server: Scratch, database: str, catalog: Catalog, tenancy: Tenancy, read: Callable[[str, str], OwnStatement]
) -> Iterator[Laboratory]:
    """Seed a copy of ``database``, a loaded scratch database with the objects of ``catalog``; it is dropped at the end.

    Raises NotTrustworthy when fewer than two tenants could be given rows.
    """
    logins.let_in(server, database, catalog, tenancy)
    catalog, made = logins.prepare(server, database, catalog, tenancy)
    tenancy = logins.reduced(tenancy)
    name = f"rlsaudit_laboratory_{secrets.token_hex(3)}"
    try:
        server.create_database(name, database)
        with server.connect(name) as connection:
            world = populate(connection, catalog, tenancy)
        if len({owner for (_, owner), rows in world.rows.items() if rows and owner}) < 2:
            raise NotTrustworthy("fewer than two tenants could be given rows, so that nothing could cross")
        yield Laboratory(server, name, Arena(catalog, tenancy, visibility_of(catalog), world), read)
    finally:
        server.drop_database(name)
        if made:
            with server.connect(database) as connection:
                logins.drop(connection, made)
