"""``github-annotations.txt``: commands for GitHub's runner, which shows them beside the changed lines.

A step prints the file (``cat``).  The runner keeps ten annotations of a level for a step, so the last of ten says how
many are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlsaudit.finding import at_least
from rlsaudit.report import Report, format_

from ._alerts import CONFIGURATION, Alert, alerts
from ._text import lines

_SHOWN = 10


@format_("github", filename="github-annotations.txt", description="annotations, for a step of GitHub Actions to print")
def github(report: Report) -> str:
    told = [alert for alert in alerts(report) if alert.status == "open"]
    return "".join(f"{line}\n" for level in ("error", "warning", "notice") for line in _level(level, told))


def _level(level: str, told: list[Alert]) -> Iterator[str]:
    mine = [alert for alert in told if _of(alert) == level]
    shown = mine if len(mine) <= _SHOWN else mine[: _SHOWN - 1]
    for alert in shown:
        fix = f"\nFix:\n{alert.fix}" if alert.fix else ""
        yield _command(level, alert.file, alert.line, f"{alert.rule}: {alert.title}", f"{alert.message}{fix}")
    if left := len(mine) - len(shown):
        yield _command(level, CONFIGURATION, 1, "rlsaudit", f"{left} more of this level are in the report.")


def _of(alert: Alert) -> str:
    return "error" if alert.fails else "warning" if at_least(alert.severity, "medium") else "notice"


def _command(level: str, file: str, line: int, title: str, message: str) -> str:
    return f"::{level} file={_property(file)},line={line},title={_property(title)}::{_data(lines(message))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
