from __future__ import annotations

from pathlib import Path

import pytest

SCHEMA = """
CREATE ROLE f_app LOGIN;
CREATE TABLE notes (id int PRIMARY KEY, tenant_id int NOT NULL, body text NOT NULL);
CREATE INDEX ON notes (tenant_id);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON notes USING (tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::int));
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO f_app;
"""


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    """A directory with a sound schema and an open one."""
    (tmp_path / "sound.sql").write_text(SCHEMA)
    (tmp_path / "open.sql").write_text(SCHEMA.replace("ENABLE ROW LEVEL SECURITY, FORCE", "NO FORCE"))
    return tmp_path
