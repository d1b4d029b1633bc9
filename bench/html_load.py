"""How long report.html takes to open in headless Chromium, at 24, 1,000 and 5,000 relations of 16 cells each.

    python bench/html_load.py [N …]

``laid out`` is the time from navigation to a laid out matrix, ``empty`` the same for an empty page in the same browser,
below which no page can come; a reader waits no more than a second longer.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from measure import Figure, asked, at_most, from_tests, tell

from rlsaudit.report import chosen

READER = 1000
"""Milliseconds more than an empty page after which a reader's thought is lost."""
CLOCK = "document.body.getBoundingClientRect().height; document.body.dataset.took = performance.now()"
EMPTY = "<!doctype html><meta http-equiv='Content-Security-Policy' content=\"script-src \"><body></body>"


def opened(browser: str, page: str, directory: Path, times: int = 5) -> float:
    """Least milliseconds until the page is laid out: what else the machine does makes it more, never less."""
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
    return min(taken)


def figures(browser: str, relations: Sequence[int]) -> Iterator[Figure]:
    sample = from_tests("reports/sample.py")
    [form] = chosen(["html"])
    with tempfile.TemporaryDirectory() as name:
        empty = opened(browser, EMPTY, Path(name))
        for count in relations:
            report = sample.large(count)
            start = time.perf_counter()
            page = form.write(report)
            render = time.perf_counter() - start
            took = opened(browser, page, Path(name))
            said = (
                f" ms beside {empty:.0f} ms of an empty page; {len(report.cells):,} cells, {len(page) / 1e6:.1f} MB, "
                f"written in {render:.2f} s"
            )
            yield at_most(f"report.html, {count:,} relations, laid out", took, empty + READER, "{:.0f}", said)


def main() -> None:
    parser = asked(__doc__)
    parser.add_argument("relations", nargs="*", type=int)
    given = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    relations = given.relations or ([24, 1000] if given.quick else [24, 1000, 5000])
    missing = [Figure("report.html, laid out", "no Chromium here")]
    tell(figures(browser, relations) if browser else missing, given.figures)


if __name__ == "__main__":
    main()
