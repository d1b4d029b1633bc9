"""Every measurement, each in a process of its own, and one table of all figures beside their limits.

    python bench/everything.py                      all of them: one to two hours on two processors
    python bench/everything.py --quick              less of each: under five minutes
    python bench/everything.py --only 'fleet|probe' some

The last lines are the table; the exit code is 1 when a limit does not hold or a measurement fails.  What cannot be
measured here (no browser, a tool that cannot be installed) has a row that says so.  Options for peers.py follow ``--``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from measure import Figure, asked, at_most, tell

HERE = Path(__file__).parent
_RATIO = re.compile(r"^\s*(\d+) tables: .*?\baudit [\d.]+ \(([\d.]+), limit ([\d.]+)\)", re.MULTILINE)


@dataclass(frozen=True)
class Script:
    name: str
    whole: tuple[str, ...] = ()
    quick: tuple[str, ...] | None = ("--quick",)
    """None: left out."""
    figures: bool = True
    """It writes figures; of the others what they print is read."""


SCRIPTS = (
    Script("audit_scale", ("--ordinary", "1000", "5000", "20000"), ("--ordinary", "1000"), figures=False),
    Script("audit_scale", ("1000", "5000", "20000"), None, figures=False),
    Script("wide_scale", quick=None),
    Script("prove_rate"),
    Script("prove_coverage"),
    Script("probe_rate"),
    Script("probe_scale"),
    Script("seeding_rate"),
    Script("html_load"),
    Script("fleet_overhead"),
    Script("peers"),
)


def measured(script: Script, *, quick: bool, more: list[str]) -> list[Figure]:
    """The figures of one script; that it failed is one too."""
    arguments = [*((script.quick or ()) if quick else script.whole), *(more if script.name == "peers" else ())]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "figures.json"
        arguments += ["--figures", str(file)] if script.figures else []
        command = [sys.executable, HERE / f"{script.name}.py", *arguments]
        begun = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        print(f"{done.stdout}\n{script.name}: {time.monotonic() - begun:.0f} s\n", flush=True)
        if file.is_file() and done.returncode == 0:
            return [Figure(**one) for one in json.loads(file.read_text(encoding="utf-8"))]
    kind = "an ordinary policy on each" if "--ordinary" in arguments else "a subquery in every second policy"
    found = [
        at_most(f"audit against raw catalog queries, {int(tables):,} tables, {kind}", float(ratio), float(limit))
        for tables, ratio, limit in _RATIO.findall(done.stdout)
    ]
    failed = done.returncode != 0 or (script.figures and not file.is_file())
    return found if found and not failed else [Figure(script.name, f"exit code {done.returncode}", "0", not failed)]


def main() -> int:
    parser = asked(__doc__)
    parser.add_argument("--only", default="", help="regular expression on the names of the measurements")
    parser.add_argument("more", nargs="*", help="for peers.py")
    given = parser.parse_args()
    chosen = [s for s in SCRIPTS if re.search(given.only, s.name) and not (given.quick and s.quick is None)]
    figures = [one for script in chosen for one in measured(script, quick=given.quick, more=given.more)]
    made = tell(figures, given.figures)
    return int(any(one.holds is False for one in made))


if __name__ == "__main__":
    raise SystemExit(main())
