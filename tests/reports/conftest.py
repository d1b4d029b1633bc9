"""Reports to render, and golden files that are rewritten when the variable UPDATE_GOLDEN is set."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from rlsaudit.report import Report

HERE = Path(__file__).parent


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"rlsaudit_test_{name}", HERE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def sample() -> ModuleType:
    return _load("sample")


@pytest.fixture(scope="session")
def rich(sample: ModuleType) -> Report:
    return sample.rich()


@pytest.fixture(scope="session")
def clean(sample: ModuleType) -> Report:
    return sample.clean()


@pytest.fixture(scope="session")
def large(sample: ModuleType) -> Report:
    return sample.large()


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with a file of golden/."""

    def compare(name: str, text: str) -> None:
        path = HERE / "golden" / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(text, encoding="utf-8", newline="\n")
        assert text == path.read_text(encoding="utf-8"), f"{name} changed: look at it, then run with UPDATE_GOLDEN=1"

    return compare


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a headless Chromium with a fresh profile; skips when there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    binary = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if binary is None:
        pytest.skip("no Chromium is installed (apt-get install chromium), so the page was not opened in a browser")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        profile = tmp_path_factory.mktemp("profile")
        fixed = (
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
            "--disable-sync",             "--hide-scrollbars",
            "--enable-logging=stderr", "--virtual-time-budget=3000", f"--user-data-dir={profile}",
        )  # fmt: skip
        return subprocess.run([binary, *fixed, *arguments], capture_output=True, text=True, timeout=90, check=True)

    return run
