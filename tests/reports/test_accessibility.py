"""axe-core finds nothing to object to, in both themes, wide and narrow; and does find what was made wrong on purpose."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from rlsaudit.fleet.page import html
from rlsaudit.fleet.result import Entry, Fleet
from rlsaudit.report import Report, chosen

Chromium = Callable[..., "CompletedProcess[str]"]

_RUN = """
addEventListener("load", () => setTimeout(() => axe.run(document, {resultTypes: ["violations"]}).then(
  found => { document.body.dataset.axe = JSON.stringify(found.violations.map(
    one => [one.id, one.nodes.slice(0, 3).map(node => node.target.join(" ") + " " + node.any.map(a => a.message))])) },
  error => { document.body.dataset.axe = JSON.stringify([["failed", String(error)]]) }), 300));
"""


def violations(chromium: Chromium, page: str, path: Path, *options: str, query: str = "") -> list[object]:
    """What axe-core objects to on the page, whose policy is widened by the two scripts of the test."""
    scripts = [files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"), _RUN]
    hashes = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    before, after = (
        ("script-src ", f"script-src {hashes} ")
        if "script-src " in page
        else ("style-src ", f"script-src {hashes}; style-src ")
    )
    page = page.replace(before, after, 1)
    path.write_text(page.replace("</body>", "".join(f"<script>{one}</script>" for one in scripts) + "</body>"), "utf-8")
    done = chromium("--dump-dom", "--virtual-time-budget=60000", *options, path.as_uri() + query)
    found = re.search(r'data-axe="([^"]*)"', done.stdout)
    assert found, done.stderr
    listed: list[object] = json.loads(found[1].replace("&quot;", '"').replace("&gt;", ">").replace("&amp;", "&"))
    return listed


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["1440,900", "400,900"])
@pytest.mark.parametrize("which", ["rich", "clean"])
def test_axe_objects_to_nothing(
    chromium: Chromium, rich: Report, clean: Report, which: str, size: str, theme: str, tmp_path: Path
) -> None:
    [form] = chosen(["html"])
    page = form.write(rich if which == "rich" else clean)
    query = f"?theme={theme}"
    assert violations(chromium, page, tmp_path / "page.html", f"--window-size={size}", query=query) == []


def fleet() -> str:
    """Every outcome, and a target that is called what it should not be."""
    hostile = "<img src=x onerror=alert(1)>\x07"
    entries = (
        Entry("gone", f"service={hostile}", "no verdict", 3, f"cannot connect: {hostile}"),
        Entry("open", "open.sql", "exceptions", 1, "2 exceptions", "2026-01-01T00:00:00+00:00", 2.0, 2,
              (("critical", 1), ("low", 4)), (("held", 12), ("leak", 1)), 3),
        Entry("sound", "sound.sql", "clean", 0, "No exceptions noted", "2026-01-01T00:00:00+00:00", 1.0, 1, (),
              (("proven", 40),), 9, stands=True),
    )  # fmt: skip
    return html(Fleet("1.0", "2026-01-02T00:00:00+00:00", 3.0, 4, entries), {"open", "sound"})


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["1440,900", "400,900"])
def test_axe_objects_to_nothing_in_a_fleet(chromium: Chromium, size: str, theme: str, tmp_path: Path) -> None:
    page = fleet()
    assert "<img" not in page
    dark = f"--blink-settings=preferredColorScheme={0 if theme == 'dark' else 1}"
    assert violations(chromium, page, tmp_path / "index.html", f"--window-size={size}", dark) == []
    broken = page.replace("<main>", '<main><img src="data:,">', 1)
    assert violations(chromium, broken, tmp_path / "broken.html", f"--window-size={size}", dark) != []


def test_axe_does_look(chromium: Chromium, clean: Report, tmp_path: Path) -> None:
    [form] = chosen(["html"])
    broken = form.write(clean).replace("<main>", '<main><img src="data:,"><button></button>', 1)
    names = {one[0] for one in violations(chromium, broken, tmp_path / "page.html") if isinstance(one, list)}
    assert {"image-alt", "button-name"} <= names
