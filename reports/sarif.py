"""``rlsaudit.sarif``: SARIF 2.1.0 for code scanning.

Written for what GitHub reads: the first location alone with all four fields of its region, ``primaryLocationLineHash``,
severity by rule.  A check's severity hangs on what it found, so a rule is a check at a severity (``RLS301-high``).
"""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from rlsaudit.finding import Severity
from rlsaudit.report import Report, format_

from ._alerts import Alert, alerts
from ._controls import control_map
from ._markdown import prose
from ._text import instant, visible

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_MOST = 25_000
"""Results that GitHub takes in a run; a file with more is refused whole."""
_TAGS = 20
_LONGEST = 1024
_LEVELS: dict[Severity, str] = {
    "critical": "error", "high": "error", "medium": "warning", "low": "note", "info": "note",
}  # fmt: skip
_SCORES: dict[Severity, str] = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "3.0", "info": "1.0"}
_BASELINE = {"new": "new", "carried": "unchanged"}


@format_("sarif", filename="rlsaudit.sarif", description="SARIF 2.1.0, for code scanning")
def sarif(report: Report) -> str:
    told = alerts(report)
    shown = told[:_MOST]
    rules: dict[str, dict[str, Any]] = {}
    for alert in shown:
        rules.setdefault(_rule_id(alert), _rule(alert))
    numbers = {name: number for number, name in enumerate(rules)}
    run = {
        "tool": {
            "driver": {
                "name": "rlsaudit", "version": visible(report.provenance.tool_version), "rules": list(rules.values())
            }
        },
        "invocations": [_invocation(report, len(told) - len(shown))],
        "columnKind": "unicodeCodePoints",
        "results": [_result(alert, numbers[_rule_id(alert)]) for alert in shown],
        "properties": {"verdict": report.verdict, "controlMap": control_map().version},
    }  # fmt: skip
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, ensure_ascii=False) + "\n"


def _invocation(report: Report, left_out: int) -> dict[str, Any]:
    started = instant(report.timing.started)
    told = list(report.reasons)
    if left_out:
        told.append(f"{left_out} more results are in evidence.json: GitHub takes {_MOST} in a run.")
    level = "error" if report.verdict == "not trustworthy" else "warning"
    return {
        "executionSuccessful": report.verdict != "not trustworthy",
        "exitCode": report.exit_code,
        "exitCodeDescription": visible(report.sentence),
        "startTimeUtc": _utc(started.isoformat(timespec="seconds")),
        "endTimeUtc": _utc((started + timedelta(seconds=report.timing.seconds)).isoformat(timespec="seconds")),
        "toolExecutionNotifications": [{"level": level, "message": {"text": _plain(reason)}} for reason in told],
    }


def _utc(text: str) -> str:
    return text.replace("+00:00", "Z")


def _rule_id(alert: Alert) -> str:
    return f"{visible(alert.rule)}-{alert.severity}"


def _rule(alert: Alert) -> dict[str, Any]:
    why = visible(alert.rationale) or alert.title
    explain = f" More: rlsaudit explain {alert.rule}" if re.fullmatch(r"RLS\d{3}", alert.rule) else ""
    about = [
        f"{name}: {known.title}. {known.speaks_to}"
        for name in alert.controls
        if (known := control_map().controls.get(name))
    ]
    listed = "".join(f"\n- {prose(line)}" for line in about)
    return {
        "id": _rule_id(alert),
        "name": visible(alert.rule)[:255],
        "shortDescription": {"text": alert.title[:_LONGEST]},
        "fullDescription": {"text": why[:_LONGEST]},
        "help": {
            "text": "\n".join([why + explain, *about]),
            "markdown": f"{prose(why)}{prose(explain)}\n" + (f"\nSpeaks to:\n{listed}\n" if listed else ""),
        },
        "defaultConfiguration": {"level": _LEVELS[alert.severity]},
        "properties": {
            "tags": _tags(alert),
            "precision": "very-high" if alert.executed else "high",
            "security-severity": _SCORES[alert.severity],
        },
    }


def _tags(alert: Alert) -> list[str]:
    """GitHub shows the first ten: weaknesses before controls."""
    weaknesses = [name for name in alert.controls if name.startswith(("CWE-", "CVE-"))]
    tags = [f"external/{name[:3].lower()}/{name.lower()}" for name in weaknesses]
    tags += [visible(name) for name in alert.controls if name not in weaknesses]
    return ["security", *tags][:_TAGS]


def _result(alert: Alert, rule: int) -> dict[str, Any]:
    fix = f"\n\nFix:\n{alert.fix}" if alert.fix else ""
    region = {"startLine": alert.line, "startColumn": 1, "endLine": alert.line, "endColumn": 2}
    result: dict[str, Any] = {
        "ruleId": _rule_id(alert),
        "ruleIndex": rule,
        "level": _LEVELS[alert.severity],
        "message": {"text": _plain(f"{alert.title}. {alert.object}: {alert.message}{fix}")},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": quote(alert.file, safe="/")}, "region": region}}
        ],
        "partialFingerprints": {"primaryLocationLineHash": alert.fingerprint},
    }
    if alert.age:
        result["baselineState"] = _BASELINE[alert.age]
    if alert.status == "waived":
        said = alert.status_reason or "no reason was recorded"
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": said}]
    return result


def _plain(text: str) -> str:
    """Text of a message, in which brackets would be a link and ``{0}`` a placeholder."""
    return re.sub(r"\{(\d+)\}", r"{{\1}}", re.sub(r"([\[\]])", r"\\\1", text))
