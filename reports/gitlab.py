"""``gl-code-quality-report.json``: code quality of a merge request, for GitLab.

GitLab compares fingerprints with those of the target branch itself, and knows no waivers: what is waived is left out.
"""

from __future__ import annotations

import json

from rlsaudit.finding import Severity
from rlsaudit.report import Report, format_

from ._alerts import alerts
from ._text import visible

_SEVERITIES: dict[Severity, str] = {
    "critical": "blocker", "high": "critical", "medium": "major", "low": "minor", "info": "info",
}  # fmt: skip


@format_("gitlab", filename="gl-code-quality-report.json", description="code quality, for GitLab's merge requests")
def gitlab(report: Report) -> str:
    issues = [
        {
            "description": f"{alert.title}. {visible(alert.object)}: {visible(alert.message)}",
            "check_name": visible(alert.rule),
            "fingerprint": alert.fingerprint,
            "severity": _SEVERITIES[alert.severity],
            "location": {"path": alert.file, "lines": {"begin": alert.line}},
        }
        for alert in alerts(report)
        if alert.status == "open"
    ]
    return json.dumps(issues, indent=1, ensure_ascii=False) + "\n"
