"""``github-annotations.txt``: commands for GitHub's runner, which shows them beside the changed lines.

A step prints the file (``cat``).  The runner keeps ten annotations of a level for a step, so the last of ten says how
many are left out.
"""

from __future__ import annotations

from rlsaudit.finding import at_least
from rlsaudit.report import Report, format_

from ._alerts import Alert, alerts
from ._annotations import command, most


@format_("github", filename="github-annotations.txt", description="annotations, for a step of GitHub Actions to print")
def github(report: Report) -> str:
    told = [alert for alert in alerts(report) if alert.status == "open"]
    return "".join(f"{line}\n" for level in ("error", "warning", "notice") for line in _level(level, told))


def _level(level: str, told: list[Alert]) -> list[str]:
    return most([_annotation(level, alert) for alert in told if _of(alert) == level], level)


def _annotation(level: str, alert: Alert) -> str:
    fix = f"\nFix:\n{alert.fix}" if alert.fix else ""
    return command(level, alert.file, alert.line, f"{alert.rule}: {alert.title}", f"{alert.message}{fix}")


def _of(alert: Alert) -> str:
    return "error" if alert.fails else "warning" if at_least(alert.severity, "medium") else "notice"
