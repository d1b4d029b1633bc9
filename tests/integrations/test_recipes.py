"""The recipes: their code runs, their schema passes, and what they warn of is seen when it is done all the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from rlsaudit.source.server import ScratchServer
from tests.integrations.conftest import BIN, ROOT, Done, environment, install

RECIPES = ROOT / "docs" / "recipes"
_FILE = re.compile(r"```\w+\n(?:#|--) (\S+\.(?:py|sql|toml))\n(.*?)```", re.DOTALL)
pytestmark = pytest.mark.nightly

COMMANDS = {
    "prisma": "rlsaudit scan prisma/migrations",
    "supabase": "rlsaudit scan supabase/",
    "postgrest": "rlsaudit scan schema.sql",
    "rails": "cat db/roles.sql db/structure.sql | rlsaudit scan -",
    "sqlalchemy": "alembic upgrade head --sql | rlsaudit scan -",
    "django": 'python manage.py migrate && rlsaudit scan "dbname=build"',
}


def write(recipe: str, place: Path) -> None:
    """The files of a recipe, each where its first line says."""
    for name, text in _FILE.findall((RECIPES / f"{recipe}.md").read_text(encoding="utf-8")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    install(place / "venv")


def shell(place: Path, command: str, **variables: str) -> Done:
    """A command of a recipe, in the directory with its files."""
    env = environment(**variables, RLSAUDIT_BUDGET="0", RLSAUDIT_JOBS="1", PYTHONPATH=place)
    env["PATH"] = f"{place}/venv/bin:{BIN}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=place,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def change(place: Path, pattern: str, new: str, suffix: str = "") -> None:
    """Change one thing in the files of a recipe."""
    changed = 0
    for path in [one for one in place.rglob(f"*{suffix}") if one.suffix in (".py", ".sql") and "venv" not in one.parts]:
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(pattern, new, text, count=1), encoding="utf-8")
        changed += text != path.read_text(encoding="utf-8")
    assert changed == 1


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.md")))
def test_every_recipe_is_tried_as_it_is_printed(recipe: str) -> None:
    assert COMMANDS[recipe] in (RECIPES / f"{recipe}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("recipe", ["prisma", "supabase", "postgrest", "rails"])
def test_the_schema_passes_and_without_its_condition_leaks(recipe: str, tmp_path: Path) -> None:
    write(recipe, tmp_path)
    sound = shell(tmp_path, COMMANDS[recipe])
    assert sound.returncode == 0, sound.stdout + sound.stderr
    change(tmp_path, r"USING \(.*\)\n", "USING (true)\n", ".sql")
    leaky = shell(tmp_path, COMMANDS[recipe])
    assert leaky.returncode == 1, leaky.stdout + leaky.stderr
    assert "Tenant data is reachable across tenants" in leaky.stdout


@pytest.fixture
def build(server: ScratchServer) -> Iterator[psycopg.conninfo.ConnectionInfo]:
    """An empty database ``build``, as libpq's variables name it; gone after the test, with the role."""
    server.create_database("build")
    with server.connect("build") as connection:
        yield connection.info
    server.drop_database("build")
    with server.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS app_user")


SQLALCHEMY = """
import sys
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from app.context import tenant

engine = create_engine(sys.argv[1], pool_size=1, max_overflow=0)
seen = []
for key in (1, 2, None):
    tenant.set(key)
    with Session(engine) as session:
        if key:
            session.execute(text("INSERT INTO invoices VALUES (:key, 1, 'x')"), {"key": key})
            session.commit()
        seen.append([row.tenant_id for row in session.execute(text("SELECT tenant_id FROM invoices"))])
        tenant.set(1)  # whom the connection acted for last
        session.commit()
        session.execute(text("SELECT 1"))
        session.commit()
with engine.connect() as connection:
    seen.append([row.tenant_id for row in connection.execute(text("SELECT tenant_id FROM invoices"))])
print(seen)
"""


def test_sqlalchemy(tmp_path: Path, server: ScratchServer, build: psycopg.conninfo.ConnectionInfo) -> None:
    write("sqlalchemy", tmp_path)
    migration = (tmp_path / "alembic" / "versions" / "0001_invoices.py").read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "alembic")
    assert shell(tmp_path, "alembic init alembic").returncode == 0
    configuration = tmp_path / "alembic.ini"
    url = f"postgresql+psycopg://USER@/build?host={build.host}&port={build.port}"
    named = re.sub(
        r"(?m)^sqlalchemy.url = .*", f"sqlalchemy.url = {url.replace('USER', 'postgres')}", configuration.read_text()
    )
    configuration.write_text(named)
    (tmp_path / "alembic" / "versions" / "0001_invoices.py").write_text(migration)
    done = shell(tmp_path, COMMANDS["sqlalchemy"])
    assert done.returncode == 0, done.stdout + done.stderr

    assert shell(tmp_path, "alembic upgrade head").returncode == 0
    (tmp_path / "try.py").write_text(SQLALCHEMY)
    asked = f"python try.py '{url.replace('USER', 'app_user')}'"
    done = shell(tmp_path, asked)
    assert done.stdout.strip() == "[[1], [2], [], []]", done.stderr
    change(tmp_path / "app", ", true\\)", ", false)")
    (tmp_path / "again.py").write_text(SQLALCHEMY.replace("INSERT INTO invoices VALUES (:key, 1, 'x')", "SELECT :key"))
    done = shell(tmp_path, asked.replace("try.py", "again.py"))
    assert done.stdout.strip() == "[[1], [2], [], [1]]", (
        done.stdout + done.stderr
    )  # the last one has no tenant, and reads

    change(tmp_path / "alembic", r'op.execute\("ALTER TABLE invoices ENABLE ROW LEVEL SECURITY"\)', "pass")
    assert shell(tmp_path, COMMANDS["sqlalchemy"]).returncode == 1


