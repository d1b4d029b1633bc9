"""The wheel holds every file of the package, and nothing but the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlsaudit.describe import package_hash

ROOT = Path(__file__).parents[2]
PARTS = {"rlsaudit": "rlsaudit", "checks": "rlsaudit/checks", "reports": "rlsaudit/reports"}
MANUAL = "docs/rlsaudit.1"
KINDS = {".py", ".sql", ".j2", ".css", ".js", ".json", ".toml", ".typed"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy of the sources, so that no build directory of the checkout has a say."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, source)
    (source / "docs").mkdir()
    shutil.copy(ROOT / MANUAL, source / MANUAL)
    for part in PARTS:
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    # A setuptools that is here saves the download; an older one than pyproject.toml asks for does not count.
    present = metadata.version("setuptools") if find_spec("setuptools") else "0"
    isolation = [] if int(present.partition(".")[0]) < 77 else ["--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "wheel", source, "--no-deps", *isolation, "-q", "-w", place]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (built,) = place.glob("*.whl")
    return zipfile.ZipFile(built)


def test_every_file_is_in_the_wheel(wheel) -> None:
    wanted = {
        f"{inside}/{path.relative_to(ROOT / part).as_posix()}"
        for part, inside in PARTS.items()
        for path in (ROOT / part).rglob("*")
        if path.suffix in KINDS and "__pycache__" not in path.parts
    }
    assert len(wanted) > 100
    assert wanted - set(wheel.namelist()) == set()


def test_only_the_package_is_at_the_top_level(wheel) -> None:
    top = {name.partition("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith((".dist-info", ".data"))} == {"rlsaudit"}


def test_the_manual_page_goes_where_man_looks(wheel) -> None:
    (data,) = (name for name in wheel.namelist() if ".data/" in name)
    assert data.endswith(".data/data/share/man/man1/rlsaudit.1")
    assert wheel.read(data) == (ROOT / MANUAL).read_bytes()


def test_the_wheel_runs(wheel, tmp_path) -> None:
    """Unpacked away from the checkout, the package finds its checks, formats and demo schemas."""
    wheel.extractall(tmp_path)
    script = (
        "import rlsaudit, sys\n"
        f"assert rlsaudit.__file__.startswith({str(tmp_path)!r}), rlsaudit.__file__\n"
        "from rlsaudit.check import registry\n"
        "from rlsaudit.report import formats\n"
        "from rlsaudit.demo import demos, path\n"
        "assert registry() and {'json', 'html', 'junit', 'sarif'} <= set(formats())\n"
        "from rlsaudit.reports import _controls\n"
        "assert _controls.control_map().controls\n"
        "assert all(path(demo).is_file() for demo in demos())\n"
        "from rlsaudit.source import presets\n"
        "assert presets.preset('supabase').text\n"
        f"assert all(p.startswith({str(tmp_path)!r}) for p in rlsaudit.__path__), rlsaudit.__path__\n"
        "from rlsaudit.describe import package_hash\n"
        "sys.stdout.write(package_hash())\n"
    )
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == package_hash(), "evidence of a wheel and of its checkout name the same program"
