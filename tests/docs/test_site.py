"""The site is built strictly, asks nothing of any network, and a broken link is seen."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.integrations.conftest import ROOT, environment

# What a browser loads by itself; a link that a person follows is none of it.
_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


def build(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(root / "out")],
        cwd=root,
        env=environment(NO_MKDOCS_2_WARNING="1"),
        capture_output=True,
        text=True,
        check=False,
    )


def checkout(place: Path) -> Path:
    """What the site is made from, at a place of its own; links out of docs/ lead to the checkout's other files."""
    for one in ROOT.iterdir():
        if one.name not in ("docs", "mkdocs.yml", "build", ".git"):
            (place / one.name).symlink_to(one)
    shutil.copytree(ROOT / "docs", place / "docs")
    shutil.copy(ROOT / "mkdocs.yml", place)
    return place


class Loaded(HTMLParser):
    """Addresses that a page loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name == _LOADS.get(tag) and value]


def elsewhere(page: str) -> list[str]:
    return [address for address in Loaded(page).found if re.match(r"(?:[a-z]+:)?//", address)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = checkout(tmp_path_factory.mktemp("site"))
    done = build(place)
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "out"


def test_every_page_is_there(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    assert all((site / page).is_file() for page in pages)
    shown = (site / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{page}"' in shown for page in pages if page.name != "index.html" and "RLS" not in page.name)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not elsewhere(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\(['\"]?(?:https?:)?//[^)]*", style.read_text(encoding="utf-8")), style
    assert elsewhere('<link rel="stylesheet" href="https://fonts.example/css"><a href="https://example.org">x</a>') == [
        "https://fonts.example/css"
    ]


@pytest.mark.parametrize("wrong", ["[a](nowhere.md)", "[a](../NOWHERE.md)", "[a](faq.md#nowhere)"])
def test_a_broken_link_is_seen(wrong: str, tmp_path: Path) -> None:
    place = checkout(tmp_path)
    for page in (place / "docs/checks").glob("RLS*.md"):
        page.unlink()
    (place / "docs/checks/index.md").write_text("# Checks\n")
    index = place / "docs/index.md"
    index.write_text(f"{index.read_text()}\n{wrong}\n")
    done = build(place)
    assert done.returncode == 1
    assert "nowhere" in done.stderr.lower()
