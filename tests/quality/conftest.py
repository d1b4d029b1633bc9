"""A sound schema to plant defects into, and the real psql to replay what is found."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rlsaudit.source.server import ScratchServer

BASE = """
CREATE ROLE q_owner NOLOGIN;
CREATE ROLE q_app LOGIN;
CREATE SCHEMA shop AUTHORIZATION q_owner;
GRANT USAGE ON SCHEMA shop TO q_app;
SET ROLE q_owner;
CREATE TABLE shop.tenants (tenant_id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE shop.notes (
    tenant_id integer NOT NULL REFERENCES shop.tenants,
    note_id integer NOT NULL,
    author text NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (tenant_id, note_id)
);
ALTER TABLE shop.tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION shop.tenant() RETURNS integer LANGUAGE sql STABLE
    RETURN NULLIF(current_setting('app.tenant_id', true), '')::integer;
CREATE POLICY own ON shop.tenants USING (tenant_id = shop.tenant());
CREATE POLICY own ON shop.notes USING (tenant_id = shop.tenant());
GRANT SELECT ON shop.tenants TO q_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.notes TO q_app;
"""


@pytest.fixture
def base() -> str:
    """Two relations, one role, nothing wrong; ends as the owner of the relations."""
    return BASE


Replay = Callable[[str, str], str]


@pytest.fixture
def psql(server: ScratchServer, tmp_path: Path) -> Replay:
    """Run a script as a person would: ``psql -X -f F-1.sql`` with schema.sql beside it; gives what it prints."""

    def run(script: str, schema: str) -> str:
        (tmp_path / "schema.sql").write_text(schema, encoding="utf-8")
        (tmp_path / "F-1.sql").write_text(script, encoding="utf-8")
        environment = {
            "PATH": os.environ["PATH"],
            "PGHOST": str(server.directory),
            "PGUSER": "postgres",
            "PGDATABASE": "postgres",
        }
        done = subprocess.run(
            [server.binary("psql"), "-X", "-f", tmp_path / "F-1.sql"],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout.strip()

    return run
