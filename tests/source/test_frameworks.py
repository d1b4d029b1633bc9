"""The documented one-liners for tools that write no SQL files, with the real packages."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlsaudit.source.files import decode
from rlsaudit.source.load import LoadResult
from rlsaudit.source.open import sql_files
from rlsaudit.source.server import ScratchServer

DOCUMENT = Path(__file__).parents[2] / "docs" / "migrations.md"
POLICY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON {table} USING (tenant_id = current_setting('app.tenant_id')::int)
"""
ALEMBIC = """
revision, down_revision = "{revision}", {down}
from alembic import op
import sqlalchemy as sa

def upgrade():
    {body}
"""
DJANGO = """
from django.db import migrations, models

class Migration(migrations.Migration):
    initial = {initial}
    dependencies = {dependencies}
    operations = [{operation}]
"""
MODEL = "migrations.CreateModel('Invoice', [('id', models.BigAutoField(primary_key=True)), ('tenant_id', models.IntegerField())])"


def documented(begins: str) -> str:
    """The one-liner of the manual that begins so, without rlsaudit at its end."""
    blocks: list[str] = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    text = next(block for block in blocks if block.startswith(begins))
    command, scan = text.strip().rsplit("|", 1)
    assert scan.strip() == "rlsaudit scan -"
    return command


def output(command: str, directory: Path, **variables: str) -> bytes:
    environment = {**os.environ, **variables, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], check=False, cwd=directory, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.slow
def test_alembic(tmp_path: Path, server: ScratchServer, database: str, load: Callable[..., LoadResult]) -> None:
    output("alembic init -t generic alembic", tmp_path)
    configuration = tmp_path / "alembic.ini"
    text = re.sub(
        r"(?m)^sqlalchemy.url = .*", "sqlalchemy.url = postgresql+psycopg://nowhere/x", configuration.read_text()
    )
    configuration.write_text(text)
    versions = tmp_path / "alembic" / "versions"
    table = (
        'op.create_table("invoices", sa.Column("id", sa.Integer, primary_key=True), sa.Column("tenant_id", sa.Integer))'
    )
    (versions / "z_first.py").write_text(ALEMBIC.format(revision="1", down=None, body=table))
    policy = f'op.execute("""{POLICY.format(table="invoices")}""")'
    (versions / "a_second.py").write_text(ALEMBIC.format(revision="2", down="'1'", body=policy))
    sql = output(documented("alembic"), tmp_path)
    load(sql_files("-", io.BytesIO(sql))[0].text)
    assert policies(server, database) == [("invoices",)]


@pytest.mark.slow
def test_django(tmp_path: Path, server: ScratchServer, database: str, load: Callable[..., LoadResult]) -> None:
    with server.connect(database) as connection:
        where = connection.info
        databases = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": database,
            "HOST": where.host,
            "PORT": where.port,
        }
        databases |= {"USER": where.user, "PASSWORD": where.password}
    output("django-admin startproject shop .", tmp_path)
    settings = tmp_path / "shop" / "settings.py"
    settings.write_text(
        settings.read_text() + f"\nDATABASES = {{'default': {databases!r}}}\nINSTALLED_APPS += ['billing']\n"
    )
    migrations = tmp_path / "billing" / "migrations"
    migrations.mkdir(parents=True)
    for package in (migrations, migrations.parent):
        (package / "__init__.py").touch()
    (migrations / "0001_initial.py").write_text(DJANGO.format(initial=True, dependencies=[], operation=MODEL))
    policy = f"migrations.RunSQL('''{POLICY.format(table='billing_invoice')}''')"
    after = [("billing", "0001_initial")]
    (migrations / "0002_policy.py").write_text(DJANGO.format(initial=False, dependencies=after, operation=policy))
    sql = output(documented("python"), tmp_path)
    load(decode(sql, "sqlmigrate"))
    assert policies(server, database) == [("billing_invoice",)]


def policies(server: ScratchServer, database: str) -> list[tuple[object, ...]]:
    with server.connect(database) as connection:
        return connection.execute("SELECT tablename FROM pg_policies").fetchall()
