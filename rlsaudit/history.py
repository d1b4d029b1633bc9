"""Earlier runs in a directory, for the row of marks in a report."""

from __future__ import annotations

from pathlib import Path

from rlsaudit import evidence
from rlsaudit.errors import UsageError
from rlsaudit.report import HistoryEntry

MOST = 30
_FILE = "evidence.json"


def load(directory: Path | None) -> tuple[HistoryEntry, ...]:
    """The last ``MOST`` runs whose evidence lies in ``directory`` or below it, oldest first.

    Raises UsageError for a file that cannot be read, or that is no evidence.
    """
    files = directory.rglob(_FILE) if directory else ()
    return tuple(sorted(map(_entry, files), key=lambda entry: entry.started)[-MOST:])


def _entry(file: Path) -> HistoryEntry:
    try:
        report = evidence.parse(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error
    states = [cell.state for cell in report.cells]
    standing = sum(finding.status == "open" for finding in report.findings)
    return HistoryEntry(
        report.timing.started, report.verdict, states.count("leak"), states.count("not covered"), standing
    )
