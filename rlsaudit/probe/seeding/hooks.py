"""Statements of the user's own (``[seed] sql``), run for every tenant."""

from __future__ import annotations

import psycopg

from rlsaudit.errors import UsageError
from rlsaudit.probe.ground.statement_text import acting
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.probe.seeding.writer import Connection
from rlsaudit.tenancy.model import Persona, Tenancy


def run_hooks(connection: Connection, tenancy: Tenancy, tenants: tuple[Tenant, ...]) -> None:
    """Run them as a superuser, in the context of each tenant.  Raises UsageError for one that fails."""
    persona = tenancy.context.seeding
    for tenant in tenants:
        for statement in acting(persona, tenant.key, tenant.user) if persona else ():
            try:
                with connection.transaction():
                    connection.execute(statement.encode())
            except psycopg.Error:
                continue  # a context that checks what is not there; the statements may do without
        given = acting(Persona("seed", tenancy.seeding.sql), tenant.key, tenant.user)
        for number, statement in enumerate(given, start=1):
            try:
                with connection.transaction():
                    connection.execute(statement.encode())
            except psycopg.Error as error:
                said = " ".join(str(error.diag.message_primary or error).split())
                raise UsageError(f"[seed] sql, statement {number}, for tenant {tenant.key}: {said}") from error