DJANGO_SETTINGS = """
SECRET_KEY, ROOT_URLCONF, INSTALLED_APPS, USE_TZ = "x", "shop.urls", ["shop"], True
ALLOWED_HOSTS = ["testserver"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MIDDLEWARE = ["shop.urls.login", "shop.context.TenantMiddleware"]
import os
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "build", "HOST": os.environ["PGHOST"],
    "PORT": os.environ["PGPORT"], "USER": os.environ["PGUSER"], "CONN_MAX_AGE": None, "ATOMIC_REQUESTS": True}}
"""
DJANGO_MODELS = """
from django.db import models
class Invoice(models.Model):
    tenant_id = models.IntegerField(db_index=True)
    note = models.TextField()
"""
DJANGO_URLS = """
from types import SimpleNamespace
from django.http import JsonResponse
from django.urls import path
from shop.models import Invoice

def login(get_response):
    def act(request):
        key = request.headers.get("X-Tenant")
        request.user = SimpleNamespace(tenant_id=int(key) if key else None)
        return get_response(request)
    return act

def add(request):
    Invoice.objects.create(tenant_id=request.user.tenant_id, note="x")
    return JsonResponse({})

def seen(request):
    return JsonResponse([one.tenant_id for one in Invoice.objects.all()], safe=False)

urlpatterns = [path("add", add), path("seen", seen)]
"""
DJANGO_TRY = """
import django
django.setup()
from django.db import connection
from django.test import Client
client, seen = Client(), []
for key in ("1", "2"):
    client.get("/add", headers={"X-Tenant": key})
for headers in ({"X-Tenant": "1"}, {"X-Tenant": "2"}, {}, {"X-Tenant": "1"}):
    seen.append(client.get("/seen", headers=headers).json())
with connection.cursor() as cursor:  # as a management command would
    cursor.execute("SELECT DISTINCT tenant_id FROM shop_invoice")
    seen.append([key for (key,) in cursor.fetchall()])
print(seen)
"""
MANAGE = (
    "import sys\nfrom django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n"
)


def test_django(tmp_path: Path, server: ScratchServer, build: psycopg.conninfo.ConnectionInfo) -> None:
    write("django", tmp_path)
    files = {"settings.py": DJANGO_SETTINGS, "models.py": DJANGO_MODELS, "urls.py": DJANGO_URLS, "__init__.py": ""}
    for name, text in files.items():
        (tmp_path / "shop" / name).write_text(text)
    (tmp_path / "shop" / "migrations" / "__init__.py").touch()
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "try.py").write_text(DJANGO_TRY)
    given = {"DJANGO_SETTINGS_MODULE": "shop.settings", "PGHOST": str(build.host), "PGPORT": str(build.port)}
    owner, user = ({**given, "PGUSER": name} for name in ("postgres", "app_user"))
    row_security = tmp_path / "shop" / "migrations" / "0002_row_security.py"
    kept = row_security.read_text()
    row_security.unlink()
    made = shell(tmp_path, "python manage.py makemigrations -n initial shop", **owner)
    assert made.returncode == 0, made.stderr
    row_security.write_text(kept)
    done = shell(tmp_path, COMMANDS["django"], **owner)
    assert done.returncode == 0, done.stdout + done.stderr

    with server.connect("build") as connection:
        connection.execute("GRANT USAGE ON SEQUENCE shop_invoice_id_seq TO app_user")
    done = shell(tmp_path, "python try.py", **user)
    assert done.stdout.strip() == "[[1], [2], [], [1], []]", done.stderr
    change(tmp_path / "shop", ", true\\)", ", false)", "context.py")
    done = shell(tmp_path, "python try.py", **user)
    assert done.stdout.strip() == "[[1, 1], [2, 2], [], [1, 1], [1]]", done.stderr  # the command reads a tenant's rows

    with server.connect("build") as connection:
        connection.execute("ALTER TABLE shop_invoice DISABLE ROW LEVEL SECURITY")
    assert shell(tmp_path, 'rlsaudit scan "dbname=build"', **owner).returncode == 1
