"""``evidence.json``: the record every other format is made from (schema beside this file)."""

from __future__ import annotations

from rlsaudit.evidence import dump
from rlsaudit.report import Report, format_


@format_(
    "json",
    filename="evidence.json",
    description="the whole record, for programs; other formats render from it",
)
def evidence(report: Report) -> str:
    return dump(report)
