"""How long report.html takes to open in headless Chromium, at 24, 1,000 and 5,000 relations of 16 cells each.

    python bench/html_load.py [N …]

``laid out`` is the time from navigation to a laid out matrix, ``empty`` the same for an empty page in the same browser,
the limit below which no page can come; ``render`` is what writing the page takes.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from rlsaudit.report import chosen

SAMPLE = Path(__file__).parents[1] / "tests" / "reports" / "sample.py"
CLOCK = "document.body.getBoundingClientRect().height; document.body.dataset.took = performance.now()"
EMPTY = "<!doctype html><meta http-equiv='Content-Security-Policy' content=\"script-src \"><body></body>"


def sample() -> ModuleType:
    """The module that makes large reports for the tests."""
    spec = importlib.util.spec_from_file_location("rlsaudit_bench_sample", SAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def opened(browser: str, page: str, directory: Path, times: int = 5) -> float:
    """Median milliseconds until the page is laid out."""
    allowed = f"'sha256-{b64encode(sha256(CLOCK.encode()).digest()).decode()}'"
    path = directory / "page.html"
    page = page.replace("script-src ", f"script-src {allowed} ", 1)
    path.write_text(page.replace("</body>", f"<script>{CLOCK}</script></body>"), encoding="utf-8")
    taken = []
    for number in range(times):
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += [f"--user-data-dir={directory / str(number)}", "--dump-dom", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        found = re.search(r'data-took="([\d.]+)"', done.stdout)
        assert found, done.stderr
        taken.append(float(found[1]))
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("relations", nargs="*", type=int, default=[24, 1000, 5000])
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        parser.error("no Chromium here")
    [form] = chosen(["html"])
    with tempfile.TemporaryDirectory() as name:
        empty = opened(browser, EMPTY, Path(name))
        print(f"empty page {empty:.0f} ms, median of 5")
        for relations in arguments.relations:
            report = sample().large(relations)
            start = time.perf_counter()
            page = form.write(report)
            render = time.perf_counter() - start
            took = opened(browser, page, Path(name))
            print(
                f"{relations:>6} relations, {len(report.cells):>6,} cells: laid out {took:6.0f} ms ({took / empty:.1f} × empty), "
                f"render {render:.2f} s, {len(page) / 1e6:.1f} MB"
            )


if __name__ == "__main__":
    main()
